"""Exact search: the k items with the largest rel to a product."""

import torch
from torch import Tensor

from learner.graph.edges import Edges, out_edges
from learner.graph.embeddings import Embeddings, offered, queries

BLOCK = 2**24  # scores held at once


def search(
    index: Tensor, asked: Tensor, k: int, row: Tensor | None = None, item: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of each query [B, d + 2] the k keys [N, d + 2] with the largest inner products: items [B, k] int64, scores [B, k].

    Pairs ``row`` [H], in rising order, and ``item`` [H] are left out. Best first; an item is -1 and its score -inf where
    fewer than k are left. ValueError: k is not above 0.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one item")
    row, item = (torch.empty(0, dtype=torch.int64) if given is None else given for given in (row, item))
    size = max(1, BLOCK // max(len(index), 1))
    bounds = torch.searchsorted(row, torch.arange(0, len(asked) + size, size)).tolist()
    items, scores = torch.full((len(asked), k), -1), torch.full((len(asked), k), -torch.inf)
    for block, rows in enumerate(torch.split(asked, size)):
        first, hidden = block * size, slice(bounds[block], bounds[block + 1])
        found = rows @ index.T
        found[row[hidden] - first, item[hidden]] = -torch.inf
        best, place = found.topk(min(k, len(index)), dim=1)
        scores[first : first + len(rows), : best.shape[1]] = best
        items[first : first + len(rows), : best.shape[1]] = torch.where(best > -torch.inf, place, -1)
    return items, scores


def related(given: Embeddings, u: Tensor, k: int, bought: Edges | None = None) -> tuple[Tensor, Tensor]:
    """The k products that follow each u [B] best, u itself left out, and its out-neighbours if ``bought`` is given."""
    index, own = offered(given), torch.arange(len(u))
    row, item = own, u
    if bought is not None:
        more, place = out_edges(bought, u)
        row, item = torch.cat([own, more]), torch.cat([u, bought.target[place]])
        order = torch.argsort(row, stable=True)
        row, item = row[order], item[order]
    return search(index, queries(given, u), k, row, item)
