"""Metrics of probabilities, from a fixed number of counts: memory does not grow with the rows, and two halves add up.

Scores are counted by their logit, in steps of 1/256 between -16 and 16. Log loss and PCOC are sums and exact; AUC,
PR-AUC and ECE are read off the counts: scores within a step count as tied.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 256  # per unit of the logit
REACH = 16.0
CLIP = 1e-7  # a score is kept this far from 0 and 1 in the log loss
GROUPS = 20  # of equal size, for the calibration error


class Metrics:
    """Counts and sums over (score, label) pairs.

    ``counts`` [2, bins]: rows of label 0 and 1 by logit. ``scores`` [bins]: sums of scores. ``loss``: sum of log losses.

    >>> m = Metrics()
    >>> m.add(np.array([0.1, 0.8]), np.array([0, 1]))
    >>> m.summary()["auc"], round(m.summary()["log_loss"], 4)
    (1.0, 0.1643)
    """

    def __init__(self) -> None:
        bins = int(2 * REACH * STEPS)
        self.counts: Floats = np.zeros((2, bins))
        self.scores: Floats = np.zeros(bins)
        self.loss = 0.0

    def add(self, score: Floats, label: NDArray[np.int64]) -> None:
        """Count rows; both [N]."""
        place = bins_of(score)
        np.add.at(self.counts, (label, place), 1.0)
        np.add.at(self.scores, place, score)
        self.loss += float(log_losses(score, label).sum())

    def __add__(self, other: "Metrics") -> "Metrics":
        both = Metrics()
        both.counts, both.scores = self.counts + other.counts, self.scores + other.scores
        both.loss = self.loss + other.loss
        return both

    def summary(self) -> dict[str, float | None]:
        """rows, positives, auc, pr_auc, log_loss, ne (normalised entropy), pcoc (E[p] / E[y]), ece; None if undefined."""
        negatives, positives = self.counts.sum(1)
        rows = positives + negatives
        rate = positives / rows if rows else 0.0
        entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)) if 0 < rate < 1 else None
        loss = float(self.loss / rows) if rows else None
        return {
            "rows": int(rows),
            "positives": int(positives),
            "auc": self._auc() if positives and negatives else None,
            "pr_auc": self._pr_auc() if positives else None,
            "log_loss": loss,
            "ne": float(loss / entropy) if loss is not None and entropy else None,
            "pcoc": float(self.scores.sum() / positives) if positives else None,
            "ece": self._ece() if rows else None,
        }

    def _auc(self) -> float:
        """P(score of a positive > score of a negative), ties one half."""
        negatives, positives = self.counts
        below = negatives.cumsum() - negatives
        return float((positives * (below + negatives / 2)).sum() / (positives.sum() * negatives.sum()))

    def _pr_auc(self) -> float:
        """Average precision: sum over steps of (recall gained) x precision, from the highest score down."""
        negatives, positives = self.counts[:, ::-1]
        taken = (positives + negatives).cumsum()
        precision = positives.cumsum() / np.maximum(taken, 1)
        return float((positives * precision).sum() / positives.sum())

    def calibration(self, groups: int = GROUPS) -> list[tuple[int, float, float]]:
        """(rows, mean score, share of positives) of groups of about equal size, by rising score."""
        return in_groups(self.counts.sum(0), self.scores, self.counts[1], groups)

    def _ece(self) -> float:
        """Expected calibration error: mean over rows of |mean score - share of positives| of their group."""
        groups = self.calibration()
        return sum(n * abs(p - y) for n, p, y in groups) / sum(n for n, _, _ in groups)


def in_groups(rows: Floats, first: Floats, second: Floats, groups: int) -> list[tuple[int, float, float]]:
    """Bins taken together to groups of about equal size: of each (rows, mean of ``first``, mean of ``second``).

    ``rows``, ``first``, ``second`` [bins]: how many rows, and the two sums over them.
    """
    upto = rows.cumsum()
    group = np.minimum(((upto - rows / 2) * groups / max(upto[-1], 1)).astype(int), groups - 1)
    sums = np.stack([np.bincount(group, w, groups) for w in (rows, first, second)], 1)
    return [(int(n), float(one / n), float(other / n)) for n, one, other in sums if n]


def bins_of(score: Floats) -> NDArray[np.int64]:
    """The place of each score among the counts."""
    p = np.clip(score, CLIP, 1 - CLIP)
    place = np.floor((np.log(p) - np.log1p(-p) + REACH) * STEPS)
    return np.clip(place, 0, 2 * REACH * STEPS - 1).astype(np.int64)


def log_losses(score: Floats, label: NDArray[np.int64]) -> Floats:
    """Log loss of each row, [N]."""
    p = np.clip(score, CLIP, 1 - CLIP)
    return np.where(label > 0, -np.log(p), -np.log1p(-p))


def divergences(p: Floats, score: Floats) -> Floats:
    """KL(p || score) of each row, [N]: the log loss that is expected beyond the one of the true p."""
    p, s = np.clip(p, CLIP, 1 - CLIP), np.clip(score, CLIP, 1 - CLIP)
    return p * np.log(p / s) + (1 - p) * np.log((1 - p) / (1 - s))
