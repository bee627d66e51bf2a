"""Delayed progressive validation: every row was scored before it was learned, and is judged when it is settled.

Rows enter at the midnight (event time) after their attribution window closed. Memory is a fixed number of counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from labelstore import ledger
from labelstore.due import Target
from labelstore.settled import Outcome, Settled, ids, outcomes, touched, with_scores
from learner.metrics import Metrics, divergences, in_groups, log_losses
from stream.truth import Truth

HOUR = 3_600_000
STEPS = 8192  # weights are counted in steps of 2 / STEPS
KINDS, FURTHER = 50, "(further kinds)"  # of signals told apart in the funnel
DELAYS = 96  # buckets of realised delays, equal in the logarithm, from window / 10,000 to the window


class Judged:
    """One learner's settled rows: metrics of its scores, and its weights of observed negatives against what they became.

    ``weights`` [3, STEPS]: rows, sum of weights, real negatives, by weight. ``known`` [3]: rows whose true p is known, sum
    of it, sum of the divergence of the scores from it.
    """

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.weights: NDArray[np.float64] = np.zeros((3, STEPS))
        self.known: NDArray[np.float64] = np.zeros(3)

    def add(self, rows: Settled, p: NDArray[np.float64] | None) -> None:
        """Count these rows; ``p`` is the truth of each, where it is known."""
        self.metrics.add(rows.score, rows.label)
        if p is not None:
            self.known += (len(p), p.sum(), divergences(p, rows.score).sum())
        seen = ~np.isnan(rows.weight)
        weight = rows.weight[seen]
        place = np.clip(weight * STEPS / 2, 0, STEPS - 1).astype(np.int64)
        for row, value in enumerate((np.ones(len(weight)), weight, 1.0 - rows.label[seen])):
            np.add.at(self.weights[row], place, value)

    def truth(self) -> dict[str, float] | None:
        """pcoc: mean score over mean p; excess_log_loss: mean over rows of KL(p || score). None where p is not known."""
        rows, p, excess = self.known.tolist()
        return {"pcoc": float(self.metrics.scores.sum() / p), "excess_log_loss": excess / rows} if rows else None

    def deciles(self, groups: int = 10) -> list[tuple[int, float, float]]:
        """(rows, mean weight, share of real negatives) of groups of about equal size, by rising weight."""
        rows, weights, negatives = self.weights
        return in_groups(rows, weights, negatives, groups)


class Validation:
    """What settled rows tell, for every learner of a run.

    Args:
        names: the learners; a learner's number is its place.
        window: attribution window, ms.
        truth: of a simulated log.
    """

    def __init__(self, names: Sequence[str], window: int, truth: Truth | None = None) -> None:
        self.names, self.window, self._truth = list(names), window, truth
        self.judged = [Judged() for _ in names]
        self.delays: NDArray[np.float64] = np.zeros(DELAYS)
        self.funnel: dict[str, list[int]] = {"": [0, 0]}  # kind of signal ("" = all rows) -> [rows, converted]

    def settle(self, connection: Connection, target: Target, start: int, stop: int) -> None:
        """Judge the rows whose window closed in [start, stop), and add them to the metrics by the hour."""
        rows = outcomes(target, target.shown(self.window, start, stop))
        if not rows:
            return
        known = self._known(connection, rows)
        hours: list[dict[int, ledger.Hour]] = [{} for _ in self.names]
        for part in with_scores(connection, rows):
            p = None if known is None else np.array([known[seq] for seq in part.seq.tolist()])
            self.judged[part.learner].add(part, p)
            _by_hour(hours[part.learner], part, p)
        for name, found in zip(self.names, hours, strict=True):
            if found:
                ledger.add_metrics(connection, name, found)
        self._count(connection, rows)

    def _known(self, connection: Connection, rows: Sequence[Outcome]) -> dict[int, float] | None:
        """The true p of each row, by seq."""
        if self._truth is None:
            return None
        names = ids(connection, rows)
        return dict(zip(names, self._truth.of(names.values()).tolist(), strict=True))

    def _count(self, connection: Connection, rows: Sequence[Outcome]) -> None:
        delays = np.array([row.delay for row in rows if row.delay is not None], dtype=np.float64)
        place = DELAYS * (1 + np.log10(np.maximum(delays, 1) / self.window) / 4)
        np.add.at(self.delays, np.clip(place, 0, DELAYS - 1).astype(np.int64), 1.0)
        converted = {row.seq for row in rows if row.label}
        for kind, seqs in sorted({"": {row.seq for row in rows}, **touched(connection, rows)}.items()):
            known = kind in self.funnel or len(self.funnel) < KINDS
            told = self.funnel.setdefault(kind if known else FURTHER, [0, 0])
            told[0] += len(seqs)
            told[1] += len(seqs & converted)

    def tentative(self, connection: Connection, target: Target, now: int) -> list[tuple[Metrics, float | None]]:
        """Metrics of each learner over settled rows AND those still open at ``now`` with the label known so far, and the
        share of these rows that is final."""
        open_ = outcomes(target, target.shown(self.window, now, now + 2 * self.window + 1), now)
        both = [Metrics() for _ in self.names]
        for part in with_scores(connection, open_):
            both[part.learner].add(part.score, part.label)
        told = []
        for judged, more in zip(self.judged, both, strict=True):
            final, total = judged.metrics.counts.sum(), judged.metrics.counts.sum() + more.counts.sum()
            told.append((judged.metrics + more, float(final / total) if total else None))
        return told

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The counts, for a checkpoint."""
        found = {"delays": self.delays}
        for number, judged in enumerate(self.judged):
            found[f"{number}.weights"] = judged.weights
            found[f"{number}.known"] = judged.known
            found[f"{number}.counts"] = judged.metrics.counts
            found[f"{number}.scores"] = judged.metrics.scores
            found[f"{number}.loss"] = np.array([judged.metrics.loss])
        return found

    def restore(self, found: Mapping[str, NDArray[np.float64]], funnel: Mapping[str, Any]) -> None:
        """Go on from `arrays` and the funnel."""
        self.delays = found["delays"]
        self.funnel = {kind: list(counts) for kind, counts in funnel.items()}
        for number, judged in enumerate(self.judged):
            judged.weights = found[f"{number}.weights"]
            judged.known = found[f"{number}.known"]
            judged.metrics.counts = found[f"{number}.counts"]
            judged.metrics.scores = found[f"{number}.scores"]
            judged.metrics.loss = float(found[f"{number}.loss"][0])


def _by_hour(hours: dict[int, ledger.Hour], rows: Settled, p: NDArray[np.float64] | None) -> None:
    ones, losses = np.ones(len(rows.at)), log_losses(rows.score, rows.label)
    truth = 0 * ones if p is None else p
    excess = 0 * ones if p is None else divergences(p, rows.score)
    hour, place = np.unique(rows.at // HOUR, return_inverse=True)
    columns = [np.bincount(place, weights) for weights in (ones, rows.label, rows.score, losses, truth, excess)]
    for h, *sums in zip(hour.tolist(), *(column.tolist() for column in columns), strict=True):
        added = ledger.Hour(int(sums[0]), int(sums[1]), *sums[2:])
        hours[h] = hours[h].plus(added) if h in hours else added
