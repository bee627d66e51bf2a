"""New products: a fifth of them loses all its edges, and is asked for and asked about among all items.

Of the edges between the others 75 % are for training, 5 % for the shift, and 20 % tell what it costs them. Beside stand
nearest-neighbour counts: what the five most similar known products are bought with, and whom they are bought beside. In a
graph with co-views cold products lose these as well, or, in the rows that say so, keep them: viewed, but not yet bought.
"""

import time
from typing import NamedTuple

import torch
from graph_data import Data, split
from graph_peers import interval
from torch import Tensor

from learner.graph import cold, dual, training
from learner.graph.choice import choose
from learner.graph.edges import Edges, graph, propagate
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import Scores, ranks, scores_of
from learner.graph.methods import GRAPH_METHODS

SHARE = 0.2
COLUMNS = ("cold queries", "cold targets", "own list, 5", "own list, 10", "known", "shift", "CPU seconds")


class World(NamedTuple):
    """``cold`` [N]; edges: ``train``, ``valid``, ``known`` between known products, ``asking`` from cold ones, ``answering``
    to them."""

    cold: Tensor
    train: Tensor
    valid: Tensor
    known: Tensor
    asking: Tensor
    answering: Tensor


def world(data: Data, seed: int) -> World:
    order = torch.randperm(data.nodes, generator=torch.Generator().manual_seed(1000 + seed))
    cold_ones = torch.zeros(data.nodes, dtype=torch.bool).index_fill_(0, order[: int(SHARE * data.nodes)], True)
    source, target = cold_ones[data.pairs]
    parts = split(data.pairs[:, ~source & ~target], seed)
    return World(
        cold_ones,
        parts.train,
        parts.valid,
        parts.test,
        data.pairs[:, source & ~target],
        data.pairs[:, ~source & target],
    )


def judged(scores: Scores, trained: Edges, given: World, answers: Tensor) -> tuple[float, ...]:
    """HR@10 of cold queries and of cold targets, HR@5 and @10 of those among cold items only, HR@10 of known edges."""
    asking, answering, known = (
        ranks(scores, trained, pairs, answers) for pairs in (given.asking, given.answering, given.known)
    )
    own = ranks(scores, trained, given.answering, answers & given.cold)
    found = ((asking, 10), (answering, 10), (own, 5), (own, 10), (known, 10))
    return tuple(float((rank <= k).double().mean()) for rank, k in found)


def counts(trained: Edges, x: Edges, cold_ones: Tensor) -> Scores:
    """A, with rows and columns of cold products the weighted means of those of their nearest known ones."""
    eye = torch.eye(trained.nodes)
    known = ((trained.ptr.diff() + trained.in_ptr.diff()) > 0) & ~cold_ones
    near = Embeddings(eye, eye, eye.new_zeros(len(eye)), eye.new_zeros(len(eye)), known, known)
    like = cold.placed(near, x).source
    table = propagate(trained, trained.weight, like.T.contiguous())
    return lambda u: like[u] @ table


def views(data: Data, cold_ones: Tensor) -> dict[str, Tensor | None]:
    """Co-views to train beside: of a graph that has them, those of known products, and those of cold ones too."""
    if data.viewed is None:
        return {"": None}
    return {"": data.viewed[:, ~cold_ones[data.viewed].any(0)], ", viewed": data.viewed}


def table(data: Data, name: str, seeds: int) -> None:
    """HR@10 with cold items left out, as they come, and shifted; and of counts."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    method = GRAPH_METHODS["dual"]
    for seed in range(seeds):
        given = world(data, seed)
        bought = graph(data.nodes, given.train).bought
        for beside, viewed in views(data, given.cold).items():
            began = time.process_time()
            beside_it = graph(data.nodes, given.train, viewed=viewed)
            chosen, shift = choose(method, beside_it, data.words, seed, given.valid)
            known, tables = training.train(beside_it, data.words, method.settings[chosen], seed)
            taken = time.process_time() - began
            said = dual.said(tables, data.words)
            near, moved = (cold.placed(known, data.words, said, shift=by) for by in (0.0, shift))
            for label, places, by in (("cold left out", known, 0.0), ("shift 0", near, 0.0), ("shifted", moved, shift)):
                hit = judged(scores_of(places), bought, given, places.answers)
                rows.setdefault(f"{label}{beside}", []).append((*hit, by, taken))
        counted = judged(counts(bought, data.words, given.cold), bought, given, near.answers)
        rows.setdefault("counts", []).append((*counted, 0.0, 0.0))
    print(f"\n{name}: {data.nodes:,} products, {SHARE:.0%} of them cold, {seeds} splits, HR@10 among all items")
    print(f"{'':22}" + "".join(f"{column:>19}" for column in COLUMNS))
    for label, found in rows.items():
        cells = [interval(list(column)) for column in zip(*found, strict=True)]
        print(f"{label:22}" + "".join(f"{cell:>19}" for cell in cells))
