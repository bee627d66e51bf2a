"""Who converts later than others: the share of conversions after an age, by x.

The run-off triangle (see `runoff`) has one delay for all. Where it depends on x, "nothing yet" says less of one who takes
days than of one who buys at once, so the likelihood ratio of the evidence at age a has one more factor,

    S_x(a) / S(a),   S_x(a) = P(delay > a | y = 1, x),   S(a) = sum f S_x(a) / sum f  over the impressions of late

S_x is a softmax regression of the look between whose ages a conversion falls, over settled conversions alone: those that
have just arrived are the quick ones. S is its mean over those who convert among today's impressions, so that the level is
the triangle's, which knows of a change of delays at once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner import delay, regression, schedules
from learner.batch import TICK, Batch, Look
from learner.regression import Regression
from learner.weights import clip

RATE = 0.05  # of Adagrad: conversions are few, and what is wrongly believed of one x is paid by its level
LATELY = 0.95  # of earlier batches, in the mean over impressions


class Later(NamedTuple):
    """K ages of looks, the last of them the window. ``ages`` [K] float64, s. ``table`` to ``bias_squares``: see
    `Regression`. ``survives`` [K] float64, ``chance`` []: sums of f S_x and f over the impressions of late."""

    ages: Tensor
    table: Tensor
    squares: Tensor
    bias: Tensor
    bias_squares: Tensor
    survives: Tensor
    chance: Tensor


def init(buckets: int, elapsed: float, window: float) -> Later:
    """Nothing has settled: all x alike."""
    ages = torch.tensor([max(elapsed, TICK), *schedules.ages(elapsed, window).ages], dtype=torch.float64)
    shares = delay.prior(torch.cat([torch.zeros(1).double(), ages]), window).diff()
    return Later(ages, *regression.init(buckets, shares), torch.zeros_like(ages), torch.tensor(0.0).double())


def survival(state: Later, batch: Batch) -> Tensor:
    """S_x at the ages of looks: [B, K] float64."""
    return 1 - regression.logits(_model(state), batch.rows).softmax(1).double().cumsum(1)


def log_ratios(state: Later, batch: Batch) -> Tensor:
    """log S_x(a) / S(a) at the ages of looks: [B, K] float64."""
    return (clip(survival(state, batch)) / clip(state.survives / state.chance.clamp(min=1e-12))).log()


def log_ratio(state: Later, ratios: Tensor, age: Tensor) -> Tensor:
    """That of `log_ratios` [B, K] at the last look by each age [B] s; 0 before the first and at the close."""
    look = torch.searchsorted(state.ages, age.to(torch.float64).contiguous() + TICK, right=True) - 1
    there = (look >= 0) & (look < len(state.ages) - 1) & (state.chance > 0)
    return torch.where(there, ratios.gather(1, look.clamp(min=0)[:, None]).squeeze(1), 0.0)


def update(state: Later, outcomes: Batch, f: Tensor) -> Later:
    """Learn from conversions that have settled, and weigh first looks by what is served for them, ``f`` [B]."""
    settled = ((outcomes.look == Look.CLOSE) & (outcomes.label > 0) & (outcomes.delay >= 0)).nonzero().squeeze(1)
    if len(settled):
        known = outcomes.take(settled)
        happened = torch.searchsorted(state.ages + TICK, known.delay).clamp(max=len(state.ages) - 1)
        state = state._replace(**regression.update(_model(state), known.rows, happened, RATE)._asdict())
    first = (outcomes.look == Look.FIRST).nonzero().squeeze(1)
    if len(first):
        chance = f[first].double()
        state = state._replace(
            survives=LATELY * state.survives + chance @ survival(state, outcomes.take(first)),
            chance=LATELY * state.chance + chance.sum(),
        )
    return state


def _model(state: Later) -> Regression:
    return Regression(state.table, state.squares, state.bias, state.bias_squares)
