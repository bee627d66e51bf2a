"""What a commit keeps beside the facts: checkpoints, records read but not passed, the journal, dead letters, metrics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, inspect, select

from labelstore.bulk import insert_rows, seqs, within
from labelstore.tables import checkpoints, dead_letters, journal, metrics, swaps, waiting

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


class Advance(NamedTuple):
    """A partition's clock was raised to ``clock``, ms, before its record at ``offset``, or the next there is, was read."""

    topic: str
    partition: int
    offset: int
    clock: int


class Swap(NamedTuple):
    """Impressions known from ``at`` on, ms, pass with this version of the product graph; 0: with none yet."""

    at: int
    version: int


class Hour(NamedTuple):
    """Sums over settled rows: their number, positives, scores, log losses; true p and divergence from it, 0 if not known."""

    rows: int
    positives: int
    score_sum: float
    loss_sum: float
    p_sum: float = 0.0
    excess_sum: float = 0.0

    def plus(self, other: "Hour") -> "Hour":
        """Both."""
        return Hour(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[arg-type]  # each with its own type


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


def files(connection: Connection) -> set[str]:
    """The files that rows of checkpoints name."""
    return set(connection.execute(select(checkpoints.c.file)).scalars())


def bundles(connection: Connection) -> set[str]:
    """The files of the product graph that rows of checkpoints name."""
    told = connection.execute(select(checkpoints.c.progress)).scalars()
    return {part["file"] for progress in told for part in progress.get("graph", {}).get("bundles", ())}


def save_waiting(connection: Connection, passed: int, read: Sequence[Waiting]) -> None:
    """Drop what has passed (known_at < ``passed``); add what was read since the last commit and still waits."""
    connection.execute(delete(waiting).where(waiting.c.known_at < passed))
    insert_rows(connection, waiting, Waiting._fields, read)


def load_waiting(connection: Connection) -> list[Waiting]:
    """All records that were read and had not passed at the last commit."""
    W = waiting.c
    rows = connection.execute(select(W.topic, W.partition, W.offset, W.known_at, W.value))
    return [Waiting(*row) for row in rows]


def save_journal(connection: Connection, advances: Sequence[Advance]) -> None:
    """Write down how far clocks were raised; of one place the last counts, which is the highest."""
    J = journal.c
    for row in advances:
        place = (J.topic == row.topic) & (J.partition == row.partition) & (J.offset == row.offset)
        connection.execute(delete(journal).where(place))
    if advances:
        connection.execute(insert(journal), [row._asdict() for row in advances])


def load_journal(connection: Connection) -> list[Advance]:
    """All advances, in the order of their places: what `journal.jsonl` beside an exported log holds."""
    if not inspect(connection).has_table(journal.name):
        return []  # written before there was one
    rows = connection.execute(select(journal).order_by(journal.c.topic, journal.c.partition, journal.c.offset))
    return [Advance(*row) for row in rows]


def save_swaps(connection: Connection, rows: Sequence[Swap]) -> None:
    """Write down which version took over when; of one moment the last counts."""
    for row in rows:
        connection.execute(delete(swaps).where(swaps.c.at == row.at))
        connection.execute(insert(swaps), [row._asdict()])


def load_swaps(connection: Connection) -> list[Swap]:
    """All swaps in order: what `swaps.jsonl` beside an exported log holds."""
    if not inspect(connection).has_table(swaps.name):
        return []  # written before there were any
    return [Swap(*row) for row in connection.execute(select(swaps).order_by(swaps.c.at))]


def save_dead_letters(connection: Connection, letters: Iterable[Mapping[str, Any]]) -> None:
    """Keep records that cannot be read, with their origin and reason."""
    rows = [{**letter, "value": letter["value"][:DEAD_LETTER_BYTES]} for letter in letters]
    if rows:
        connection.execute(insert(dead_letters), rows)


def add_metrics(connection: Connection, learner: str, hours: Mapping[int, Hour]) -> None:
    """Add sums to the hours (since 1970) of the impressions."""
    M = metrics.c
    ours, given = (M.learner == learner) & within(M.hour), seqs(hours)  # of late impressions, hours of many years
    before = {row.hour: Hour(*row[2:]) for row in connection.execute(select(metrics).where(ours), given)}
    connection.execute(delete(metrics).where(ours), given)
    rows = [
        {"learner": learner, "hour": hour} | (before[hour].plus(added) if hour in before else added)._asdict()
        for hour, added in hours.items()
    ]
    connection.execute(insert(metrics), rows)


def read_metrics(connection: Connection) -> dict[str, dict[int, Hour]]:
    """Learner -> hour since 1970 -> sums over the rows shown then, by rising hour."""
    found: dict[str, dict[int, Hour]] = {}
    for learner, hour, *sums in connection.execute(select(metrics).order_by(metrics.c.learner, metrics.c.hour)):
        found.setdefault(learner, {})[hour] = Hour(*sums)
    return found
