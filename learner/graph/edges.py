"""A directed graph as an immutable snapshot: edges by source and by target at once, and sums along them.

Products have co-purchase edges u -> v, v is bought by those who buy u, and perhaps co-view edges. Both directions of a sum
are products of a CSR matrix, so a gradient costs what a forward pass costs:

    forth:  y_u = sum over (u, v) c_uv x_v        back:  y_v = sum over (u, v) c_uv x_u
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class Edges(NamedTuple):
    """E edges from N sources to N' targets, in the order of (source, target); no pair twice.

    ``ptr`` [N + 1], ``source`` [E], ``target`` [E] int64, ``weight`` [E] float32: edges of source u are ptr[u] ..
    ptr[u + 1]. ``in_ptr`` [N' + 1], ``in_source`` [E], ``in_edge`` [E] int64: the same edges in the order of (target,
    source); ``in_edge`` says at which place of the first order each is. Of products N = N' and there are no loops.
    """

    ptr: Tensor
    source: Tensor
    target: Tensor
    weight: Tensor
    in_ptr: Tensor
    in_source: Tensor
    in_edge: Tensor

    @property
    def nodes(self) -> int:
        return len(self.ptr) - 1


class Graph(NamedTuple):
    """``bought``: co-purchase edges; ``viewed``: co-view edges over the same nodes, or none."""

    bought: Edges
    viewed: Edges | None = None

    @property
    def nodes(self) -> int:
        return self.bought.nodes


def edges(nodes: int, pairs: Tensor, weight: Tensor | None = None) -> Edges:
    """Edges from pairs [2, E'] int64 of (source, target) and their ``weight`` [E'], 1 where none is given.

    Weights of a pair given more than once are added up. ValueError: a loop, an id outside 0 .. nodes - 1, a weight not above
    0 or not finite, shapes that do not fit.
    """
    pairs = pairs.to(torch.int64)
    if pairs.dim() != 2 or pairs.shape[0] != 2:
        raise ValueError(f"edges have shape {list(pairs.shape)}: give sources and targets as [2, E]")
    weight = torch.ones(pairs.shape[1]) if weight is None else weight.to(torch.float32)
    if weight.shape != pairs.shape[1:]:
        raise ValueError(f"{list(weight.shape)} weights for {pairs.shape[1]} edges: give one weight per edge")
    _refuse(nodes, pairs, weight)
    return between(nodes, nodes, pairs, weight)


def between(sources: int, targets: int, pairs: Tensor, weight: Tensor) -> Edges:
    """The same between two kinds of nodes, nothing refused: a sparse matrix [sources, targets]."""
    key, place = torch.unique(pairs[0] * targets + pairs[1], return_inverse=True)
    total = torch.zeros(len(key), dtype=torch.float64).index_add_(0, place, weight.double())
    source, target = key // max(targets, 1), key % max(targets, 1)
    order = torch.argsort(target, stable=True)
    return Edges(starts(sources, source), source, target, total.float(), starts(targets, target), source[order], order)


def graph(nodes: int, bought: Tensor, weight: Tensor | None = None, viewed: Tensor | None = None) -> Graph:
    """A snapshot from co-purchase pairs [2, E] with their ``weight`` [E], and co-view pairs, which count in both directions.

    ValueError: see `edges`.
    """
    if viewed is None:
        return Graph(edges(nodes, bought, weight))
    both = edges(nodes, torch.cat([viewed, viewed.flip(0)], 1))
    return Graph(edges(nodes, bought, weight), both._replace(weight=torch.ones_like(both.weight)))


def kept(given: Edges, mask: Tensor) -> Edges:
    """The edges where ``mask`` [E] is true, over the same nodes."""
    place = mask.cumsum(0) - 1
    order = given.in_edge[mask[given.in_edge]]
    source, target = given.source[mask], given.target[mask]
    ptr, in_ptr = starts(given.nodes, source), starts(len(given.in_ptr) - 1, target)
    return Edges(ptr, source, target, given.weight[mask], in_ptr, given.source[order], place[order])


def turned(given: Edges) -> Edges:
    """The same edges from target to source."""
    other = torch.empty_like(given.in_edge).index_copy_(0, given.in_edge, torch.arange(len(given.in_edge)))
    ends = given.target[given.in_edge], given.in_source, given.weight[given.in_edge]
    return Edges(given.in_ptr, *ends, given.ptr, given.target, other)


def degrees(given: Edges, mass: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums of ``mass`` [E], the weights where none is given, over out-edges and over in-edges: 2 of [N] float32."""
    mass = given.weight if mass is None else mass
    ends = ((given.source, given.ptr), (given.target, given.in_ptr))
    out, into = (mass.new_zeros(len(ptr) - 1).double().index_add_(0, end, mass.double()) for end, ptr in ends)
    return out.float(), into.float()


def reversed_edges(given: Edges) -> Tensor:
    """For each edge (u, v) the place of (v, u), or -1 where there is none, so that u -> v is one-way: [E] int64."""
    key, back = (a * given.nodes + b for a, b in ((given.source, given.target), (given.target, given.source)))
    place = torch.searchsorted(key, back).clamp(max=max(len(key) - 1, 0))
    return torch.where(key[place] == back, place, -1)


def out_edges(given: Edges, u: Tensor) -> tuple[Tensor, Tensor]:
    """Out-edges of sources u [B]: the row in u of each, and its place among the edges; in rising order of rows."""
    counts = given.ptr[u + 1] - given.ptr[u]
    row = torch.repeat_interleave(torch.arange(len(u)), counts)
    return row, torch.arange(len(row)) + (given.ptr[u] - (counts.cumsum(0) - counts))[row]


def linked(given: Edges, u: Tensor, v: Tensor) -> Tensor:
    """Whether u -> v is an edge, of pairs of any one shape: bool."""
    key, asked = given.source * given.nodes + given.target, u * given.nodes + v
    if not len(key):
        return torch.zeros(asked.shape, dtype=torch.bool)
    return key[torch.searchsorted(key, asked).clamp(max=len(key) - 1)] == asked


def propagate(given: Edges, coefficients: Tensor, values: Tensor, back: bool = False) -> Tensor:
    """Sums along the edges, forth or back: coefficients [E], values [N, D] -> [N, D], differentiable in values."""
    result: Tensor = _Sum.apply(values, coefficients, given, back)  # type: ignore[no-untyped-call]
    return result


class _Sum(torch.autograd.Function):
    """One product with a CSR matrix; its gradient is the product with the transpose."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, coefficients: Tensor, given: Edges, back: bool) -> Tensor:
        ctx.given, ctx.back = given, back
        ctx.save_for_backward(coefficients)
        return _product(given, coefficients, values, back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (coefficients,) = ctx.saved_tensors
        return _product(ctx.given, coefficients, gradients[0], not ctx.back), None, None, None


def _product(given: Edges, coefficients: Tensor, values: Tensor, back: bool) -> Tensor:
    """Rows of ``values`` times coefficients, summed by node."""
    ptr, other = (given.in_ptr, given.in_source) if back else (given.ptr, given.target)
    if back:
        coefficients = coefficients[given.in_edge]
    return embedding_bag(
        other, values.contiguous(), ptr, mode="sum", per_sample_weights=coefficients, include_last_offset=True
    )


def starts(nodes: int, ends: Tensor) -> Tensor:
    """Where the edges of each node begin, of edges in the order of this end: [nodes + 1]."""
    counts = torch.bincount(ends, minlength=nodes).cumsum(0)
    return torch.cat([counts.new_zeros(1), counts])


def _refuse(nodes: int, pairs: Tensor, weight: Tensor) -> None:
    outside = (pairs < 0) | (pairs >= nodes)
    if bool(outside.any()):
        raise ValueError(f"node {int(pairs[outside][0])} is not one of 0 .. {nodes - 1}: number the nodes from 0")
    loops = pairs[0] == pairs[1]
    if bool(loops.any()):
        raise ValueError(f"node {int(pairs[0][loops][0])} has an edge to itself: leave it out")
    wrong = ~(weight.isfinite() & (weight > 0))
    if bool(wrong.any()):
        raise ValueError(f"weight {float(weight[wrong][0])} of an edge is not above 0: leave the edge out")
