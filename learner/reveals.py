"""What the state of an impression at a reveal time says of its label, and what a reveal time is worth (GDFM).

The state a_j at reveal time delta_j: whether a conversion is known, and which kinds of signals are. Who has converted is
certain; of all others the tables say how often settled rows with each final label were in that state:

    r_j(s)   = P(s, not converted by delta_j | y = 1) / P(s, not converted by delta_j | y = 0)
             = S_j (late(s) + k) / (expected(s) + k),   k = PRIOR, S_j = share of conversions later than delta_j
    weight_j = exp(-2 H_j / max H) exp(-delta_j / max delta),   H_j = sum over states a of P(a) H(y | a)

The weight is one number per reveal time: one per state would move the optimum.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner import delay
from learner.batch import SETS, TICK, Batch, Look, set_of
from learner.posterior import MEMORY, PRIOR
from learner.schedules import reveal_ages
from learner.weights import EPS

BELIEF = 60.0  # rows the start counts for


class Reveals(NamedTuple):
    """Settled rows by state at J reveal times.

    ``ages`` [J] s. ``late``, ``never`` [J, SETS] float64: rows without a conversion by then, that converted afterwards,
    and the others. ``total`` [2] float64: all settled rows by label.
    """

    ages: Tensor
    late: Tensor
    never: Tensor
    total: Tensor


def init(base_rate: float, elapsed: float, window: float) -> Reveals:
    """Before anything has settled: the base rate and the prior of the delay; signals say nothing."""
    ages = torch.tensor([elapsed, *reveal_ages(elapsed, window)], dtype=torch.float64)
    late, never = (torch.zeros(len(ages), SETS, dtype=torch.float64) for _ in range(2))
    late[:, 0] = BELIEF * base_rate * (1 - delay.prior(ages, window))
    never[:, 0] = BELIEF * (1 - base_rate)
    return Reveals(ages, late, never, torch.tensor([1 - base_rate, base_rate], dtype=torch.float64) * BELIEF)


def update(state: Reveals, outcomes: Batch) -> Reveals:
    """Count the settled rows, at every reveal time as they were then."""
    closed = (outcomes.look == Look.CLOSE).nonzero().squeeze(1)
    if len(closed) == 0:
        return state
    rows, keep = outcomes.take(closed), 2.0 ** (-len(closed) / MEMORY)
    label = rows.label.to(torch.float64)
    late, never = state.late * keep, state.never * keep
    for j, age in enumerate(state.ages.tolist()):
        pending = (rows.delay < 0) | (rows.delay > age)
        seen = set_of((rows.signalled >= 0) & (rows.signalled <= age))
        late[j].index_add_(0, seen, label * pending)
        never[j].index_add_(0, seen, (1 - label) * pending)
    return Reveals(state.ages, late, never, state.total * keep + torch.stack([(1 - label).sum(), label.sum()]))


def estimate(state: Reveals, batch: Batch) -> dict[str, Tensor]:
    """``log_r`` [B] of the state at the age of each look, and ``reveal`` [B], its weight."""
    reveal = torch.searchsorted(state.ages - TICK, batch.age.contiguous(), right=True).sub(1).clamp(min=0)
    share = (state.late.sum(1) / state.total[1]).clamp(EPS, 1)
    expected = state.never * (state.late.sum(1) / state.total[0])[:, None]
    log_r = share.log()[:, None] + (state.late + PRIOR).log() - (expected + PRIOR).log()
    found = log_r[reveal, set_of(batch.signals_now > 0)]
    return {"log_r": found.to(batch.label.dtype), "reveal": weights(state)[reveal].to(batch.label.dtype)}


def weights(state: Reveals) -> Tensor:
    """One for each reveal time: [J] float64."""
    rows = state.late + state.never
    chance = state.late / rows.clamp(min=1e-12)
    uncertain = (rows * torch.special.entr(torch.stack([chance, 1 - chance])).sum(0)).sum(1) / state.total.sum()
    return torch.exp(-2 * uncertain / uncertain.max().clamp(min=1e-12) - state.ages / state.ages.max())
