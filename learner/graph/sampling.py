"""Whom a product hears: neighbourhoods whose size follows its degree and whose members are well connected.

After Virinchi, Saladi: BLADE, WSDM 2023: sizes follow the power law of in-degrees, few neighbours get larger neighbourhoods
that range farther, and members are chosen by their degrees. The paper's exact size is not at hand; these are derived here:

    alpha = 1 + n / sum_u ln(d_u / d_min)        over nodes with d_u >= d_min (Clauset, Shalizi, Newman, SIAM Review 2009)
    k_u   = clip( ceil( k_max ((1 + d_u) / (1 + d_min))^-(alpha - 1) ), k_min, k_max )       the tail of the fitted law
    out-neighbours v of u: p(v) ~ d_in(v)^beta,   in-neighbours: p(v) ~ d_out(v)^beta,   without replacement
    fewer than k_u: alternating walks (out, in, out) for targets, (in, out, in) for sources

Choosing k without replacement is taking the k largest of beta ln d + a Gumbel number (Kool et al., ICML 2019).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph.edges import Edges, between, degrees, kept, turned

STEEPEST = 10.0  # alpha, where all degrees are the smallest


class Sizes(NamedTuple):
    """``least`` k_min, ``most`` k_max, ``least_degree`` d_min, ``beta``; ``fixed``: k_u = k_max for all and no walks."""

    least: int = 5
    most: int = 20
    least_degree: int = 1
    beta: float = 1.0
    fixed: bool = False


def exponent(degree: Tensor, least: int = 1) -> float:
    """alpha of the power law of degrees [N], at most STEEPEST, see above."""
    tail = degree[degree >= least].double()
    total = float((tail / least).log().sum())
    return min(1 + len(tail) / total, STEEPEST) if total > 0 else STEEPEST


def sizes(degree: Tensor, given: Sizes) -> Tensor:
    """k_u of nodes with in-degrees [N]: [N] int64."""
    if given.fixed:
        return torch.full_like(degree, given.most, dtype=torch.int64)
    alpha = exponent(degree, given.least_degree)
    size = given.most * ((1 + degree.double()) / (1 + given.least_degree)) ** (1 - alpha)
    return size.ceil().clamp(given.least, given.most).to(torch.int64)


def choose(edges: Edges, size: Tensor, score: Tensor, chance: torch.Generator) -> Edges:
    """Of the out-edges of each u ``size`` [N] of them, or all, without replacement, p ~ exp(score [E])."""
    uniform = torch.rand(len(score), generator=chance, dtype=torch.float64).clamp(min=1e-300)
    luck = score.double() - (-uniform.log()).log()
    order = torch.argsort(luck, descending=True, stable=True)
    order = order[torch.argsort(edges.source[order], stable=True)]
    place = torch.arange(len(order)) - edges.ptr[edges.source[order]]
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order] = place < size[edges.source[order]]
    return kept(edges, chosen)


def walks(forth: Edges, back: Edges, begin: Tensor, chance: torch.Generator) -> Tensor:
    """Where a walk of three steps, forth, back and forth, from each node [W] ends; -1 where it cannot go on: [W] int64."""
    at = begin
    for along in (forth, back, forth):
        here = at.clamp(min=0)
        count = along.ptr[here + 1] - along.ptr[here]
        step = (torch.rand(len(at), generator=chance, dtype=torch.float64) * count).long()
        place = (along.ptr[here] + step).clamp(max=max(len(along.target) - 1, 0))
        at = torch.where((at >= 0) & (count > 0), along.target[place], -1)
    return at


def filled(chosen: Edges, forth: Edges, back: Edges, size: Tensor, chance: torch.Generator) -> Edges:
    """The chosen edges and, where u has fewer than ``size`` [N], the ends of as many walks as are missing, less u itself.

    A neighbour or an end that is met again counts once more.
    """
    missing = (size - chosen.ptr.diff()).clamp(min=0)
    begin = torch.repeat_interleave(torch.arange(forth.nodes), missing)
    end = walks(forth, back, begin, chance)
    found = (end >= 0) & (end != begin)
    pairs = torch.cat([torch.stack([chosen.source, chosen.target]), torch.stack([begin[found], end[found]])], 1)
    weight = torch.cat([chosen.weight, torch.ones(int(found.sum()))])
    return between(forth.nodes, forth.nodes, pairs, weight)


def neighbourhoods(edges: Edges, given: Sizes, chance: torch.Generator) -> tuple[Edges, Edges]:
    """Whom each product hears of its targets, and of its sources: from u to what it hears, drawn anew at each call."""
    back, (d_out, d_in) = turned(edges), degrees(edges, torch.ones(len(edges.source)))
    size = sizes(d_in, given)
    sides = []
    for forth, other, degree in ((edges, back, d_in), (back, edges, d_out)):
        score = (0.0 if given.fixed else given.beta) * degree[forth.target].clamp(min=1).log()
        chosen = choose(forth, size, score, chance)
        sides.append(chosen if given.fixed else filled(chosen, forth, other, size, chance))
    return sides[0], sides[1]
