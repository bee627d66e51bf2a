"""Running moments of numeric features: how a number becomes a number near zero.

    x -> clip((sign(x) log(1 + |x|) - mean) / std, -5, 5)

The logarithm keeps a stray 1e9 from owning the mean, the clip keeps it from owning the gradient. A missing number
becomes 0, the mean. Moments move once per batch (Chan, Golub, LeVeque 1983: pairwise updates of mean and variance).
"""

from typing import NamedTuple

import torch
from torch import Tensor

BOUND = 5.0


class Moments(NamedTuple):
    """``seen``, ``mean``, ``m2`` [M] float64: number of values, their mean, their summed squared deviations."""

    seen: Tensor
    mean: Tensor
    m2: Tensor


def init(width: int) -> Moments:
    """Nothing seen yet."""
    return Moments(*(torch.zeros(width, dtype=torch.float64) for _ in Moments._fields))


def compress(numbers: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), elementwise."""
    return numbers.sign() * numbers.abs().log1p()


def update(moments: Moments, numbers: Tensor) -> Moments:
    """Moments after a batch of ``numbers`` [B, M] float64, NaN where missing."""
    values = compress(numbers)
    there = ~values.isnan()
    count = there.sum(0).to(torch.float64)
    mean = torch.where(there, values, 0.0).sum(0) / count.clamp(min=1)
    m2 = torch.where(there, values - mean, 0.0).square().sum(0)
    total = moments.seen + count
    gap = mean - moments.mean
    share = count / total.clamp(min=1)
    return Moments(total, moments.mean + gap * share, moments.m2 + m2 + gap.square() * moments.seen * share)


def standardise(moments: Moments, numbers: Tensor) -> Tensor:
    """``numbers`` [B, M] float64 -> [B, M] float32 in [-5, 5], 0 where missing."""
    std = (moments.m2 / moments.seen.clamp(min=1)).sqrt().clamp(min=1e-3)
    std = torch.where(moments.seen < 2, 1.0, std)
    z = (compress(numbers) - moments.mean) / std
    return torch.where(z.isnan(), 0.0, z.clamp(-BOUND, BOUND)).to(torch.float32)
