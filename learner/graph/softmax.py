"""The normaliser of a softmax over many items; its scores are never held at once.

Gradients of log sums are softmaxes, and softmaxes are at hand where the sums are: they are made on the way, block by block,
and kept in place of the B x N scores.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**20  # scores held at once


def log_sums(
    source: Tensor, target: Tensor, bias: Tensor, row: Tensor, item: Tensor, share: Tensor, beside: Tensor | None = None
) -> Tensor:
    """sum over u of share_u log( exp(beside_u) + sum over v of exp(source_u . target_v + bias_v) ): [].

    v runs over the items not hidden. ``source`` [B, d], ``target`` [N, d], ``bias`` [N] (-inf hides an item from all),
    ``share`` [B]; pairs ``row`` [H], in rising order, and ``item`` [H] are hidden. ``beside`` [B]: nothing where it is not
    given; then at least one item must be left to each row. Differentiable in source, target, bias and beside.
    """
    beside = share.new_full((len(source),), -torch.inf) if beside is None else beside
    result: Tensor = _LogSums.apply(source, target, bias, beside, row, item, share)  # type: ignore[no-untyped-call]
    return result


class _LogSums(torch.autograd.Function):
    """The sum, in float64, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, target: Tensor, bias: Tensor, beside: Tensor, row: Tensor, item: Tensor, share: Tensor
    ) -> Tensor:
        size = max(1, BLOCK // max(len(target), 1))
        bounds = torch.searchsorted(row, torch.arange(0, len(source) + size, size)).tolist()
        total = torch.zeros((), dtype=torch.float64)
        d_source, d_target, d_bias, d_beside = (torch.zeros_like(of) for of in (source, target, bias, beside))
        for block, rows in enumerate(torch.split(source, size)):
            first, hidden = block * size, slice(bounds[block], bounds[block + 1])
            here = slice(first, first + size)
            scores = torch.addmm(bias, rows, target.T)
            scores[row[hidden] - first, item[hidden]] = -torch.inf
            top = torch.maximum(scores.amax(1), beside[here])[:, None]
            own = (beside[here, None] - top).exp()
            sums = scores.sub_(top).exp_().sum(1, keepdim=True) + own
            of = share[here, None]
            total += (of * (sums.log() + top)).sum()
            scores.mul_(of / sums)
            d_source[here] = scores @ target
            d_target.addmm_(scores.T, rows)
            d_bias += scores.sum(0)
            d_beside[here] = (own * of / sums)[:, 0]
        ctx.save_for_backward(d_source, d_target, d_bias, d_beside)
        return total.to(source.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradients[0] * saved for saved in ctx.saved_tensors), None, None, None)
