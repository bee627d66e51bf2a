"""Drift of calibration: when a learner's scores began to be too high or too low, as river's ADWIN sees it.

Settled rows are taken by the hour (event time of the impressions). A calibrated learner's hours have

    z = (sum of scores - positives) / sqrt(sum of p (1 - p)),   p the mean score of the hour

near 0 with variance 1, however many rows they have. ADWIN (Bifet, Gavalda, SDM 2007) says when the means of two parts of
its window differ by more than chance allows at confidence 1 - delta. The change is then placed where the cumulative sum
departs most from a straight line, and ADWIN starts anew with what came after it.
"""

from collections.abc import Mapping
from math import sqrt
from typing import NamedTuple

import numpy as np
from river.drift import ADWIN

from labelstore.ledger import Hour

DELTA = 0.002  # chance of a false alarm; river's default
FEWEST = 5.0  # expected positives of an hour; hours with fewer are taken together with those after them


class Drift(NamedTuple):
    """``hour``: since 1970, the first after the cut; ``found``: the one that gave it away. PCOC before and after, None where
    nothing has converted."""

    hour: int
    found: int
    before: float | None
    after: float | None


def drifts(hours: Mapping[int, Hour]) -> list[Drift]:
    """The drifts of one learner, in the order in which they were found."""
    detector, told = ADWIN(delta=DELTA), []
    window: list[tuple[int, float, Hour]] = []  # since the last drift
    for first, last, sums in _grouped(hours):
        p = min(sums.score_sum / sums.rows, 1 - 1e-9)
        window.append((first, (sums.score_sum - sums.positives) / sqrt(sums.score_sum * (1 - p)), sums))
        detector.update(window[-1][1])
        if detector.drift_detected:
            cut = _place([z for _, z, _ in window])
            before, window = window[:cut], window[cut:]
            told.append(Drift(window[0][0], last, _pcoc(before), _pcoc(window)))
            detector = ADWIN(delta=DELTA)
            for _, z, _ in window:
                detector.update(z)
    return told


def _place(z: list[float]) -> int:
    """Where a sequence changes most likely: the largest |sum of the first n - n mean| / sqrt(n (N - n))."""
    values = np.array(z)
    n = np.arange(1, len(values))
    apart = np.abs(values.cumsum()[:-1] - n * values.mean()) / np.sqrt(n * (len(values) - n))
    return int(apart.argmax()) + 1


def _grouped(hours: Mapping[int, Hour]) -> list[tuple[int, int, Hour]]:
    """(first hour, last hour, sums), each with enough rows to say something."""
    found: list[tuple[int, int, Hour]] = []
    first, sums = None, Hour(0, 0, 0.0, 0.0)
    for hour in sorted(hours):
        first = hour if first is None else first
        sums = sums.plus(hours[hour])
        if sums.score_sum >= FEWEST and sums.rows - sums.score_sum >= FEWEST:
            found.append((first, hour, sums))
            first, sums = None, Hour(0, 0, 0.0, 0.0)
    return found


def _pcoc(window: list[tuple[int, float, Hour]]) -> float | None:
    positives = sum(sums.positives for *_, sums in window)
    return sum(sums.score_sum for *_, sums in window) / positives if positives else None
