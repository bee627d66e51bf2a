"""How the linear dual model is learned: from edges that it does not see.

In every step each edge is kept with probability `Settings.keep`, drawn anew; states are sums over the kept edges M, and of
the sources of the step the dropped edges H alone are supervised. Of an edge u -> v in H with weight w:

    w * [ -log softmax of rel(u, v) over all linked items but u and its kept out-neighbours
          + (w_d [one-way] + w_e) softplus(-r_uv) + w_d [one-way] softplus(r_vu)
          + w_e / 3 sum over 3 uniform z softplus(r_uz) ]

divided by the sum of weights of H. An item that nothing leads to is not in the softmax: it would be a negative only. Adam,
warm-up, cosine; the decay of the tables is decoupled (Loshchilov and Hutter, ICLR 2019).

States of all products are made in every step, which costs N + E. With a fixed number of sources an epoch would have
N / sources of these, quadratic for many and next to nothing for few: so it has 8 to 16 steps (`Settings.steps`), and the
sources of a step grow with the graph.

Beyond `Settings.exact` items those that are not supervised are a sample of `Settings.sampled`, the same for the step, drawn
with q half uniform over linked items and half by in-degree; logits of what is drawn are less by log(S q), so that the sum of
their exponentials is that over all of them, on average (Bengio and Senecal, IEEE TNN 2008). The other supervised items of a
source stay in its softmax as they are: without them it finds less (docs/graph.md).
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from learner.graph import dual
from learner.graph.dual import Settings, Start, States, Tables
from learner.graph.edges import Edges, Graph, degrees, out_edges, reversed_edges
from learner.graph.embeddings import Embeddings
from learner.graph.features import Features, width
from learner.graph.softmax import log_sums

UNIFORM = 3  # items z of each edge


class Trained(NamedTuple):
    """``embeddings`` of all products, and the ``tables`` they come from, with which a next training can start."""

    embeddings: Embeddings
    tables: Tables


class Step(NamedTuple):
    """``u``, ``v`` [H]: supervised edges by source, ``weight`` [H], ``one_way`` [H] float32; ``row`` [H]: place of u in
    ``sources`` [B], those that have any; ``mass`` [E]: weights of the kept edges, 0 of the dropped."""

    sources: Tensor
    row: Tensor
    u: Tensor
    v: Tensor
    weight: Tensor
    one_way: Tensor
    mass: Tensor


def train(
    graph: Graph,
    features: Features | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    start: Start | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Embeddings of the products of a graph; the same bytes for the same graph, features, settings, seed and start.

    ``start``: tables of an earlier version, to go on from. ``progress`` is told each epoch and its mean loss. ValueError:
    the graph has no edges, or see `dual.init`.
    """
    settings, edges = settings or Settings(), graph.bought
    if not len(edges.source):
        raise ValueError("the graph has no co-purchase edges: there is nothing to learn from")
    chance = torch.Generator().manual_seed(seed)
    views, words = graph.viewed is not None, width(features) if features is not None else 0
    tables = dual.init(graph.nodes, words, settings, chance, start, views)
    asking = (edges.ptr.diff() > 0).nonzero().squeeze(1)
    size = sources_of(len(asking), settings)
    optimiser, pace = _descent(tables, settings), _pace(settings, settings.epochs * math.ceil(len(asking) / size))
    one_way, q = (reversed_edges(edges) < 0).float(), chances(edges)
    for epoch in range(settings.epochs):
        losses = []
        for sources in torch.split(asking[torch.randperm(len(asking), generator=chance)], size):
            step, rate = draw(edges, sources, one_way, settings.keep, chance), next(pace)
            if len(step.u):
                now = dual.states(tables, graph, step.mass, features, settings.power, settings.keep)
                loss = loss_of(now, tables.level, step, edges, q, settings, chance)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(loss.item())
        if progress:
            progress(epoch, sum(losses) / max(len(losses), 1))
    learned = tables._replace(**{name: t.detach() for name, t in tables._asdict().items() if t is not None})
    return Trained(dual.embed(learned, graph, features, settings), learned)


def sources_of(asking: int, settings: Settings) -> int:
    """Sources of a step, of so many that ask.

    >>> [sources_of(asking, Settings(sources=256, steps=(8, 16))) for asking in (100, 1_200, 3_000, 500_000)]
    [13, 150, 256, 31250]
    """
    fewest, most = (math.ceil(asking / steps) for steps in settings.steps)
    return max(1, most, min(settings.sources, fewest))


def _descent(tables: Tables, settings: Settings) -> torch.optim.Optimizer:
    """What moves the tables, from now on leaves of the graph of gradients."""
    moved = [table.requires_grad_() for table in tables if table is not None]
    groups = [{"params": moved[:6], "weight_decay": settings.decay}, {"params": moved[6:], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate)


def _pace(settings: Settings, steps: int) -> Iterator[float]:
    """The rate of each step: rises over the warm-up, then falls as a cosine."""
    for step in range(steps):
        rises = min(1.0, (step + 1) / max(settings.warm_up, 1))
        yield settings.rate * (rises * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))))


def draw(edges: Edges, sources: Tensor, one_way: Tensor, keep: float, chance: torch.Generator) -> Step:
    """A step: which edges are kept, and which of those of the ``sources`` [B] are supervised."""
    dropped = torch.rand(len(edges.source), generator=chance) >= keep
    found = (
        dropped & torch.zeros(edges.nodes, dtype=torch.bool).index_fill_(0, sources, True)[edges.source]
    ).nonzero()[:, 0]
    u, v = edges.source[found], edges.target[found]
    asking, row = torch.unique(u, return_inverse=True)
    return Step(asking, row, u, v, edges.weight[found], one_way[found], edges.weight * ~dropped)


def chances(edges: Edges) -> Tensor:
    """q of each item, above: [N] float64, 0 of those that nothing leads to."""
    d_in = degrees(edges)[1].double()
    return (d_in / d_in.sum() + (d_in > 0).double() / (d_in > 0).sum()) / 2


def loss_of(
    now: States, level: Tensor, step: Step, edges: Edges, q: Tensor, settings: Settings, chance: torch.Generator
) -> Tensor:
    """The loss of one step, see above; ``q`` [N]: `chances` of these edges."""
    u, v, one_way = step.u, step.v, step.one_way

    def logit(a: Tensor, b: Tensor) -> Tensor:
        """r, and what of it ranks."""
        source, target = now.source.index_select(0, a), now.target.index_select(0, b)
        ranking = (source[:, :-1] * target[:, :-1]).sum(1) + target[:, -1]
        return torch.stack([ranking + source[:, -1] + level, ranking])

    (there, own), (back, _) = logit(u, v), logit(v, u)
    share = step.weight / step.weight.sum()
    exact = edges.nodes <= settings.exact
    normaliser = _over_all(now, step, edges, q > 0) if exact else _over_some(now, own, step, edges, q, settings, chance)
    z = torch.randint(0, edges.nodes, (UNIFORM * len(u),), generator=chance)
    apart = softplus(logit(u.repeat(UNIFORM), z)[0]).view(UNIFORM, -1).mean(0)
    w_d, w_e = settings.direction * one_way, settings.existence
    each = (w_d + w_e) * softplus(-there) + w_d * softplus(back) + w_e * apart
    total: Tensor = normaliser + share @ (each - own)
    return total


def _over_all(now: States, step: Step, edges: Edges, reached: Tensor) -> Tensor:
    """Mean log of the sum of exponentials of rel over all linked items but u and its kept out-neighbours: []."""
    row, place = out_edges(edges, step.sources)
    left = step.mass[place] > 0
    row, item = _hidden(step, row[left], edges.target[place[left]])
    bias = torch.where(reached, now.target[:, -1], -torch.inf)
    return log_sums(now.source[step.sources, :-1], now.target[:, :-1], bias, row, item, _shares(step))


def _over_some(
    now: States, own: Tensor, step: Step, edges: Edges, q: Tensor, settings: Settings, chance: torch.Generator
) -> Tensor:
    """The same, estimated: the supervised items as they are, all others from a sample: []."""
    sample = torch.multinomial(q, settings.sampled, replacement=True, generator=chance)
    drawn, times = torch.unique(sample, return_counts=True)
    row, place = out_edges(edges, step.sources)
    row, item = _hidden(step, row, edges.target[place])
    slot = torch.searchsorted(drawn, item).clamp(max=len(drawn) - 1)
    there = drawn[slot] == item
    target, correction = now.target.index_select(0, drawn), (times / (settings.sampled * q[drawn])).log()
    top = torch.full((len(step.sources),), -torch.inf).scatter_reduce(0, step.row, own.detach(), "amax")
    sums = torch.zeros(len(step.sources)).index_add(0, step.row, (own - top[step.row]).exp())
    return log_sums(
        now.source[step.sources, :-1], target[:, :-1], target[:, -1] + correction.to(own.dtype), row[there], slot[there],
        _shares(step), sums.log() + top,
    )  # fmt: skip


def _shares(step: Step) -> Tensor:
    """What each source counts for in the mean: [B], sum 1."""
    return torch.zeros(len(step.sources)).index_add(0, step.row, step.weight / step.weight.sum())


def _hidden(step: Step, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that a softmax leaves out, and each source itself; in rising order of rows."""
    row = torch.cat([torch.arange(len(step.sources)), row])
    order = torch.argsort(row, stable=True)
    return row[order], torch.cat([step.sources, item])[order]
