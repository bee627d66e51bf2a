"""Products without edges: they ask and answer as those that are most like them, and no product that is known moves.

With the k nearest known products n of a cold one c by the inner product of unit features, weights w = s_cn^2 / sum s^2, and
x W what a method has learned that features say by themselves (`dual.said`; of others 0),

    theta_c = x_c W + sum w (theta_n - x_n W)   on each side, the biases alike,   then b_c^t <- b_c^t + shift

which is the rule "c is like a, a is bought with b, so c is bought with b", and the other way round, of DAEMON (Virinchi et
al., ECML-PKDD 2022) with the states of the known frozen; what the features of c say need not be taken from others. What
cold targets gain known products lose. The shift, never above 0, is the largest at which edges between known products lose no
more than a share ``loss`` of their HR@10: how much may be paid for new products is asked, and how far they rise follows.
Nothing about the cold ones has to be known for that. Derived for this project.
"""

import torch
from torch import Tensor

from learner.graph import features
from learner.graph.dual import States
from learner.graph.edges import Edges
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import hits, scores_of
from learner.graph.features import Features

NEAREST = 5
LIMIT = 16.0  # the shift is no further below 0, in logits
HALVINGS = 9
BLOCK = 1024  # cold products at once


def placed(
    known: Embeddings, x: Features, said: States | None = None, nearest: int = NEAREST, shift: float = 0.0
) -> Embeddings:
    """Embeddings in which products that do not ask, or answer, do as their nearest known ones, if any is like them.

    ``said``: x W of all products, in the coordinates of ``known``.
    """
    found = known
    for side, bias, valid in (("source", "source_bias", "asks"), ("target", "target_bias", "answers")):
        values = torch.cat([getattr(known, side), getattr(known, bias)[:, None]], 1)
        own = torch.zeros_like(values) if said is None else getattr(said, side)
        cold = (~getattr(known, valid)).nonzero().squeeze(1)
        mean, any_like = _of_nearest(values - own, getattr(known, valid), x, cold, nearest)
        mean += own[cold]
        mean[:, -1] += shift if side == "target" else 0.0
        values = values.index_copy(0, cold, mean)
        found = found._replace(**{
            side: values[:, :-1].contiguous(),
            bias: values[:, -1].contiguous(),
            valid: getattr(known, valid).index_copy(0, cold, any_like),
        })  # fmt: skip
    return found


def _of_nearest(values: Tensor, valid: Tensor, x: Features, cold: Tensor, nearest: int) -> tuple[Tensor, Tensor]:
    """Means of ``values`` [N, D] over the nearest valid products of each ``cold`` [C]: [C, D], and whether there is any."""
    ids = valid.nonzero().squeeze(1)
    means, found = torch.zeros(len(cold), values.shape[1]), torch.zeros(len(cold), dtype=torch.bool)
    if not len(ids):
        return means, found
    for first in range(0, len(cold), BLOCK):
        some = slice(first, first + BLOCK)
        likeness = features.alike(x, cold[some], ids)
        best, place = likeness.clamp(min=0).topk(min(nearest, len(ids)), dim=1)
        weight = best**2 / (best**2).sum(1, keepdim=True).clamp(min=1e-30)
        means[some] = (weight[:, :, None] * values[ids[place]]).sum(1)
        found[some] = best[:, 0] > 0
    return means, found


def shift_of(
    known: Embeddings, bought: Edges, x: Features, told: Tensor, said: States | None = None, loss: float = 0.02
) -> float:
    """The largest shift of cold targets up to 0 at which edges to known products lose no more than ``loss`` of their HR@10.

    ``told`` [2, T]: edges that were not learned from, since learned ones stand higher and lose too little; those to cold
    products are left out, what these gain would hide what is lost. ``bought``: those that were.
    """
    told = told[:, known.answers[told[1]]]
    level, cold = placed(known, x, said), ~known.answers

    def found(given: Embeddings) -> int:
        return hits(scores_of(given), bought, told, given.answers)

    least = found(level._replace(answers=known.answers)) * (1 - loss)
    if found(level) >= least:
        return 0.0
    low, high = -LIMIT, 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        moved = level.target_bias + middle * cold
        low, high = (middle, high) if found(level._replace(target_bias=moved)) >= least else (low, middle)
    return low
