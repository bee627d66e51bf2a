"""Metrics from counts against exact definitions and against river."""

import math

import numpy as np
import pytest
from river import metrics as river
from river import stats

from learner.metrics import Metrics, divergences


def sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels drawn with a slightly different probability."""
    generator = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-generator.normal(-2.5, 1.5, rows)))
    return score, (generator.random(rows) < score**0.9).astype(np.int64)


def counted(score: np.ndarray, label: np.ndarray) -> Metrics:
    found = Metrics()
    found.add(score, label)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_auc_and_pr_auc_are_those_of_the_sorted_rows(seed: int) -> None:
    """AUC is the share of ordered pairs, PR-AUC the average precision, to the width of a step."""
    score, label = sample(2000, seed)
    told = counted(score, label).summary()
    positive, negative = score[label == 1], score[label == 0]
    pairs = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    assert told["auc"] == pytest.approx(pairs.mean(), abs=2e-4)
    order = np.argsort(-score)
    precision = label[order].cumsum() / np.arange(1, len(label) + 1)
    assert told["pr_auc"] == pytest.approx((precision * label[order]).sum() / label.sum(), abs=2e-3)


def test_log_loss_and_auc_are_rivers() -> None:
    """The figures are those of river's metrics on the same rows."""
    score, label = sample(3000, 7)
    told = counted(score, label).summary()
    loss, auc, mean = river.LogLoss(), river.ROCAUC(n_thresholds=2000), stats.Mean()
    for p, y in zip(score.tolist(), label.tolist(), strict=True):
        loss.update(bool(y), {True: p, False: 1 - p})
        auc.update(bool(y), {True: p, False: 1 - p})
        mean.update(p)
    assert told["log_loss"] == pytest.approx(loss.get(), rel=1e-9)
    assert told["auc"] == pytest.approx(auc.get(), abs=2e-3)
    assert told["pcoc"] == pytest.approx(mean.get() / label.mean(), rel=1e-9)


def test_normalised_entropy_of_the_base_rate_is_one() -> None:
    """Whoever says the base rate for every row has NE 1, PCOC 1, ECE 0 and AUC one half."""
    label = np.array([1] * 30 + [0] * 970)
    told = counted(np.full(1000, 0.03), label).summary()
    assert told["ne"] == pytest.approx(1.0)
    assert told["pcoc"] == pytest.approx(1.0)
    assert told["ece"] == pytest.approx(0.0, abs=1e-12)
    assert told["auc"] == 0.5


def test_ece_of_a_shifted_score_is_the_shift() -> None:
    """Scores that are all 0.1 too high have an expected calibration error of 0.1."""
    label = np.tile([1, 0, 0, 0], 250)
    assert counted(np.full(1000, 0.35), label).summary()["ece"] == pytest.approx(0.1)


def test_halves_add_up() -> None:
    """Metrics of two parts, added, are the metrics of the whole."""
    score, label = sample(1000, 1)
    both = (counted(score[:300], label[:300]) + counted(score[300:], label[300:])).summary()
    whole = counted(score, label).summary()
    assert both == pytest.approx(whole)


def test_undefined_figures_are_none() -> None:
    """Without rows, or without positives, what is not defined is None, and nothing fails."""
    assert set(Metrics().summary().values()) == {0, None}
    told = counted(np.array([0.2, 0.3]), np.array([0, 0])).summary()
    assert (told["auc"], told["pr_auc"], told["ne"], told["pcoc"]) == (None, None, None, None)
    assert told["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)


def test_a_truth_of_zero_or_one_is_far_from_the_other_and_not_from_itself() -> None:
    p = np.array([0.0, 1.0, 0.0, 1.0, 0.3])
    near, far = divergences(p, p), divergences(p, np.array([0.5, 0.5, 1.0, 0.0, 0.3]))
    assert np.allclose(near, 0, atol=1e-12)
    assert np.allclose(far[:2], math.log(2), atol=1e-4)
    assert bool((far[2:4] > 10).all())


def test_scores_of_zero_and_one_stay_finite() -> None:
    """A score of exactly 0 or 1 costs a finite loss."""
    told = counted(np.array([0.0, 1.0]), np.array([1, 0]))
    assert np.isfinite(told.loss)
