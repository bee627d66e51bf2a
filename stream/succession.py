"""A version of the product graph beside the one before it: the same products in the same rows, what is new, how to turn.

What was new since the version before tells the next one how much popularity counts, see `learner.graph.popularity`: nobody
has learned from it when it is asked.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learner.graph.alignment import align
from learner.graph.edges import Edges, degrees, edges, linked
from learner.graph.embeddings import Embeddings
from learner.graph.popularity import raised, ratio_of
from stream.bundle import Bundle

APART = 0.5  # residual of the alignment from which on a version begins a space of its own
TOLD = 2000  # new edges, evenly spaced, that tell how much popularity counts


def rows_of(known: Sequence[str], ids: Sequence[str]) -> Tensor:
    """The place among ``known`` products of each of these [N] int64, -1 where it is not there."""
    place = {name: n for n, name in enumerate(known)}
    return torch.tensor([place.get(name, -1) for name in ids], dtype=torch.int64)


def renumbered(bundle: Bundle, ids: Sequence[str]) -> Embeddings:
    """The places of a bundle for these products; those it does not know neither ask nor answer.

    The row of what does not ask is zero: rel is then the bias of the target, what is bought most whatever came before.
    """
    which = rows_of(bundle.ids, ids)
    known = which >= 0
    rows = [value[which.clamp(min=0)] for value in bundle.embeddings]
    found = Embeddings(*(value * (known[:, None] if value.dim() > 1 else known) for value in rows))
    return found._replace(source=found.source * found.asks[:, None], source_bias=found.source_bias * found.asks)


def edges_of(bundle: Bundle, ids: Sequence[str]) -> Edges | None:
    """The edges a bundle was learned from, between these products; None if its file does not tell them."""
    if bundle.bought is None or bundle.weight is None:
        return None
    pairs = rows_of(ids, bundle.ids)[bundle.bought.long()]
    there = (pairs >= 0).all(0)
    return edges(len(ids), pairs[:, there], bundle.weight[there])


def new_since(bundle: Bundle, old: Edges, bought: Tensor, since: Tensor) -> Tensor:
    """Those of the edges ``bought`` [2, E] that were new after a bundle, whose edges are ``old``: [2, T].

    An edge that it has is not among them, though it had faded since and came again.
    """
    return bought[:, (since > bundle.until) & ~linked(old, *bought)]


def popularity(before: Bundle, places: Embeddings, ids: Sequence[str], bought: Tensor, since: Tensor) -> float:
    """The ratio of `learner.graph.popularity` for the version of these edges; as it was where nothing tells.

    ``places``: those of the version before, `renumbered` for ``ids``.
    """
    ratio: float = before.metrics.get("popularity", 0.0)  # of a time when it was not weighed
    old = edges_of(before, ids)
    if old is None:
        return ratio
    into, later = degrees(old)[1], new_since(before, old, bought, since)
    later = later[:, places.asks[later[0]] & (into > 0)[later[1]]]
    if not later.shape[1]:
        return ratio
    return ratio_of(raised(places, into, -ratio), old, thinned(later, TOLD))


def thinned(pairs: Tensor, most: int) -> Tensor:
    """At most so many of the ``pairs`` [2, T], of which there are some, evenly spaced."""
    return pairs[:, :: -(-pairs.shape[1] // most)]


def in_space(new: Embeddings, past: Embeddings, space: int, number: int) -> tuple[Embeddings, int, dict[str, Any]]:
    """Turned to where the version before was, if that can be: places, space, and how well it went."""
    try:
        found = align(new, past)
    except ValueError:
        return new, number, {}
    figures = {"residual": found.residual, "overlap": None if math.isnan(found.overlap) else found.overlap}
    return (found.embeddings, space, figures) if found.residual <= APART else (new, number, figures)
