"""Which settings a graph needs: those whose places find most of the edges that a short training has not seen.

Whether features belong in places, or say only how much a product is bought, depends on what they say and on how many edges
there are: on citations of three edges a paper they find a third more, on also-bought products of nineteen they find less
(docs/graph.md). The graph itself tells, for the price of a short training of each settings; and with the edges held out, how
far products without edges may rise.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph import dual
from learner.graph.cold import shift_of
from learner.graph.edges import Edges, Graph, kept
from learner.graph.evaluation import hits, scores_of
from learner.graph.features import Features
from learner.graph.methods import GraphMethod

HELD, MOST = 0.1, 4000  # share of edges that tell, and at most so many


class Choice(NamedTuple):
    """``settings``: their name. ``shift``: of cold targets, see `cold.shift_of`; 0 where nothing was tried."""

    settings: str
    shift: float = 0.0


def choose(method: GraphMethod, graph: Graph, x: Features | None, seed: int, told: Tensor | None = None) -> Choice:
    """The settings with the best HR@10 at ``told`` edges [2, T] among all items, of equal ones the first, and their shift.

    ``told``: edges that the graph does not have; None: some of its edges are held out. Where nothing can be chosen (a method
    without short trainings, no features, fewer than two edges) it is the first, without a training.
    """
    if method.short is None or x is None or len(graph.bought.source) < 2:
        return Choice(next(iter(method.settings)))
    if told is None:
        bought, told = _held_out(graph.bought, seed)
        graph = graph._replace(bought=bought)
    tried, found = {}, {}
    for name, settings in method.settings.items():
        places, _ = tried[name] = method.train(graph, x, method.short(settings), seed, None, None)
        found[name] = hits(scores_of(places), graph.bought, told, places.answers)
    best = max(found, key=lambda name: found[name])
    places, tables = tried[best]
    assert tables is not None  # a method with short trainings has them
    return Choice(best, shift_of(places, graph.bought, x, told, dual.said(tables, x)))


def _held_out(edges: Edges, seed: int) -> tuple[Edges, Tensor]:
    """The edges without a few that are drawn, and those [2, T]."""
    count = len(edges.source)
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: max(1, min(int(HELD * count), MOST))]
    out = torch.zeros(count, dtype=torch.bool).index_fill_(0, drawn, True)
    return kept(edges, ~out), torch.stack([edges.source[out], edges.target[out]])
