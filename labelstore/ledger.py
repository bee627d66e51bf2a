"""What a commit keeps beside the facts: checkpoints, records read but not passed, dead letters, metrics by the hour."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from labelstore.tables import checkpoints, dead_letters, metrics, waiting

DEAD_LETTER_BYTES = 10_000  # of a record that cannot be read, this much is kept in SQL; the log has it whole


class Checkpoint(NamedTuple):
    """One commit: the file of tensors, its sha256, and where everything stood."""

    n: int
    file: str
    sha256: str
    progress: dict[str, Any]
    settings: dict[str, Any]
    code: str


class Waiting(NamedTuple):
    """A record that was read and has not passed."""

    topic: str
    partition: int
    offset: int
    known_at: int
    value: bytes


def newest(connection: Connection) -> Checkpoint | None:
    """The last commit."""
    row = connection.execute(select(checkpoints).order_by(checkpoints.c.n.desc()).limit(1)).first()
    return Checkpoint(*row) if row is not None else None


def record(connection: Connection, checkpoint: Checkpoint, keep: int) -> list[str]:
    """Write the row of a checkpoint and drop all but the last ``keep``. Returns the files no row names any more."""
    old = checkpoints.c.n <= checkpoint.n - keep
    files = list(connection.execute(select(checkpoints.c.file).where(old)).scalars())
    connection.execute(delete(checkpoints).where(old))
    connection.execute(insert(checkpoints), [checkpoint._asdict()])
    return files


def save_waiting(connection: Connection, passed: int, read: Sequence[Waiting]) -> None:
    """Drop what has passed (known_at < ``passed``); add what was read since the last commit and still waits."""
    connection.execute(delete(waiting).where(waiting.c.known_at < passed))
    if read:
        connection.execute(insert(waiting), [row._asdict() for row in read])


def load_waiting(connection: Connection) -> list[Waiting]:
    """All records that were read and had not passed at the last commit."""
    W = waiting.c
    rows = connection.execute(select(W.topic, W.partition, W.offset, W.known_at, W.value))
    return [Waiting(*row) for row in rows]


def save_dead_letters(connection: Connection, letters: Iterable[Mapping[str, Any]]) -> None:
    """Keep records that cannot be read, with their origin and reason."""
    rows = [{**letter, "value": letter["value"][:DEAD_LETTER_BYTES]} for letter in letters]
    if rows:
        connection.execute(insert(dead_letters), rows)


def reasons(connection: Connection, limit: int = 10) -> list[tuple[str, int]]:
    """The most frequent reasons of dead letters, with their counts."""
    D = dead_letters.c
    query = select(D.reason, func.count()).group_by(D.reason).order_by(func.count().desc(), D.reason).limit(limit)
    return [tuple(row) for row in connection.execute(query)]


def add_metrics(connection: Connection, learner: str, hours: Mapping[int, tuple[int, int, float, float]]) -> None:
    """Add (rows, positives, sum of scores, sum of log losses) to the hours (since 1970) of the impressions."""
    M = metrics.c
    ours = (M.learner == learner) & M.hour.in_(list(hours))
    before = {row.hour: tuple(row)[2:] for row in connection.execute(select(metrics).where(ours))}
    connection.execute(delete(metrics).where(ours))
    rows = []
    for hour, added in hours.items():
        total = [a + b for a, b in zip(added, before.get(hour, (0, 0, 0.0, 0.0)), strict=True)]
        names = ("rows", "positives", "score_sum", "loss_sum")
        rows.append({"learner": learner, "hour": hour, **dict(zip(names, total, strict=True))})
    connection.execute(insert(metrics), rows)


def read_metrics(connection: Connection) -> dict[str, list[tuple[int, int, int, float, float]]]:
    """Learner -> (hour, rows, positives, sum of scores, sum of log losses), by hour."""
    found: dict[str, list[tuple[int, int, int, float, float]]] = {}
    for learner, *row in connection.execute(select(metrics).order_by(metrics.c.learner, metrics.c.hour)):
        found.setdefault(learner, []).append(tuple(row))
    return found
