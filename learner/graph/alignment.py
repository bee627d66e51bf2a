"""One rotation from a new space to the last one, for both sides, so that rel stays and coordinates hardly move.

    Z = [theta^s; theta^t] over common products,   M = Z_new^T Z_old = U S V^T,   Q = U V^T minimises |Z_new Q - Z_old|

(Schoenemann, Psychometrika 1966). Two rotations, one for each side, would change every inner product between them. Biases
are no coordinates and are left as they are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph.embeddings import Embeddings, keys, queries
from learner.graph.index import search

TOP = 10


class Aligned(NamedTuple):
    """``embeddings``: rotated; ``residual``: |Z_new Q - Z_old| / |Z_old|, 0 is best; ``overlap``: of the TOP items
    of common products, among common products, the mean share that was there before."""

    embeddings: Embeddings
    residual: float
    overlap: float


def align(new: Embeddings, old: Embeddings, common: Tensor | None = None) -> Aligned:
    """Rotate ``new`` to where ``old`` is. ``common`` [2, C]: ids of common products in new and in old; the first if None.

    ValueError: widths differ, or fewer places are known in both than there are dimensions: a rotation would fit anything.
    """
    if new.source.shape[1] != old.source.shape[1]:
        raise ValueError(f"widths {new.source.shape[1]} and {old.source.shape[1]} differ: begin a new space")
    if common is None:
        common = torch.arange(min(len(new.source), len(old.source))).repeat(2, 1)
    sides = (
        (new.source[common[0]], old.source[common[1]], new.asks[common[0]] & old.asks[common[1]]),
        (new.target[common[0]], old.target[common[1]], new.answers[common[0]] & old.answers[common[1]]),
    )
    here = torch.cat([z[known] for z, _, known in sides]).double()
    there = torch.cat([z[known] for _, z, known in sides]).double()
    if len(here) < max(1, here.shape[1]):
        raise ValueError(
            f"{len(here)} places are known in both versions, of {here.shape[1]} dimensions: begin a new space"
        )
    left, _, right = torch.linalg.svd(here.T @ there)
    rotation = left @ right
    residual = float((here @ rotation - there).norm() / there.norm().clamp(min=1e-30))
    source, target = ((z.double() @ rotation).float() for z in (new.source, new.target))
    return Aligned(new._replace(source=source, target=target), residual, _overlap(new, old, common))


def _overlap(new: Embeddings, old: Embeddings, common: Tensor) -> float:
    both = new.answers[common[0]] & old.answers[common[1]] & new.asks[common[0]] & old.asks[common[1]]
    count = int(both.sum())
    k, own = min(TOP, count - 1), torch.arange(count)
    if k < 1:
        return float("nan")
    tops = [
        search(keys(given)[ids[both]], queries(given, ids[both]), k, own, own)[0]
        for given, ids in ((new, common[0]), (old, common[1]))
    ]
    return float((tops[0][:, :, None] == tops[1][:, None, :]).any(2).double().mean())
