"""The fit of a run-off triangle with signals: expectation-maximisation over what is counted, see `runoff`."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from learner import delay

MEMORIES = (math.inf, 1.0, 1 / 7)  # windows after which a cohort counts half
STRENGTH = 200.0  # conversions that a longer memory counts for in the next shorter one
SAME = 10.0  # rows with a signal for which the belief counts that nothing about it has changed
STEPS = 10  # in a fit


class Facts(NamedTuple):
    """What a fit goes by, for the S states that were seen. ``seen`` [U, 1, J]: buckets that are complete."""

    age: Tensor  # [U] of the youngest row of a cohort, s
    seen: Tensor
    known: Tensor  # [U, G, J] conversions
    pending: Tensor  # [U, G, S]
    rows: Tensor  # [U, G] impressions
    late: Tensor  # [J, S] m_b, 0 by the first look
    never: Tensor  # [G, S] m_g
    kinds: Tensor  # [KINDS, S] whether the state has a kind
    used: Tensor  # [S] the states, among all


class Fit(NamedTuple):
    """``shares`` [memories, J]: phi by memory, the longest first. ``rho`` [KINDS]."""

    shares: Tensor
    rho: Tensor


def fit(facts: Facts, start: Fit, belief: Tensor, old: Tensor, first: float, window: float) -> Fit:
    """Some steps from where the last fit ended, for each memory; with q as the delays alone have it.

    Args:
        belief: [J] conversions counted before any. old: [J] of cohorts that are no longer told apart, for the longest.
        first: age of the first look, s. window: s.
    """
    there = (facts.age >= first) & (facts.rows.sum(1) > 0)
    begin = _believed(facts, start.shares[0], belief, old)
    seen = (facts.seen * begin).sum(2)  # F at the age of a cohort
    q = ((facts.known.sum(2) + 0.1) / (facts.rows * seen + 2)).clamp(max=0.999)
    prior, shares, rho = belief + old, [], start.rho
    for memory, phi in zip(MEMORIES, (begin, *start.shares[1:]), strict=True):
        weight = torch.where(there, torch.exp2(-facts.age.clamp(min=0) / (memory * window)), 0.0)
        live = not math.isinf(memory)
        for _ in range(STEPS):
            nothing = moved(facts, rho if live else torch.ones_like(rho))
            phi, q, fake = _step(facts, phi, q, nothing, weight, prior)
            rho = _drift(facts, rho, fake, weight) if live else rho
        shares.append(phi)
        prior = STRENGTH * phi
    return Fit(torch.stack(shares), rho)


def _believed(facts: Facts, phi: Tensor, belief: Tensor, old: Tensor) -> Tensor:
    """phi [J], each reverse hazard as far as cohorts that have completed its bucket speak for it, else as believed.

        h_b = phi_b / sum_(c <= b) phi_c   <-   (C_b h_b + B g_b) / (C_b + B)

    C_b: conversions in buckets 0 .. b of these cohorts, B: what the belief counts for, g: its hazards. A step of EM shares
    out what is to come by phi as it is; where nothing has been completed, nothing else would hold phi to the belief.
    """
    complete = (facts.known.sum(1).cumsum(1) * facts.seen[:, 0]).sum(0) + old.cumsum(0)
    hazard, believed = (of / of.cumsum(0).clamp(min=1e-12) for of in (phi, belief))
    hazard = (complete * hazard + belief.sum() * believed) / (complete + belief.sum())
    return hazard * delay.of_hazards(hazard)[1:]


def moved(facts: Facts, rho: Tensor) -> Tensor:
    """m_g(s) with kinds of signal as frequent as ``rho`` says: [G, S]."""
    moved = facts.never * (rho.log() @ facts.kinds).exp()
    return moved / moved.sum(1, keepdim=True)


def _step(
    facts: Facts, phi: Tensor, q: Tensor, nothing: Tensor, weight: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: (phi [J], q [U, G], expected conversions among the pending [U, G, S])."""
    to_come = torch.where(facts.seen[..., None], 0.0, phi[:, None] * facts.late)  # [U, 1, J, S]
    remaining = to_come.sum(2)
    chance = q[..., None] * remaining
    fake = facts.pending * chance / (chance + (1 - q[..., None]) * nothing).clamp(min=1e-300)
    expected = facts.known + (to_come * (fake / remaining.clamp(min=1e-300))[:, :, None]).sum(3)
    q = (expected.sum(2) / facts.rows.clamp(min=1)).clamp(1e-6, 0.999)
    total = (weight[:, None, None] * expected).sum((0, 1)) + prior
    return total / total.sum(), q, fake


def _drift(facts: Facts, rho: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """rho [KINDS]: one step of iterative scaling (Darroch and Ratcliff, 1972), after which real negatives have each kind of
    signal as often as they were found to.

    States that are mostly buyers say little about the others: a state counts as the square of its share of real negatives.
    """
    real = weight[:, None, None] * (facts.pending - fake)  # [U, G, S]
    there = (weight[:, None, None] * facts.pending).sum((0, 1))
    sure = (real.sum((0, 1)) / there.clamp(min=1e-9)).clamp(0, 1).square()
    found, rows = real.sum((0, 1)), real.sum((0, 2))[:, None]
    scaled = rho.clone()
    for kind in range(len(rho)):
        has = facts.kinds[kind] * sure
        has = has / has.max().clamp(min=1e-9)
        expected = (rows * moved(facts, scaled)).sum(0)
        scaled[kind] *= ((has * found).sum() + SAME) / ((has * expected).sum() + SAME * scaled[kind])
    return scaled
