"""Products without edges: they ask and answer as those that are most like them, and no product that is known moves.

With the k nearest known products n of a cold one c by the inner product of unit features, weights s_cn^2 / sum s^2,

    theta_c^s = sum w theta_n^s,   theta_c^t = sum w theta_n^t,   the biases alike,   then b_c <- b_c + shift

which is the rule "c is like a, a is bought with b, so c is bought with b", and the other way round, of DAEMON (Virinchi et
al., ECML-PKDD 2022) with the states of the known frozen. A mean over strangers is right less often than its score says, so
at shift 0 cold items stand before known ones that are better, or behind where they had been good. The shift is the largest
at which held-out edges between known products lose no more than ``loss`` of HR@10: how much may be paid for new products
is asked, and how far they rise follows. Nothing about the cold ones has to be known for that. Derived for this project.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from learner.graph import features
from learner.graph.edges import Edges, kept
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import ranks, scores_of
from learner.graph.features import Features

TOP = 10
LIMIT = 16.0  # the shift is within this of 0, in logits
HALVINGS = 9
BLOCK = 1024  # cold products at once


class Settings(NamedTuple):
    """``nearest`` k; ``loss``: of HR@10 of known products that may be paid; ``held_out``: share of edges that tell it, at
    most ``told``."""

    nearest: int = 5
    loss: float = 0.01
    held_out: float = 0.05
    told: int = 4_000


def placed(known: Embeddings, x: Features, nearest: int = 5, shift: float = 0.0) -> Embeddings:
    """Embeddings in which products that do not ask, or answer, do as their nearest known ones, if any is like them."""
    found = known
    for side, bias, valid in (("source", "source_bias", "asks"), ("target", "target_bias", "answers")):
        values = torch.cat([getattr(known, side), getattr(known, bias)[:, None]], 1)
        cold = (~getattr(known, valid)).nonzero().squeeze(1)
        mean, any_like = _of_nearest(values, getattr(known, valid), x, cold, nearest)
        mean[:, -1] += shift if side == "target" else 0.0
        found = found._replace(**{
            side: getattr(known, side).index_copy(0, cold, mean[:, :-1]),
            bias: getattr(known, bias).index_copy(0, cold, mean[:, -1].contiguous()),
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
    embed: Callable[[Edges], Embeddings], bought: Edges, x: Features, settings: Settings | None = None, seed: int = 0
) -> float:
    """The largest shift of cold targets at which known products lose no more than ``loss`` of HR@10, in logits.

    ``embed``: embeddings from a part of the edges, tables as they are: edges that are held out must not be seen.
    """
    settings = settings or Settings()
    chance = torch.Generator().manual_seed(seed)
    count = min(int(settings.held_out * len(bought.source)), settings.told)
    taken = torch.randperm(len(bought.source), generator=chance)[:count]
    left = kept(bought, torch.ones(len(bought.source), dtype=torch.bool).index_fill_(0, taken, False))
    known, told = embed(left), torch.stack([bought.source[taken], bought.target[taken]])
    cold = bought.in_ptr.diff() == 0
    if not count or not bool(cold.any()):
        return 0.0
    known = known._replace(answers=~cold)  # those that lost their edges here are not cold

    def hits(given: Embeddings) -> float:
        return float((ranks(scores_of(given), left, told) <= TOP).double().mean())

    least, level = hits(known) - settings.loss, placed(known, x, settings.nearest)
    low, high = -LIMIT, LIMIT
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        moved = level.target_bias + middle * cold
        low, high = (middle, high) if hits(level._replace(target_bias=moved)) >= least else (low, middle)
    return low
