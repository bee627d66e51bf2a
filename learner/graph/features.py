"""What is known of products beside their edges: rows of words or of numbers, of unit length."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from learner.graph.edges import Edges, between, out_edges, propagate, starts

Features = Edges | Tensor
"""Of N products: a sparse matrix of F words, or numbers [N, F] float32. Rows are of unit length, or zero."""


def words(rows: int, width: int, pairs: Tensor) -> Edges:
    """Multi-hot rows from pairs [2, E] of (product, word), each word weighted by log(N / products that have it).

    ``width``: words there are, or buckets of a hash. A word that all have says nothing and counts 0.
    """
    given = between(rows, width, pairs.to(torch.int64), torch.ones(pairs.shape[1]))
    rarity = (rows / given.in_ptr.diff().clamp(min=1)).log()
    value = rarity[given.target]
    squares = torch.zeros(rows).index_add_(0, given.source, value.square())
    return given._replace(weight=value / squares.sqrt().clamp(min=1e-12)[given.source])


def numbers(rows: Tensor) -> Tensor:
    """Rows [N, F] of unit length; a row of zeros stays."""
    length: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / length.clamp(min=1e-12)


def width(x: Features) -> int:
    """F."""
    return x.shape[1] if isinstance(x, Tensor) else len(x.in_ptr) - 1


def project(x: Features, table: Tensor) -> Tensor:
    """x @ table: [F, D] -> [N, D], differentiable in the table."""
    return x @ table if isinstance(x, Tensor) else propagate(x, x.weight, table)


def dense(x: Features, rows: Tensor) -> Tensor:
    """The ``rows`` [R] of x as numbers [R, F]."""
    if isinstance(x, Tensor):
        return x[rows]
    row, place = out_edges(x, rows)
    return torch.zeros(len(rows), width(x)).index_put_((row, x.target[place]), x.weight[place])


def alike(x: Features, these: Tensor, those: Tensor) -> Tensor:
    """Inner products of the rows ``these`` [A] with the rows ``those`` [B]: [A, B]."""
    rows = dense(x, these)
    if isinstance(x, Tensor):
        return rows @ x[those].T
    row, place = out_edges(x, those)
    return embedding_bag(
        x.target[place], rows.T.contiguous(), starts(len(those), row), mode="sum", per_sample_weights=x.weight[place],
        include_last_offset=True,
    ).T  # fmt: skip
