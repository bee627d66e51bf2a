"""How good a version of the product graph was at what came after it: edges that were new when the next one was taken.

Each is looked for among all products that its source was not yet linked to, beside what costs nothing:

    popularity   in-degree of the target
    walk         three steps, A D_in^-1 A^T D_out^-1 A: who is bought by those who bought what else leads there

over the edges that the version was learned from, with their weights of then: those of now know what has come since. A
target that nothing led to before is cold, and counted apart. A source that the version does not know is told what is bought
most, as `belated related` tells it. Direction: whether a new one-way edge scores above its reversal.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph.edges import Edges, degrees, edges, linked, propagate
from learner.graph.evaluation import BUCKETS, Scores, area, of_pairs, ranks, scores_of
from stream.bundle import Bundle
from stream.snapshot import Snapshot
from stream.succession import edges_of, new_since, renumbered, thinned

TOP = 10
MOST = 20_000  # edges, evenly spaced, that tell


class Figures(NamedTuple):
    """HR@10 and MRR@10 of warm and of cold targets, and AUC of the direction; NaN where there is none."""

    hits: float
    reciprocal: float
    cold_hits: float
    cold_reciprocal: float
    direction: float


class Interval(NamedTuple):
    """What came between the snapshot of ``version`` and the midnight ``until``, ms: new edges, warm and cold.

    ``by_degree``: HR@10 of warm targets by the in-degree of the query, in the `BUCKETS` of an evaluation, None where none
    was ``asked`` [4].
    """

    version: int
    until: int
    warm: int
    cold: int
    figures: dict[str, Figures]
    asked: list[int]
    by_degree: dict[str, list[float | None]]


def interval(before: Bundle, taken: Snapshot) -> Interval | None:
    """How good ``before`` is at the edges of ``taken`` that are new since.

    An edge that the version has is not asked for, though it had faded since and came again; and direction is judged where
    the version knows both ends and not the reverse. None if there is none, if there were none before, or if the file of
    ``before`` does not tell its edges.
    """
    old = edges_of(before, taken.ids)
    if old is None or not len(old.source):
        return None
    test = new_since(before, old, taken.bought, taken.since)
    if not test.shape[1]:
        return None
    everything = edges(len(taken.ids), taken.bought, taken.weight)
    test = thinned(test, MOST)
    cold = (old.in_ptr.diff() == 0)[test[1]]
    known = (old.ptr.diff() > 0) | (old.in_ptr.diff() > 0)
    one_way = known[test].all(0) & ~linked(everything, *test.flip(0)) & ~linked(old, *test.flip(0))
    version, served = f"version {before.version}", renumbered(before, taken.ids)
    ways = {version: scores_of(served), "popularity": _popularity(old), "walk": _walk(old)}
    answers = {version: served.answers}  # what it does not know it does not offer
    place = {name: ranks(scores, old, test, answers.get(name)).double() for name, scores in ways.items()}
    figures = {name: _figures(scores, place[name], old, test, cold, one_way) for name, scores in ways.items()}
    bucket = torch.bucketize(old.in_ptr.diff()[test[0]], torch.tensor(BUCKETS))
    buckets = [~cold & (bucket == n) for n in range(len(BUCKETS) + 1)]
    asked = [int(some.sum()) for some in buckets]
    by_degree = {name: [_hits(rank[some]) for some in buckets] for name, rank in place.items()}
    return Interval(before.version, taken.until, int((~cold).sum()), int(cold.sum()), figures, asked, by_degree)


def _hits(rank: Tensor) -> float | None:
    return float((rank <= TOP).double().mean()) if len(rank) else None


def _figures(scores: Scores, rank: Tensor, old: Edges, test: Tensor, cold: Tensor, one_way: Tensor) -> Figures:
    hit = (rank <= TOP).double()
    there, back = (of_pairs(scores, old.nodes, a[one_way], b[one_way]) for a, b in (test, test.flip(0)))
    warm, new = ([float(value[part].mean()) for value in (hit, hit / rank)] for part in (~cold, cold))
    return Figures(warm[0], warm[1], new[0], new[1], area(there, back))


def _popularity(old: Edges) -> Scores:
    into = degrees(old)[1]
    return lambda u: into.repeat(len(u), 1)


def _walk(old: Edges) -> Scores:
    out, into = (degree.clamp(min=1e-12)[:, None] for degree in degrees(old))

    def scores(u: Tensor) -> Tensor:
        start = torch.zeros(old.nodes, len(u))
        start[u, torch.arange(len(u))] = 1
        back = propagate(old, old.weight, propagate(old, old.weight, start, back=True) / into)
        return propagate(old, old.weight, back / out, back=True).T.contiguous()

    return scores
