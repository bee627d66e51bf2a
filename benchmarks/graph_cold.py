"""New products: a fifth of them loses all its edges, and is asked for and asked about among all items.

Of the edges between the others 75 % are for training and 20 % tell what it costs them. Nearest-neighbour counts stand
beside: what the five most similar known products are bought with, and whom they are bought beside.
"""

import time
from typing import Any, NamedTuple

import torch
from graph_data import Data, split
from graph_peers import interval
from torch import Tensor

from learner.graph import cold, dual, training
from learner.graph.edges import Edges, graph, propagate
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import Scores, ranks, scores_of

SHARE = 0.2
NEAREST = 5
COLUMNS = ("cold queries", "cold targets", "targets, own list", "known", "shift", "seconds")


class World(NamedTuple):
    """``cold`` [N]; edges: ``train``, ``known`` between known products, ``asking`` from cold ones, ``answering`` to them."""

    cold: Tensor
    train: Tensor
    known: Tensor
    asking: Tensor
    answering: Tensor


def world(data: Data, seed: int) -> World:
    order = torch.randperm(data.nodes, generator=torch.Generator().manual_seed(1000 + seed))
    cold_ones = torch.zeros(data.nodes, dtype=torch.bool).index_fill_(0, order[: int(SHARE * data.nodes)], True)
    source, target = cold_ones[data.pairs]
    parts = split(data.pairs[:, ~source & ~target], seed)
    return World(cold_ones, parts.train, parts.test, data.pairs[:, source & ~target], data.pairs[:, ~source & target])


def hits(scores: Scores, trained: Edges, pairs: Tensor) -> float:
    return float((ranks(scores, trained, pairs) <= 10).double().mean())


def judged(scores: Scores, trained: Edges, given: World) -> tuple[float, ...]:
    """HR@10 of cold queries, of cold targets, of those among cold items only, and of known edges."""

    def own(u: Tensor) -> Tensor:
        return scores(u).masked_fill(~given.cold, -torch.inf)

    return (
        hits(scores, trained, given.asking),
        hits(scores, trained, given.answering),
        hits(own, trained, given.answering),
        hits(scores, trained, given.known),
    )


def counts(trained: Edges, x: Edges, cold_ones: Tensor) -> Scores:
    """A, with rows and columns of cold products the weighted means of those of their nearest known ones."""
    eye = torch.eye(trained.nodes)
    known = ((trained.ptr.diff() + trained.in_ptr.diff()) > 0) & ~cold_ones
    near = Embeddings(eye, eye, eye.new_zeros(len(eye)), eye.new_zeros(len(eye)), known, known)
    like = cold.placed(near, x, NEAREST).source
    table = propagate(trained, trained.weight, like.T.contiguous())
    return lambda u: like[u] @ table


def table(data: Data, name: str, chosen: dict[str, Any], seeds: int) -> None:
    """HR@10 with cold items left out, as they come, and shifted; and of counts."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    settings = dual.Settings()._replace(**chosen)
    for seed in range(seeds):
        given, began = world(data, seed), time.perf_counter()
        bought = graph(data.nodes, given.train).bought
        trained = training.train(graph(data.nodes, given.train), data.words, settings, seed)
        known = trained.embeddings
        taken = time.perf_counter() - began

        def embed(part: Edges, tables: dual.Tables = trained.tables) -> Embeddings:
            return dual.embed(tables, part, data.words, settings)

        shift = cold.shift_of(embed, bought, data.words, seed=seed)
        for label, scores, by in (
            ("cold left out", scores_of(known), 0.0),
            ("shift 0", scores_of(cold.placed(known, data.words, NEAREST)), 0.0),
            ("shifted", scores_of(cold.placed(known, data.words, NEAREST, shift)), shift),
            ("counts", counts(bought, data.words, given.cold), 0.0),
        ):
            rows.setdefault(label, []).append((*judged(scores, bought, given), by, taken))
    print(f"\n{name}: {data.nodes:,} products, {SHARE:.0%} of them cold, {seeds} splits, HR@10 among all items")
    print(f"{'':14}" + "".join(f"{column:>19}" for column in COLUMNS))
    for label, found in rows.items():
        cells = [interval(list(column)) for column in zip(*found, strict=True)]
        print(f"{label:14}" + "".join(f"{cell:>19}" for cell in cells))
