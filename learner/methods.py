"""The methods, side by side: each is a schedule, a loss, what it serves, and the auxiliary models it needs, as one value.

A loss is right only for the schedule it was derived for, so the two cannot be taken apart. To add a method: its loss in
`objectives.py` (its weight in `weights.py`), a row here, a section in docs/methods.md; the contract test finds it.
"""

import torch
from torch import Tensor

from learner import delay, objectives, schedules
from learner.contract import DelayedFeedback


def _odds(logit: Tensor) -> Tensor:
    """b / (1 - b) = exp(logit), where b is held at 1/2."""
    return logit.clamp(max=0).exp()


def _both(inside: Tensor, outside: Tensor) -> Tensor:
    """F_in + F_out, at most 1."""
    return (torch.sigmoid(inside) + torch.sigmoid(outside)).clamp(max=1)


def _split(base_rate: float, elapsed: float, window: float) -> tuple[float, float]:
    """The base rate, parted by the prior of the delay; neither part takes more than 95 %."""
    early = min(max(float(delay.prior(torch.tensor(elapsed).double(), window)), 0.05), 0.95)
    return base_rate * early, base_rate * (1 - early)


TENTH = 10 / 11  # sigmoid of log 10: conversions come after a tenth of the window, on average

METHODS: dict[str, DelayedFeedback] = {
    "oracle": DelayedFeedback(schedules.at_once, objectives.unweighted, weighs=False),
    "settled": DelayedFeedback(schedules.settled, objectives.unweighted, weighs=False),
    "vanilla": DelayedFeedback(schedules.once, objectives.unweighted, optimum=lambda p, p_dp: p - p_dp, weighs=False),
    "naive": DelayedFeedback(schedules.now, objectives.twice, optimum=lambda p, p_dp: p / (1 + p), weighs=False),
    "pu": DelayedFeedback(schedules.now, objectives.pu, weighs=False),
    "fnw": DelayedFeedback(schedules.now, objectives.fnw),
    "fnc": DelayedFeedback(
        schedules.now,
        objectives.twice,
        weighs=False,
        serve=_odds,
        starts=lambda base_rate, elapsed, window: (base_rate / (1 + base_rate),),
    ),
    "dfm": DelayedFeedback(
        schedules.closed,
        objectives.dfm,
        heads=2,
        serve=lambda logit, log_rate: torch.sigmoid(logit),
        starts=lambda base_rate, elapsed, window: (base_rate, TENTH),
    ),
    "fsiw": DelayedFeedback(schedules.counterfactual, objectives.fsiw, ("deadline",)),
    "esdfm": DelayedFeedback(schedules.wait, objectives.es_dfm, ("first_look",)),
    "defer": DelayedFeedback(schedules.confirmed, objectives.defer, ("first_look",)),
    "defuse": DelayedFeedback(schedules.wait, objectives.defuse, ("first_look",)),
    "bidefuse": DelayedFeedback(
        schedules.wait, objectives.bi_defuse, ("first_look",), heads=2, serve=_both, starts=_split, inherits=2
    ),
    "ulc": DelayedFeedback(schedules.counterfactual, objectives.ulc, ("deadline",)),
    "gdfm": DelayedFeedback(schedules.reveals, objectives.gdfm, ("reveals",)),
    "pq": DelayedFeedback(schedules.wait, objectives.joint_ratio, ("delay",)),
    "pq_signals": DelayedFeedback(schedules.wait, objectives.joint_ratio, ("delay", "signals")),
    "hybrid": DelayedFeedback(schedules.ages, objectives.hybrid, ("run_off", "later"), wanders=True),
}
