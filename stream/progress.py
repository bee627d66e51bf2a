"""How a run is doing: plain numbers, set by the loop and read by whoever serves metrics."""

from typing import NamedTuple


class Numbers(NamedTuple):
    """One moment of a run. ``watermark`` and ``passed``: event time, ms; `BEGINNING` before it has begun.

    ``commit``, ``committed_at``: the last commit, and when it was, seconds since 1970; 0 before the first of this process.
    """

    counts: dict[str, int]
    waiting: int
    watermark: int
    passed: int
    commit: int
    committed_at: float
