"""What the evidence by the first look says: the likelihood ratio of signals, and what became of observed negatives.

Both learn from closes only, rows that are settled, as they looked at their first look; or what became of them from an
earlier deadline, with what was known by then.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner import regression
from learner.batch import KINDS, Batch, Look
from learner.regression import Regression

LEVELS = 3  # none, one, several signals of a kind
RECENCY = 3  # no signal, an old one, one within the last eighth of the time to the first look
STATES = LEVELS**KINDS * RECENCY
PRIOR = 3.0  # conversions for which the belief counts that a state says nothing
MEMORY = 2.0**17  # settled rows after which a row counts half


class SignalRatio(NamedTuple):
    """Settled rows not converted by the first look, by state of their signals.

    ``late`` [STATES] float64: those that converted afterwards. ``never`` [STATES] float64: those that did not.
    """

    late: Tensor
    never: Tensor


def init_signals() -> SignalRatio:
    """Nothing settled yet: every ratio is 1."""
    return SignalRatio(torch.zeros(STATES, dtype=torch.float64), torch.zeros(STATES, dtype=torch.float64))


def signal_state(batch: Batch) -> Tensor:
    """Which signals, how many, how long ago, as one number in 0 .. STATES - 1: [B] int64."""
    level = batch.signals.clamp(max=LEVELS - 1).to(torch.int64)
    place = LEVELS ** torch.arange(KINDS)
    recent = torch.where(batch.since < 0, 0, torch.where(batch.since * 8 > batch.elapsed, 1, 2))
    state: Tensor = (level * place).sum(1) + recent * LEVELS**KINDS
    return state


def update_signals(ratio: SignalRatio, outcomes: Batch) -> SignalRatio:
    """Count the settled rows that had not converted by their first look."""
    settled = (outcomes.look == Look.CLOSE) & (outcomes.first_label == 0)
    state, label = signal_state(outcomes)[settled], outcomes.label[settled].to(torch.float64)
    keep = 2.0 ** (-len(state) / MEMORY)
    late = (ratio.late * keep).index_add(0, state, label)
    never = (ratio.never * keep).index_add(0, state, 1 - label)
    return SignalRatio(late, never)


def log_ratio(ratio: SignalRatio, batch: Batch) -> Tensor:
    """log m(s | y = 1, h > e) / m(s | y = 0) of the signals s at the first look: [B] float64.

        ratio(s) = (late(s) + k) / (never(s) n1 / n0 + k),   k = PRIOR, n1 = sum of late, n0 = sum of never

    The denominator is how many late conversions the state would have if it said nothing. k is a Gamma(k, k) prior on the
    ratio: an unseen state says nothing, and a state is believed as far as conversions, not rows, speak for it.
    """
    expected = ratio.never * ratio.late.sum() / ratio.never.sum().clamp(min=1)
    ratios: Tensor = (ratio.late + PRIOR).log() - (expected + PRIOR).log()
    return ratios[signal_state(batch)]


BELIEF = (0.025, 0.025, 0.95)  # immediate positive, delayed positive, real negative, before anything has settled


def init_first_look(buckets: int) -> Regression:
    """Before anything has settled: shares of `BELIEF`."""
    return regression.init(buckets, torch.tensor(BELIEF))


def update_first_look(state: Regression, outcomes: Batch, by: Look = Look.CLOSE) -> Regression:
    """One step on what became of the settled rows, or of the rows at their deadline: looks of kind ``by``."""
    settled = (outcomes.look == by).nonzero().squeeze(1)
    if len(settled) == 0:
        return state
    outcomes = outcomes.take(settled)
    happened = torch.where(outcomes.first_label > 0, 0, torch.where(outcomes.label > 0, 1, 2))
    return regression.update(state, outcomes.rows, happened)
