"""What a method makes of a graph: two places for every product, and rel(u, v), how well v follows u."""

from typing import NamedTuple

import torch
from torch import Tensor


class Embeddings(NamedTuple):
    """Of N products: ``source`` [N, d], ``target`` [N, d], ``source_bias`` [N], ``target_bias`` [N] float32.

    ``asks`` [N], ``answers`` [N] bool: whether anything is known of the product as a source, as a target; the row of what
    is not says nothing, and is never NaN.

        rel(u, v) = source_u . target_v + source_bias_u + target_bias_v,   r = rel as a logit of "v follows u"
    """

    source: Tensor
    target: Tensor
    source_bias: Tensor
    target_bias: Tensor
    asks: Tensor
    answers: Tensor


def unbiased(source: Tensor, target: Tensor) -> Embeddings:
    """Embeddings without biases; rows of zeros are not valid."""
    nothing = source.new_zeros(len(source))
    return Embeddings(source, target, nothing, nothing, (source != 0).any(1), (target != 0).any(1))


def rel(given: Embeddings, u: Tensor, v: Tensor) -> Tensor:
    """rel of pairs u [B], v [B] -> [B]."""
    return (given.source[u] * given.target[v]).sum(1) + given.source_bias[u] + given.target_bias[v]


def queries(given: Embeddings, u: Tensor) -> Tensor:
    """Rows [B, d + 2] whose inner products with `keys` are rel: (source, 1, source_bias)."""
    return torch.cat([given.source[u], torch.ones(len(u), 1), given.source_bias[u, None]], 1)


def keys(given: Embeddings) -> Tensor:
    """Rows [N, d + 2] for an index by inner product: (target, target_bias, 1)."""
    return torch.cat([given.target, given.target_bias[:, None], torch.ones(len(given.target), 1)], 1)


def offered(given: Embeddings) -> Tensor:
    """`keys` in which products that do not answer have rel -inf."""
    bias = given.target_bias.masked_fill(~given.answers, -torch.inf)
    return keys(given._replace(target_bias=bias))
