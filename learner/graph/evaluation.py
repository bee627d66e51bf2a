"""How good places of products are: hit rates over all items, and who comes first, u or v."""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph.edges import Edges, degrees, linked, out_edges
from learner.graph.embeddings import Embeddings, keys, queries, rel

TOP = (5, 10, 20)
BUCKETS = (1, 10, 100)  # in-degrees of a query: 0-1, 2-10, 11-100, >100
BLOCK = 2**24  # scores held at once


class Quality(NamedTuple):
    """``hits`` {k: HR@k}, ``reciprocal`` {k: MRR@k}: over test edges; ``existence``, ``direction``: areas under the curve.

    ``by_degree`` [4]: HR@10 by the in-degree of the query in training, 0-1, 2-10, 11-100, >100; NaN where none is asked.
    """

    hits: dict[int, float]
    reciprocal: dict[int, float]
    existence: float
    direction: float
    by_degree: list[float]


def ranks(given: Embeddings, trained: Edges, test: Tensor) -> Tensor:
    """The rank of v among what is offered to u, of each test edge [2, T]: [T] float32, from 1.

    Offered are all items but u and its out-neighbours in ``trained``; items of which nothing is known come last. Of equal
    scores the mean rank counts, so that a constant score finds nothing.
    """
    asked, place = torch.unique(test[0], return_inverse=True)
    order = torch.argsort(place, stable=True)
    found = torch.empty(test.shape[1])
    index, rows = keys(given), max(1, BLOCK // max(given.target.shape[0], 1))
    bounds = torch.searchsorted(place[order], torch.arange(0, len(asked) + rows, rows)).tolist()
    for block, u in enumerate(asked.split(rows)):
        these = order[bounds[block] : bounds[block + 1]]
        scores = offered(given, trained, queries(given, u) @ index.T, u)
        of = place[these] - block * rows
        score = scores[of, test[1, these]][:, None]
        for part in range(0, len(these), rows):
            some = slice(part, part + rows)
            lines = scores[of[some]]
            higher, equal = (lines > score[some]).sum(1), (lines == score[some]).sum(1)
            found[these[some]] = 1 + higher + (equal - 1) / 2
    return found


def offered(given: Embeddings, trained: Edges, scores: Tensor, u: Tensor) -> Tensor:
    """Scores [B, N] of sources u [B], -inf where an item is u, an out-neighbour of u, or unknown as a target; in place."""
    scores[:, ~given.answers] = -torch.inf
    row, place = out_edges(trained, u)
    scores[row, trained.target[place]] = -torch.inf
    scores[torch.arange(len(u)), u] = -torch.inf
    return scores


def area(positive: Tensor, negative: Tensor) -> float:
    """P(a positive score is above a negative one), ties counting half; NaN where there is none of either."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive) + torch.searchsorted(ordered, positive, right=True)
    return float(below.double().mean()) / (2 * len(negative))


def evaluate(given: Embeddings, trained: Edges, test: Tensor, everything: Edges, seed: int = 0) -> Quality:
    """The quality of embeddings made from the edges ``trained``, on test edges [2, T].

    ``everything``: all edges there are, of training, validation and test. Existence: test edges against as many pairs without
    an edge, drawn with ``seed``. Direction: test edges whose reversal is no edge, against their reversals, all in one pool.
    """
    rank = ranks(given, trained, test)
    u, v = test
    one_way = ~linked(everything, v, u)
    chance = torch.Generator().manual_seed(seed)
    pairs = torch.randint(0, everything.nodes, (2, 2 * test.shape[1] + 16), generator=chance)
    pairs = pairs[:, (pairs[0] != pairs[1]) & ~linked(everything, pairs[0], pairs[1])][:, : test.shape[1]]
    bucket = torch.bucketize(degrees(trained, torch.ones(len(trained.target)))[1][u], torch.tensor(BUCKETS).float())
    return Quality(
        {k: float((rank <= k).double().mean()) for k in TOP},
        {k: float(((rank <= k) / rank.double()).mean()) for k in TOP},
        area(rel(given, u, v), rel(given, pairs[0], pairs[1])),
        area(rel(given, u[one_way], v[one_way]), rel(given, v[one_way], u[one_way])),
        [float((rank[bucket == b] <= 10).double().mean()) for b in range(len(BUCKETS) + 1)],
    )
