"""The auxiliary models by name: how each begins, what it estimates for a loss, how it learns from outcomes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learner import delay, later, posterior, regression, reveals, runoff, weights
from learner.batch import Batch, Look
from learner.contract import Auxiliary
from learner.model import Shape
from learner.regression import Regression


def _survival(state: delay.Delay, batch: Batch) -> dict[str, Tensor]:
    alive = delay.survival(state, batch.elapsed, float(batch.at.max()))
    return {"log_r": weights.clip(alive).log().to(batch.label.dtype)}


def _signals(state: posterior.SignalRatio, batch: Batch) -> dict[str, Tensor]:
    return {"log_r": posterior.log_ratio(state, batch).to(batch.label.dtype)}


def _first_look(state: Regression, batch: Batch) -> dict[str, Tensor]:
    logits = regression.logits(state, batch.rows)
    early, late, never = logits.T
    return {
        "p_dp": logits.softmax(1)[:, 1],
        "p_rn": torch.sigmoid(never - late),
        "p_early": torch.sigmoid(early - late),
    }


def _begin(shape: Shape, elapsed: float, window: float) -> Regression:
    return posterior.init_first_look(shape.buckets)


def _at_deadline(state: Regression, outcomes: Batch) -> Regression:
    return posterior.update_first_look(state, outcomes, Look.AGE)


def _by_itself(
    init: Callable[[Shape, float, float], Any],
    estimate: Callable[[Any, Batch], dict[str, Tensor]],
    update: Callable[[Any, Batch], Any],
) -> Auxiliary:
    """One that does not ask what the model says."""
    return Auxiliary(init, lambda state, batch, f: estimate(state, batch), lambda state, batch, f: update(state, batch))


def _run_off(state: runoff.RunOff, batch: Batch, f: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, age in (("", batch.age), ("_before", batch.age_before)):
        found[f"log_r{name}"] = runoff.log_ratio(state, batch, f, age).to(batch.label.dtype)
        found[f"trust{name}"] = runoff.trust(state, age).to(batch.label.dtype)
    return found


def _later(state: later.Later, batch: Batch, f: Tensor) -> dict[str, Tensor]:
    ratios, ages = later.log_ratios(state, batch), {"log_r": batch.age, "log_r_before": batch.age_before}
    return {name: later.log_ratio(state, ratios, age).to(batch.label.dtype) for name, age in ages.items()}


AUXILIARIES: dict[str, Auxiliary] = {
    "delay": _by_itself(lambda shape, elapsed, window: delay.init(elapsed, window), _survival, delay.update),
    "signals": _by_itself(lambda shape, elapsed, window: posterior.init_signals(), _signals, posterior.update_signals),
    "first_look": _by_itself(_begin, _first_look, posterior.update_first_look),
    "deadline": _by_itself(_begin, _first_look, _at_deadline),
    "reveals": _by_itself(
        lambda shape, elapsed, window: reveals.init(shape.base_rate, elapsed, window), reveals.estimate, reveals.update
    ),
    "run_off": Auxiliary(
        lambda shape, elapsed, window: runoff.init(elapsed, window), _run_off, runoff.update, whole=True
    ),
    "later": Auxiliary(
        lambda shape, elapsed, window: later.init(shape.buckets, elapsed, window), _later, later.update, whole=True
    ),
}
