"""The delay from impression to conversion, learned online from conversions as they become known.

A histogram of recent converters is right-truncated: of the newest impressions only the short delays have been seen.
The run-off triangle mends it. Conversions are counted by cohort (when the impression was shown) and bucket j of the
delay; a bucket takes part only where a cohort is old enough for it. Reverse hazards then give the curve:

    rho_j = k_j / C_j,   k_j = conversions in bucket j,  C_j = conversions in buckets 0 .. j,  over cohorts older than the
                         end of bucket j
    F(a)  = P(known by age a | y = 1) = product over buckets j after a of (1 - rho_j),   F(window) = 1

This is the chain ladder, the maximum likelihood estimate of a right-truncated distribution (Lagakos, Barraj, De Gruttola,
Biometrika 1988). A change of conversion rates cannot enter it: each rho_j compares conversions of the same impressions.
Before conversions are seen the prior stands: F0(a) = log(1 + a / t) / log(1 + w / t), t = w / 1000, as PRIOR conversions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from learner.batch import TICK, Batch, Look

COHORTS = 32  # per attribution window
BUCKETS = 14  # ages window / 2^k, and the age of the first look
PRIOR = 5.0  # conversions the prior curve counts for in each bucket
MEMORY = 4.0  # windows after which a cohort counts half


class Delay(NamedTuple):
    """State of the curve. J buckets of age, COHORTS + 1 recent cohorts.

    ``edges`` [J + 1] s: 0 .. window. ``counts`` [COHORTS + 1, J]: conversions of recent cohorts, newest last.
    ``newest`` []: number of the newest cohort, -1 before any. ``old`` [J]: conversions of all older cohorts, decayed.
    """

    edges: Tensor
    counts: Tensor
    newest: Tensor
    old: Tensor


def init(elapsed: float, window: float) -> Delay:
    """The prior. ``elapsed``: age of the first look, s; ``window``: attribution window, s."""
    ages = {0.0, window, *(window / 2**k for k in range(1, BUCKETS))}
    if elapsed < window:
        ages.add(max(float(elapsed), TICK))  # what converts at once is known at the first look, though that be at once
    edges = torch.tensor(sorted(ages), dtype=torch.float64)
    buckets = len(edges) - 1
    zeros = torch.zeros(COHORTS + 1, buckets, dtype=torch.float64)
    return Delay(edges, zeros, torch.tensor(-1, dtype=torch.int64), zeros[0].clone())


def update(state: Delay, outcomes: Batch) -> Delay:
    """Count the conversions among outcomes: of each impression the first one, and the one that is learned again where the
    first was known and taken back before the first look."""
    found = (outcomes.look == Look.CONVERSION) & (outcomes.delay >= 0)
    if not bool(found.any()):
        return state
    width = float(state.edges[-1]) / COHORTS
    cohort = (outcomes.shown[found] / width).floor().to(torch.int64)
    bucket = torch.searchsorted(state.edges, outcomes.delay[found]).sub(1).clamp(0, len(state.edges) - 2)
    state = _advance(state, int(cohort.max()))
    row = cohort - int(state.newest) + COHORTS
    recent = row >= 0
    one = torch.ones(len(row), dtype=torch.float64)
    counts = state.counts.index_put((row[recent], bucket[recent]), one[recent], accumulate=True)
    old = state.old.index_put((bucket[~recent],), one[~recent], accumulate=True)
    return state._replace(counts=counts, old=old)


def _advance(state: Delay, cohort: int) -> Delay:
    """Make room for newer cohorts; those that fall out are complete, and are forgotten slowly."""
    newest = int(state.newest)
    if cohort <= newest:
        return state
    steps = cohort - newest if newest >= 0 else 0
    old = grown_old(state.old, state.counts, steps)
    return state._replace(counts=moved_on(state.counts, steps), newest=torch.tensor(cohort), old=old)


def moved_on(counts: Tensor, steps: int) -> Tensor:
    """Counts by cohort [U, ..], newest last, with nothing in ``steps`` newer ones."""
    return torch.cat([counts[steps:], torch.zeros_like(counts[:steps])])


def grown_old(old: Tensor, counts: Tensor, steps: int) -> Tensor:
    """Counts of older cohorts [..], forgotten by ``steps``, with those of [U, ..] that fall out, forgotten by their age."""
    keep = 2.0 ** (-1.0 / (MEMORY * COHORTS))
    out = counts[:steps]
    age = torch.arange(steps - 1, steps - 1 - len(out), -1, dtype=torch.float64)
    found: Tensor = old * keep**steps + (out * (keep**age).view(-1, *[1] * old.ndim)).sum(0)
    return found


def curve(state: Delay, now: float) -> Tensor:
    """F at the edges, [J + 1], rising from 0 to 1, as known at event time ``now`` (s)."""
    width = float(state.edges[-1]) / COHORTS
    cohorts = torch.arange(COHORTS + 1, dtype=torch.float64) + float(state.newest) - COHORTS
    mature = (cohorts[:, None] + 1) * width + state.edges[None, 1:] <= now  # [COHORTS + 1, J]
    seen = (state.counts.cumsum(1) * mature).sum(0) + state.old.cumsum(0)
    here = (state.counts * mature).sum(0) + state.old
    rho = (here + PRIOR * _prior(state.edges)) / (seen + PRIOR)
    return of_hazards(rho)


def of_hazards(rho: Tensor) -> Tensor:
    """F at the edges, [J + 1], from the reverse hazards of the buckets [J]."""
    survive = (1 - rho).clamp(min=0).flip(0).cumprod(0).flip(0)  # F at the lower edge of each bucket
    return torch.cat([survive.new_zeros(1), survive[1:], survive.new_ones(1)])


def prior(age: Tensor, window: float) -> Tensor:
    """F0(age), before any conversion was seen. Shapes: any -> the same."""
    return (age / (window / 1000)).log1p() / math.log1p(1000)


def _prior(edges: Tensor) -> Tensor:
    known = prior(edges, float(edges[-1]))
    return known.diff() / known[1:]


def survival(state: Delay, age: Tensor, now: float) -> Tensor:
    """S(a) = 1 - F(a), the share of conversions not yet known at ``age`` [B] s; linear within a bucket. [B] float64."""
    known = curve(state, now)
    edges, age = state.edges, age.clamp(min=TICK)
    bucket = torch.searchsorted(edges, age.contiguous(), right=True).sub(1).clamp(0, len(edges) - 2)
    inside = ((age - edges[bucket]) / (edges[bucket + 1] - edges[bucket])).clamp(0, 1)
    return 1 - (known[bucket] + inside * (known[bucket + 1] - known[bucket]))
