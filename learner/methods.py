"""The methods, side by side: each is a schedule, a loss, what it serves, and the auxiliary models it needs, as one value.

A loss is right only for the schedule it was derived for, so the two cannot be taken apart. To add a method: its weight
in `weights.py` (or its loss in `losses.py`), a row here, a paragraph in docs/methods.md; the contract test finds it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from learner import delay, posterior, weights
from learner.batch import Batch
from learner.losses import log_loss
from learner.model import Shape


class Looks(NamedTuple):
    """When a method looks at an impression; times in seconds. `stream` turns it into the label store's schedule.

    ``hindsight``: with the final label, which only a backtest can know.
    """

    first: float
    conversion: bool = False
    hindsight: bool = False


class Outputs(NamedTuple):
    """What a loss may use: the head, and the auxiliaries' estimates. All [B]; only ``logit`` carries a gradient.

    ``log_r``: log P(s, h > e | x, y = 1) / P(s | x, y = 0). ``p_dp``: P(y = 1, h > e | x). ``p_rn``: P(y = 0 | x, s, not
    converted by e). What no auxiliary estimates is NaN, so a method that uses it by mistake is seen at once.
    """

    logit: Tensor
    log_r: Tensor
    p_dp: Tensor
    p_rn: Tensor

    @property
    def f(self) -> Tensor:
        """P(y = 1 | x) as served now, constant to the gradient."""
        return torch.sigmoid(self.logit.detach())


class Auxiliary(NamedTuple):
    """A model beside the model, as three functions. Its state is a NamedTuple of tensors, saved with the weights.

    ``init(shape, elapsed, window)`` -> state; ``estimate(state, batch)`` -> named estimates [B], where those called
    ``log_r`` add up; ``update(state, outcomes)`` -> state. It sees only outcomes that have arrived.
    """

    init: Callable[[Shape, float, float], Any]
    estimate: Callable[[Any, Batch], dict[str, Tensor]]
    update: Callable[[Any, Batch], Any]


class DelayedFeedback(NamedTuple):
    """A way of learning from labels that arrive late.

    ``looks(elapsed, window)``: when to look. ``loss(outputs, batch)`` -> loss [B], importance weight [B], estimates that
    the weights are made of [B, ...] for the count of clipped ones. ``optimum(p, p_dp)``: where the probability ends up.
    """

    looks: Callable[[float, float], Looks]
    loss: Callable[[Outputs, Batch], tuple[Tensor, Tensor, Tensor]]
    auxiliaries: tuple[str, ...] = ()
    optimum: Callable[[float, float], float] = lambda p, p_dp: p
    weighs: bool = True


def now(elapsed: float, window: float) -> Looks:
    """Label 0 at the impression, label 1 again at the conversion."""
    return Looks(0.0, conversion=True)


def once(elapsed: float, window: float) -> Looks:
    """Once, at the elapsed time, with what is known then."""
    return Looks(elapsed)


def wait(elapsed: float, window: float) -> Looks:
    """Once at the elapsed time with what is known then, and again on a later conversion."""
    return Looks(elapsed, conversion=True)


def settled(elapsed: float, window: float) -> Looks:
    """Once, at the end of the attribution window."""
    return Looks(window)


def at_once(elapsed: float, window: float) -> Looks:
    """At the impression, with its final label: the future is known."""
    return Looks(0.0, hindsight=True)


def _unweighted(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return log_loss(outputs.logit, batch.label), torch.ones_like(batch.label), outputs.f


def _fnw(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    weight = weights.fnw(outputs.f, batch.label)
    return weight * log_loss(outputs.logit, batch.label), weight, outputs.f


def _es_dfm(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    weight = weights.es_dfm(outputs.p_dp, outputs.p_rn, batch.label)
    return weight * log_loss(outputs.logit, batch.label), weight, torch.stack([outputs.p_dp, outputs.p_rn], 1)


def _joint_ratio(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    p_rn = weights.real_negative(outputs.f, outputs.log_r)
    weight = weights.joint_ratio(p_rn, batch.label)
    return weight * log_loss(outputs.logit, batch.label), weight, p_rn


def _survival(state: delay.Delay, batch: Batch) -> dict[str, Tensor]:
    alive = delay.survival(state, batch.elapsed, float(batch.at.max()))
    return {"log_r": weights.clip(alive).log().to(batch.label.dtype)}


def _signals(state: posterior.SignalRatio, batch: Batch) -> dict[str, Tensor]:
    return {"log_r": posterior.log_ratio(state, batch).to(batch.label.dtype)}


def _first_look(state: posterior.FirstLook, batch: Batch) -> dict[str, Tensor]:
    _, late, never = posterior.first_look(state, batch.rows).T
    return {"p_dp": late, "p_rn": never / (late + never)}


AUXILIARIES: dict[str, Auxiliary] = {
    "delay": Auxiliary(lambda shape, elapsed, window: delay.init(elapsed, window), _survival, delay.update),
    "signals": Auxiliary(lambda shape, elapsed, window: posterior.init_signals(), _signals, posterior.update_signals),
    "first_look": Auxiliary(
        lambda shape, elapsed, window: posterior.init_first_look(shape.buckets),
        _first_look,
        posterior.update_first_look,
    ),
}

METHODS: dict[str, DelayedFeedback] = {
    "oracle": DelayedFeedback(at_once, _unweighted, weighs=False),
    "settled": DelayedFeedback(settled, _unweighted, weighs=False),
    "vanilla": DelayedFeedback(once, _unweighted, optimum=lambda p, p_dp: p - p_dp, weighs=False),
    "fnw": DelayedFeedback(now, _fnw),
    "esdfm": DelayedFeedback(wait, _es_dfm, ("first_look",)),
    "pq": DelayedFeedback(wait, _joint_ratio, ("delay",)),
    "pq_signals": DelayedFeedback(wait, _joint_ratio, ("delay", "signals")),
}
DEFAULT = "pq_signals"
ORACLES = tuple(name for name, method in METHODS.items() if method.looks(1.0, 2.0).hindsight)
"""Methods that know final labels beforehand, for comparison in backtests."""
LIVE = tuple(name for name in METHODS if name not in ORACLES)
"""Methods that a running system can use."""
