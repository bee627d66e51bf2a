"""How a run is doing: plain numbers, set by the loop and read by whoever serves metrics."""

from typing import NamedTuple

PARTS = (
    "impressions", "signals", "conversions", "adjustments", "items", "dead_letters", "ignored", "duplicates", "forgotten",
)  # fmt: skip
"""What becomes of a record that is read: one of these."""
KINDS = ("read", *PARTS, "late", "past_window")
"""What is counted; the last two are among the parts."""


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
