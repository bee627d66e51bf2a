"""What the evidence by an age says: a run-off triangle of delays in which signals stand for conversions still to come.

Impressions are counted by cohort u (when they were shown), by bin g of the served f, by the state s of their signals at the
first look, and, once they convert, by bucket b of the delay. Unknown are

    phi_b     share of conversions in bucket b of the delay, sum 1
    q_ug      P(y = 1) of cohort u and bin g: free, so a change of conversions cannot enter phi
    rho_k     by how much the odds of a signal of kind k have risen among those who do not convert

known, from what has settled or converted, m_b(s) = P(s | y = 1, bucket b) and m_g(s) = P(s | y = 0, bin g). They maximise

    sum k_ugb log(q_ug phi_b) + n_ugs log( q_ug sum_b phi_b m_b(s) + (1 - q_ug) m'_g(s) )
    m'_g(s) = m_g(s) prod_k rho_k^[k in s], divided by its sum over s

over k conversions and n pending rows, b in the inner sum not yet seen, cohorts forgotten with their age. Without signals
phi is the chain ladder (see `delay`). With them it follows a change of delays at once: carts tell of buyers who have not
bought yet. More carts of those who do not buy would look the same, but for this: more buyers are in proportion to f, the
others' carts are not. So the bins tell the two apart. The longer a memory the more conversions it rests on: each is the
prior of the next shorter one.

The likelihood ratio of the evidence at age a:  r = sum_(b after a) phi_b m_b(s) / m'_g(s),  for all x alike (see `later`)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner import delay, triangle
from learner.batch import KINDS, SETS, TICK, Batch, Look, set_of
from learner.delay import COHORTS
from learner.model import MOVES
from learner.triangle import Facts, Fit

BUCKETS = 13  # ages window / 2^k, and the age of the first look
BINS = (0.5, 0.9, 1.6)  # of f, in multiples of its mean
SETTLED = 2.0**17  # settled rows after which one counts half
START = 5.0  # conversions that the belief before any counts for
ALIKE = 30.0  # conversions for which the belief counts that late ones have the signals of all late ones
UNKNOWN = 3.0  # conversions for which the belief counts that a state of signals says nothing
ENOUGH = 10.0  # settled rows with a state for which the belief counts that buyers and others have it alike
FITS = 64  # per attribution window


class RunOff(NamedTuple):
    """J buckets of age, U = COHORTS + 2 recent cohorts, the newest last, G bins of f. float64.

    ``edges`` [J + 1] s: 0 .. window. ``first`` []: the edge at the first look. ``converted`` [U, G, J, SETS],
    ``pending`` [U, G, SETS]: not converted by the first look. ``old`` [J, SETS]: conversions of older cohorts. ``never``
    [G, SETS]: settled without a conversion. ``newest``, ``fitted`` []: numbers of a cohort and of a fit, -1 before any.
    ``known`` []: conversions that the last fit went by, and what the belief counts for.
    ``mean`` []: of f. ``shares`` [memories, J]: phi. ``rho`` [KINDS]. ``ratios`` [J + 1, G, SETS]: log r at each edge.
    """

    edges: Tensor
    first: Tensor
    converted: Tensor
    pending: Tensor
    old: Tensor
    never: Tensor
    newest: Tensor
    fitted: Tensor
    known: Tensor
    mean: Tensor
    shares: Tensor
    rho: Tensor
    ratios: Tensor


def init(elapsed: float, window: float) -> RunOff:
    """Nothing is known. ``elapsed``: age of the first look, s; ``window``: attribution window, s."""
    elapsed = max(elapsed, TICK)  # what converts at once is known at the first look, though that be at once
    edges = torch.tensor(
        sorted({0.0, elapsed, window, *(window / 2**k for k in range(1, BUCKETS))}), dtype=torch.float64
    )
    buckets, bins, cohorts = len(edges) - 1, len(BINS) + 1, COHORTS + 2
    belief = _belief(edges)
    later = _from(belief).clamp(min=1e-9)
    return RunOff(
        edges,
        torch.searchsorted(edges, torch.tensor(elapsed, dtype=torch.float64)),
        torch.zeros(cohorts, bins, buckets, SETS).double(),
        torch.zeros(cohorts, bins, SETS).double(),
        torch.zeros(buckets, SETS).double(),
        torch.zeros(bins, SETS).double(),
        torch.tensor(-1),
        torch.tensor(-1),
        torch.tensor(START).double(),
        torch.tensor(0.0).double(),
        belief.repeat(len(triangle.MEMORIES), 1),
        torch.ones(KINDS).double(),
        later.log()[:, None, None].repeat(1, bins, SETS),
    )


def bin_of(state: RunOff, f: Tensor) -> Tensor:
    """The bin of each f [B]: [B] int64."""
    return torch.bucketize(f.to(torch.float64), torch.tensor(BINS).double() * state.mean)


def log_ratio(state: RunOff, batch: Batch, f: Tensor, age: Tensor) -> Tensor:
    """log r of "not converted by this age [B] s", with the signals at the first look: [B] float64."""
    return state.ratios[_edge(state, age), bin_of(state, f), set_of(batch.signals > 0)]


def trust(state: RunOff, age: Tensor) -> Tensor:
    """t in 0 .. 1: what the evidence at an age [B] s counts for, by the least t^2 V + (1 - t)^2 M^2. [B] float64.

        t(a) = M^2 / (M^2 + V(a)),   V(a) = (1 - F(a)) / (F(a) n),   M^2 = MOVES^2 (mean delay / window)

    V is the relative variance of a level that is read off what is known by then, with F estimated from n conversions; M^2
    that of what the level moves while a conversion is awaited. t(window) = 1.
    """
    share = curve(state).clamp(1e-3, 1)  # F at the edges
    delay = ((1 - share[1:] + 1 - share[:-1]) / 2 * state.edges.diff()).sum()
    moves = MOVES**2 * delay / state.edges[-1]
    return (moves / (moves + (1 - share) / (share * state.known)))[_edge(state, age)]


def _edge(state: RunOff, age: Tensor) -> Tensor:
    """The last edge that is not above each age [B] s: [B] int64."""
    edge = torch.searchsorted(state.edges, age.to(torch.float64).contiguous() + TICK, right=True) - 1
    return edge.clamp(0, len(state.edges) - 1)


def curve(state: RunOff) -> Tensor:
    """P(known by an edge | y = 1) as it is now, [J + 1], rising from 0 to 1."""
    return torch.cat([state.shares.new_zeros(1), state.shares[-1].cumsum(0)]).clamp(max=1)


def update(state: RunOff, outcomes: Batch, f: Tensor) -> RunOff:
    """Count first looks, conversions and closes, and fit anew when it is time. ``f`` [B]: P(y = 1 | x) of the rows now."""
    first = outcomes.look == Look.FIRST
    if bool(first.any()):
        mean = f[first].to(torch.float64).mean()
        state = state._replace(mean=mean if state.mean == 0 else 0.9 * state.mean + 0.1 * mean)
    state = _advance(state, int((outcomes.shown.max() * COHORTS / state.edges[-1]).floor()))
    state = _count(state, outcomes, bin_of(state, f))
    now = float(outcomes.at.max())
    number = int(now * FITS / float(state.edges[-1]))
    return state if number <= int(state.fitted) else _fit(state._replace(fitted=torch.tensor(number)), now)


def _advance(state: RunOff, cohort: int) -> RunOff:
    """Make room for newer cohorts; what falls out is complete, and is forgotten slowly."""
    newest = int(state.newest)
    if cohort <= newest:
        return state
    steps = cohort - newest if newest >= 0 else 0
    return state._replace(
        old=delay.grown_old(state.old, state.converted.sum(1), steps),
        newest=torch.tensor(cohort),
        converted=delay.moved_on(state.converted, steps),
        pending=delay.moved_on(state.pending, steps),
    )


def _count(state: RunOff, outcomes: Batch, bins: Tensor) -> RunOff:
    """Add rows to the counts of their cohort, bin, bucket and state."""
    row = (outcomes.shown * COHORTS / state.edges[-1]).floor().to(torch.int64) - state.newest + COHORTS + 1
    signals = set_of(outcomes.signals > 0)
    converts = (outcomes.look == Look.CONVERSION) & (outcomes.delay >= 0)
    bucket = torch.searchsorted(state.edges, outcomes.delay.clamp(min=0)).sub(1).clamp(0, len(state.edges) - 2)
    signals = torch.where(converts & (bucket < state.first), 0, signals)  # by the first look it does not matter
    pends = (outcomes.look == Look.FIRST) & (outcomes.label == 0) & (row >= 0)
    closes = (outcomes.look == Look.CLOSE) & (outcomes.label == 0)
    recent, older = converts & (row >= 0), converts & (row < 0)

    def added(counts: Tensor, rows: Tensor, *place: Tensor) -> Tensor:
        return counts.index_put(tuple(p[rows] for p in place), torch.ones(int(rows.sum())).double(), accumulate=True)

    return state._replace(
        converted=added(state.converted, recent, row, bins, bucket, signals),
        pending=added(state.pending, pends, row, bins, signals),
        old=added(state.old, older, bucket, signals),
        never=added(state.never * 2.0 ** (-float(closes.sum()) / SETTLED), closes, bins, signals),
    )


def _facts(state: RunOff, now: float) -> Facts:
    first, window = int(state.first), float(state.edges[-1])
    cohort = torch.arange(COHORTS + 2) + int(state.newest) - COHORTS - 1
    age = now - (cohort + 1) * window / COHORTS
    complete = (torch.searchsorted(state.edges, age, right=True) - 1).clamp(0, len(state.edges) - 1)
    seen = (torch.arange(len(state.edges) - 1) < complete[:, None])[:, None, :]
    used = (state.pending.sum((0, 1)) + state.old.sum(0) + state.never.sum(0) > 0).nonzero().squeeze(1)
    counts = state.converted[..., used]
    known = counts * seen[..., None]
    pending = (state.pending[..., used] - known[:, :, first:].sum(2)).clamp(min=0)
    by_bucket = state.old[:, used] + counts.sum((0, 1))
    settled, late = state.never[:, used], by_bucket[first:].sum(0)
    recent = state.pending[..., used].sum((0, 1)) + 1  # whoever has the state
    of_all = _believed(_shares(settled.sum(0)), recent / recent.sum(), settled.sum(0))
    pool = of_all * (late + UNKNOWN) / (late.sum() * of_all + UNKNOWN)
    pool = pool / pool.sum()
    of_bucket = (by_bucket + ALIKE * pool) / (by_bucket.sum(1, keepdim=True) + ALIKE)
    of_bucket = _believed(of_bucket, of_all, settled.sum(0))  # unless known of those who do not, it says nothing
    of_bucket[:first] = 0
    of_bin = _believed(_shares(settled), of_all, settled)
    rows = state.pending[..., used].sum(2) + known[:, :, :first].sum((2, 3))
    kinds = (used >> torch.arange(KINDS)[:, None] & 1).double()
    return Facts(age, seen, known.sum(3), pending, rows, of_bucket, of_bin, kinds, used)


def _shares(counts: Tensor) -> Tensor:
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)


def _believed(shares: Tensor, elsewhere: Tensor, rows: Tensor) -> Tensor:
    """Shares of states [.., S], each as far as settled ``rows`` [.., S] with it speak for it, else as ``elsewhere``."""
    known = rows / (rows + ENOUGH)
    found = shares * known + elsewhere * (1 - known)
    return found / found.sum(-1, keepdim=True)


def _belief(edges: Tensor) -> Tensor:
    """Shares of conversions by bucket before any was seen: [J]."""
    return delay.prior(edges, float(edges[-1])).diff()


def _fit(state: RunOff, now: float) -> RunOff:
    """Fit the triangle as known at event time ``now``, s, from where the last fit ended."""
    facts = _facts(state, now)
    if not len(facts.used):
        return state
    edges, belief = state.edges, START * _belief(state.edges)
    first, window = float(edges[int(state.first)]), float(edges[-1])
    found = triangle.fit(facts, Fit(state.shares, state.rho), belief, state.old.sum(1), first, window)
    known = START + state.old.sum() + facts.known.sum()
    state = state._replace(shares=found.shares, rho=found.rho, known=known)
    return state._replace(ratios=_ratios(state, facts, triangle.moved(facts, found.rho)))


def _ratios(state: RunOff, facts: Facts, nothing: Tensor) -> Tensor:
    """log r at each edge, [J + 1, G, SETS]; states never seen say no more than the delay does."""
    after = _from(state.shares[-1][:, None] * facts.late).clamp(min=1e-12)
    alive = _from(state.shares[-1]).clamp(min=1e-9)
    ratios = alive.log()[:, None, None].repeat(1, nothing.shape[0], SETS)
    ratios[:, :, facts.used] = after.log()[:, None] - nothing.log()
    return ratios


def _from(shares: Tensor) -> Tensor:
    """Sums from each edge on: [J, ..] -> [J + 1, ..]."""
    return torch.cat([shares, torch.zeros_like(shares[:1])]).flip(0).cumsum(0).flip(0)
