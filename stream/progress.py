"""How a run is doing: plain numbers, set by the loop and read by whoever serves metrics."""

from typing import NamedTuple

KINDS = (
    "read", "impressions", "signals", "conversions", "adjustments", "items", "dead_letters", "ignored", "duplicates",
    "forgotten", "late", "past_window",
)  # fmt: skip
"""What becomes of records; the first is all of them."""


class Numbers(NamedTuple):
    """One moment of a run. ``watermark`` and ``passed``: event time, ms; `BEGINNING` before it has begun.

    ``commit``, ``committed_at``: the last commit, and when it was, seconds since 1970; 0 where there is none.
    """

    counts: dict[str, int]
    waiting: int
    watermark: int
    passed: int
    commit: int
    committed_at: float
