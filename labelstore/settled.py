"""What became of rows: scores and weights as they were given, beside the label as it stands.

Settled: the attribution window has closed, the label is what was known at the close. Tentative: not yet, the label is
what is known so far.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from labelstore.bulk import chunks, seqs, within
from labelstore.due import Target
from labelstore.observations import Credit, Look, converted_at, label_at, look_at
from labelstore.tables import impressions, looks, predictions, signals

PAGE = 4096


class Outcome(NamedTuple):
    """What became of one impression by ``until``: its label, and when it was first known as converted, ms after it."""

    seq: int
    at: int
    label: int
    delay: int | None


class Settled(NamedTuple):
    """Rows of one learner: ``score`` and ``weight`` of observed negatives (NaN where there was none), [N] each."""

    learner: int
    seq: NDArray[np.int64]
    at: NDArray[np.int64]
    score: NDArray[np.float64]
    weight: NDArray[np.float64]
    label: NDArray[np.int64]


def outcomes(target: Target, shown: Sequence[tuple[int, int, int]], now: int | None = None) -> list[Outcome]:
    """What became of impressions (seq, at, known_at), by seq: at their close, or by ``now`` if that is earlier."""
    shown = sorted(shown)
    credits = target.credits([seq for seq, _, _ in shown])
    found = []
    for seq, at, known_at in shown:
        close = look_at(target.window, at, known_at)
        until = close if now is None else min(now, close)
        credit: list[Credit] = credits.get(seq, [])
        label = label_at(until, credit)
        known = converted_at(until, credit) if label else None
        found.append(Outcome(seq, at, label, None if known is None else known - at))
    return found


def with_scores(connection: Connection, rows: Sequence[Outcome]) -> Iterator[Settled]:
    """The rows with each learner's score, and weight at its first look if no conversion was known then."""
    P, L = predictions.c, looks.c
    for start in range(0, len(rows), PAGE):
        page = {row.seq: row for row in rows[start : start + PAGE]}
        weighed = (L.impression == P.impression) & (L.learner == P.learner) & (L.look == Look.FIRST) & (L.label == 0)
        query = (
            select(P.learner, P.impression, P.score, L.weight)
            .join_from(predictions, looks, weighed, isouter=True)
            .where(within(P.impression))
            .order_by(P.learner, P.impression)
        )
        for learner, group in groupby(connection.execute(query, seqs(page)), key=lambda row: int(row[0])):
            found = [tuple(row) for row in group]
            yield Settled(
                learner,
                np.array([seq for _, seq, _, _ in found], dtype=np.int64),
                np.array([page[seq].at for _, seq, _, _ in found], dtype=np.int64),
                np.array([score for _, _, score, _ in found], dtype=np.float64),
                np.array([np.nan if weight is None else weight for _, _, _, weight in found], dtype=np.float64),
                np.array([page[seq].label for _, seq, _, _ in found], dtype=np.int64),
            )


def ids(connection: Connection, rows: Sequence[Outcome]) -> dict[int, str]:
    """The impression_id of each row, by seq."""
    query = select(impressions.c.seq, impressions.c.id).where(within(impressions.c.seq))
    found: dict[int, str] = {}
    for some in chunks(row.seq for row in rows):
        found.update((seq, name) for seq, name in connection.execute(query, seqs(some)))
    return found


def touched(connection: Connection, rows: Sequence[Outcome]) -> dict[str, set[int]]:
    """Kind of signal -> the rows (by seq) that had one."""
    C = signals.c
    found: dict[str, set[int]] = {}
    query = select(C.kind, C.impression).where(within(C.impression)).distinct()
    for some in chunks(row.seq for row in rows):
        for kind, seq in connection.execute(query, seqs(some)):
            found.setdefault(kind, set()).add(seq)
    return found
