"""DAEMON: two places for every product from its features and its neighbours, by one network for both.

Virinchi, Saladi, Mondal: Recommending Related Products Using Graph Neural Networks in Directed Graphs, ECML-PKDD 2022. With
co-purchase edges cp, co-view edges cv, h^s = h^t = X at first, and one W of each layer for all four sums:

    h_u^s <- relu( sum_(u,v) in cp h_v^t W ) + relu( sum_(u,v) in cv h_v^s W )
    h_u^t <- relu( sum_(v,u) in cp h_v^s W ) + relu( sum_(v,u) in cv h_v^t W )      both of unit length after every layer

Loss over edges, x_uv = h_u^s . h_v^t of the last layer, P(x) = log sigma((x - a) / tau), N(x) = log sigma((b - x) / tau):

    - sum_cp [ P(x_uv) + sum_z N(x_uz) ] - sum_(cp, one-way) [ P(x_uv) + N(x_vu) ]
    - sum_cv [ P(h_u^s . h_v^s) + P(h_u^t . h_v^t) ]

The paper has a = 0, b = 1, tau = 1, L = 3: `PAPER`. Lengths are 1 and the last relu keeps x in 0 .. 1, so no logit can be
large, and three layers make all products alike: it finds next to nothing. `Settings` are ours: a = b = 1/2, tau = 0.15,
L = 2, features less their mean, no relu on the last layer, means for sums, so that the larger of two neighbourhoods
does not decide alone. The edges of a step are taken out of the graph before sums are made.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from learner.graph.edges import Edges, Graph, degrees, kept, propagate, reversed_edges, turned
from learner.graph.embeddings import Embeddings, unbiased
from learner.graph.features import Features, project, width


class Settings(NamedTuple):
    """``layers`` L, ``width`` d, ``tau``, ``for_edge`` a, ``against`` b of the loss; ``last_relu``, ``centred``, ``means``:
    see above; ``negatives``: items z of an edge; ``edges``: of a step, at most a third of all, and more where an epoch would
    have more than ``steps``; ``rate``: of Adam; ``draws``: of neighbourhoods, of which places are the mean in the end."""

    layers: int = 2
    width: int = 64
    tau: float = 0.15
    for_edge: float = 0.5
    against: float = 0.5
    last_relu: bool = False
    centred: bool = True
    means: bool = True
    negatives: int = 4
    edges: int = 4096
    epochs: int = 30
    rate: float = 0.01
    draws: int = 1
    steps: int = 32


PAPER = Settings(3, 64, 1.0, 0.0, 1.0, True, False, False, 4, 1024, 30, 1e-4, steps=2**31)
"""As published; the number of negatives is not given there, and the paper draws neighbours where all are heard here."""


class Messages(NamedTuple):
    """Whom each product hears: ``out`` its targets and ``into`` its sources among co-purchases, ``seen`` its co-views or
    none. Weights are what each counts for."""

    out: Edges
    into: Edges
    seen: Edges | None


Neighbourhoods = Callable[[Edges, torch.Generator], tuple[Edges, Edges]]
"""From the co-purchase edges that may be used, whom each product hears of its targets and of its sources."""


def everyone(edges: Edges, chance: torch.Generator) -> tuple[Edges, Edges]:
    """Each product hears all neighbours."""
    return edges, turned(edges)


def train(
    graph: Graph,
    features: Features | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
    hear: Neighbourhoods = everyone,
) -> Embeddings:
    """Embeddings of the products of a graph; the same bytes for the same graph, features, settings and seed.

    ``progress`` is told each epoch and its mean loss. ValueError: without features or edges there is nothing to start from.
    """
    settings, bought = settings or Settings(), graph.bought
    if features is None or not len(bought.source):
        raise ValueError("DAEMON sees products by their features and edges, and one of them is missing: train `dual`")
    chance = torch.Generator().manual_seed(seed)
    tables = _tables(width(features), settings, chance)
    optimiser = torch.optim.Adam(tables, lr=settings.rate)
    one_way, size = reversed_edges(bought) < 0, edges_of(len(bought.source), settings)
    for epoch in range(settings.epochs):
        losses = []
        for taken in torch.split(torch.randperm(len(bought.source), generator=chance), size):
            left = torch.ones(len(bought.source), dtype=torch.bool).index_fill_(0, taken, False)
            viewed = _drawn(graph.viewed, settings.edges, chance)
            messages = _messages(kept(bought, left), _without(graph.viewed, viewed), hear, chance)
            source, target = network(tables, features, messages, settings)
            loss = loss_of(source, target, bought, taken, one_way, settings, chance)
            if graph.viewed is not None and viewed is not None:
                loss = loss + _alike(source, target, graph.viewed, viewed, settings)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
        if progress:
            progress(epoch, sum(losses) / len(losses))
    with torch.no_grad():
        drawn = [
            network(tables, features, _messages(bought, graph.viewed, hear, chance), settings)
            for _ in range(settings.draws)
        ]
    source, target = (normalize(torch.stack(side).mean(0)) for side in zip(*drawn, strict=True))
    return served(source, target, settings)


def edges_of(count: int, settings: Settings) -> int:
    """Edges of a step, of so many. Each step goes over the whole graph, so the number of steps of an epoch is bounded: else
    its cost would be quadratic.

    >>> [edges_of(count, Settings(edges=4096, steps=32)) for count in (300, 107_746, 5_000_000)]
    [100, 4096, 156250]
    """
    return max(min(settings.edges, math.ceil(count / 3)), math.ceil(count / settings.steps))


def _tables(words: int, settings: Settings, chance: torch.Generator) -> list[Tensor]:
    """W of each layer, as it begins: rows of features have unit length, later ones `width` numbers."""
    fans = [words] + [settings.width] * (settings.layers - 1)
    drawn = [torch.randn(fan, settings.width, generator=chance) for fan in fans]
    return [(w if not layer else w * settings.width**-0.5).requires_grad_() for layer, w in enumerate(drawn)]


def served(source: Tensor, target: Tensor, settings: Settings) -> Embeddings:
    """Embeddings whose rel is the logit (x - (a + b) / 2) / tau; without neighbours a product has no place."""
    plain = unbiased(source / settings.tau, target)
    level = (settings.for_edge + settings.against) / 2 / settings.tau
    return plain._replace(source_bias=torch.full_like(plain.source_bias, -level))


def network(tables: list[Tensor], x: Features, messages: Messages, settings: Settings) -> tuple[Tensor, Tensor]:
    """Places of all products [N, d] as sources and as targets, each of unit length or zero."""
    source = target = None
    for layer, table in enumerate(tables):
        if source is None or target is None:
            from_source = project(x, table)
            if settings.centred:
                from_source = from_source - from_source.mean(0)
            from_target = from_source
        else:
            from_source, from_target = source @ table, target @ table
        bent = settings.last_relu or layer + 1 < len(tables)
        source = _sum(messages.out, from_target, settings.means, bent)
        target = _sum(messages.into, from_source, settings.means, bent)
        if messages.seen is not None:
            source = source + _sum(messages.seen, from_source, settings.means, bent)
            target = target + _sum(messages.seen, from_target, settings.means, bent)
        source, target = normalize(source), normalize(target)
    assert source is not None
    assert target is not None
    return source, target


def _sum(edges: Edges, values: Tensor, mean: bool, bent: bool) -> Tensor:
    mass = edges.weight
    if mean:
        mass = mass / degrees(edges)[0][edges.source]
    total = propagate(edges, mass, values)
    return total.relu() if bent else total


def loss_of(
    source: Tensor, target: Tensor, bought: Edges, taken: Tensor, one_way: Tensor, settings: Settings,
    chance: torch.Generator,
) -> Tensor:  # fmt: skip
    """The terms of co-purchases of the loss above, per edge ``taken`` [B]."""
    u, v, alone = bought.source[taken], bought.target[taken], one_way[taken].float()
    z = torch.randint(0, bought.nodes, (settings.negatives, len(u)), generator=chance)
    there, back = (source[u] * target[v]).sum(1), (source[v] * target[u]).sum(1)
    apart = (source[u] * target[z]).sum(2)
    for_edge, against = _for(there, settings), logsigmoid((settings.against - apart) / settings.tau).sum(0)
    other_way = logsigmoid((settings.against - back) / settings.tau)
    return -(for_edge + against + alone * (for_edge + other_way)).mean()


def _alike(source: Tensor, target: Tensor, viewed: Edges, taken: Tensor, settings: Settings) -> Tensor:
    """The term of co-views."""
    u, v = viewed.source[taken], viewed.target[taken]
    return -(_for((source[u] * source[v]).sum(1), settings) + _for((target[u] * target[v]).sum(1), settings)).mean()


def _for(x: Tensor, settings: Settings) -> Tensor:
    return logsigmoid((x - settings.for_edge) / settings.tau)


def _drawn(viewed: Edges | None, count: int, chance: torch.Generator) -> Tensor | None:
    """Places of co-view edges for a step."""
    if viewed is None or not len(viewed.source):
        return None
    return torch.randperm(len(viewed.source), generator=chance)[: min(count, (len(viewed.source) + 1) // 2)]


def _without(viewed: Edges | None, taken: Tensor | None) -> Edges | None:
    """Co-views less those of a step, in both directions."""
    if viewed is None or taken is None:
        return viewed
    gone = torch.cat([taken, reversed_edges(viewed)[taken]])
    return kept(viewed, torch.ones(len(viewed.source), dtype=torch.bool).index_fill_(0, gone, False))


def _messages(bought: Edges, viewed: Edges | None, hear: Neighbourhoods, chance: torch.Generator) -> Messages:
    return Messages(*hear(bought, chance), viewed)
