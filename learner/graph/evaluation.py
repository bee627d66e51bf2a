"""How good places of products are: hit rates over all items, and who comes first, u or v."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph.edges import Edges, linked, out_edges
from learner.graph.embeddings import Embeddings, keys, queries

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


Scores = Callable[[Tensor], Tensor]
"""Of sources u [B] the scores of all items [B, N], new at each call."""


def scores_of(given: Embeddings) -> Scores:
    """rel."""
    index = keys(given)
    return lambda u: queries(given, u) @ index.T


def ranks(scores: Scores, trained: Edges, test: Tensor, answers: Tensor | None = None) -> Tensor:
    """The rank of v among what is offered to u, of each test edge [2, T]: [T] float32, from 1.

    Offered are all items but u and its out-neighbours in ``trained``, and those that do not answer, ``answers`` [N]: the
    rank of one that is not offered is infinite.
    Of equal scores the mean rank counts, so that a constant score finds nothing.
    """
    found = torch.empty(test.shape[1])
    for u, these, of in by_source(test[0], trained.nodes):
        offered = offered_of(scores(u), u, trained, answers)
        score = offered[of, test[1, these]][:, None]
        for part in range(0, len(these), len(u)):
            some = slice(part, part + len(u))
            lines = offered[of[some]]
            higher, equal = (lines > score[some]).sum(1), (lines == score[some]).sum(1)
            there = score[some, 0] > -torch.inf
            found[these[some]] = torch.where(there, 1 + higher + (equal - 1) / 2, torch.inf)
    return found


def offered_of(scores: Tensor, u: Tensor, trained: Edges, answers: Tensor | None = None) -> Tensor:
    """The ``scores`` [B, N] of sources u [B], -inf where it is not offered to them, see `ranks`; changed in place."""
    row, place = out_edges(trained, u)
    scores[row, trained.target[place]] = -torch.inf
    scores[torch.arange(len(u)), u] = -torch.inf
    if answers is not None:
        scores[:, ~answers] = -torch.inf
    return scores


def hits(scores: Scores, trained: Edges, test: Tensor, answers: Tensor | None = None, k: int = 10) -> int:
    """How many of the test edges [2, T] have a rank of at most k, see `ranks`."""
    return int((ranks(scores, trained, test, answers) <= k).sum())


def of_pairs(scores: Scores, nodes: int, u: Tensor, v: Tensor) -> Tensor:
    """Scores of pairs u [B], v [B]: [B]."""
    found = torch.empty(len(u))
    for asked, these, of in by_source(u, nodes):
        found[these] = scores(asked)[of, v[these]]
    return found


def by_source(u: Tensor, nodes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of different sources: them [B], the places in u [T] where they are, and which of the B each of these is."""
    if not len(u):
        return
    asked, place = torch.unique(u, return_inverse=True)
    order, rows = torch.argsort(place, stable=True), max(1, BLOCK // max(nodes, 1))
    bounds = torch.searchsorted(place[order], torch.arange(0, len(asked) + rows, rows)).tolist()
    for block, some in enumerate(torch.split(asked, rows)):
        these = order[bounds[block] : bounds[block + 1]]
        yield some, these, place[these] - block * rows


def area(positive: Tensor, negative: Tensor) -> float:
    """P(a positive score is above a negative one), ties counting half; NaN where there is none of either."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive) + torch.searchsorted(ordered, positive, right=True)
    return float(below.double().mean()) / (2 * len(negative))


def evaluate(
    scores: Scores, trained: Edges, test: Tensor, everything: Edges, seed: int = 0, answers: Tensor | None = None
) -> Quality:
    """The quality of scores made from the edges ``trained``, on test edges [2, T].

    ``everything``: all edges there are, of training, validation and test. Existence: test edges against as many pairs
    without an edge, drawn with ``seed``. Direction: test edges whose reversal is no edge, against their reversals, all in
    one pool. ``answers`` [N]: items that may be found.
    """
    rank = ranks(scores, trained, test, answers)
    u, v = test
    one_way = ~linked(everything, v, u)
    chance = torch.Generator().manual_seed(seed)
    pairs = torch.randint(0, everything.nodes, (2, 2 * test.shape[1] + 16), generator=chance)
    pairs = pairs[:, (pairs[0] != pairs[1]) & ~linked(everything, pairs[0], pairs[1])][:, : test.shape[1]]
    bucket = torch.bucketize(trained.in_ptr.diff()[u], torch.tensor(BUCKETS))
    there, none = (of_pairs(scores, everything.nodes, *pair) for pair in (test, pairs))
    back = of_pairs(scores, everything.nodes, v[one_way], u[one_way])
    return Quality(
        {k: float((rank <= k).double().mean()) for k in TOP},
        {k: float(((rank <= k) / rank.double()).mean()) for k in TOP},
        area(there, none),
        area(there[one_way], back),
        [float((rank[bucket == b] <= 10).double().mean()) for b in range(len(BUCKETS) + 1)],
    )
