"""The normaliser of a softmax over all items, and its estimate from some of them; neither holds all scores at once."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK = 2**20  # scores held at once
SAMPLED = 2**22  # the same of sampled items


def log_sums(source: Tensor, target: Tensor, bias: Tensor, row: Tensor, item: Tensor, share: Tensor) -> Tensor:
    """sum over u of share_u log sum over v of exp(source_u . target_v + bias_v), where v runs over the items not hidden: [].

    ``source`` [B, d], ``target`` [N, d], ``bias`` [N] (-inf hides an item from all), ``share`` [B]; pairs ``row`` [H], in
    rising order, and ``item`` [H] are hidden. Differentiable in source, target and bias: gradients are made on the way,
    block by block, and kept in place of the B x N scores. At least one item must be left to each row.
    """
    result: Tensor = _LogSums.apply(source, target, bias, row, item, share)  # type: ignore[no-untyped-call]
    return result


class _LogSums(torch.autograd.Function):
    """Gradients of log sums are softmaxes, and softmaxes are at hand where the sums are."""

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, target: Tensor, bias: Tensor, row: Tensor, item: Tensor, share: Tensor
    ) -> Tensor:
        size = max(1, BLOCK // max(len(target), 1))
        bounds = torch.searchsorted(row, torch.arange(0, len(source) + size, size)).tolist()
        total = torch.zeros((), dtype=torch.float64)
        d_source, d_target, d_bias = torch.empty_like(source), torch.zeros_like(target), torch.zeros_like(bias)
        for block, rows in enumerate(torch.split(source, size)):
            first, hidden = block * size, slice(bounds[block], bounds[block + 1])
            scores = torch.addmm(bias, rows, target.T)
            scores[row[hidden] - first, item[hidden]] = -torch.inf
            top, of = scores.amax(1, keepdim=True), share[first : first + size, None]
            sums = scores.sub_(top).exp_().sum(1, keepdim=True)
            total += (of * (sums.log() + top)).sum()
            scores.mul_(of / sums)
            d_source[first : first + size] = scores @ target
            d_target.addmm_(scores.T, rows)
            d_bias += scores.sum(0)
        ctx.save_for_backward(d_source, d_target, d_bias)
        return total.to(source.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        d_source, d_target, d_bias = (gradients[0] * saved for saved in ctx.saved_tensors)
        return d_source, d_target, d_bias, None, None, None


def sampled_log_sums(
    source: Tensor, target: Tensor, bias: Tensor, drawn: Tensor, chance: Tensor, row: Tensor, item: Tensor
) -> Tensor:
    """Of each row u, log sum over the drawn z of exp(source_u . target_z + bias_z) / (S q_z), what is hidden left out: [B].

    ``source`` [B, d]; ``drawn`` [S]: items drawn with replacement, each with ``chance`` q [S]; pairs ``row`` [H], ``item``
    [H] are hidden. The sum is, on average, that over all items that can be drawn and are not hidden. Where there are several
    blocks, their scores are made again for the gradient, so that memory does not grow with the rows.
    """
    shift = bias[drawn] - (len(drawn) * chance).log().to(bias.dtype)
    keys = target[drawn]
    order = torch.argsort(drawn)
    ends = [torch.searchsorted(drawn[order], item, right=right) for right in (False, True)]
    count = ends[1] - ends[0]
    which = torch.repeat_interleave(torch.arange(len(item)), count)
    slot = order[torch.arange(len(which)) + (ends[0] - (count.cumsum(0) - count))[which]]
    which = row[which]
    size = max(1, SAMPLED // max(len(drawn), 1))
    if len(source) <= size:
        return _of_block(source, keys, shift, which, slot)
    sums = []
    for first in range(0, len(source), size):
        some = ((which >= first) & (which < first + size)).nonzero()[:, 0]
        given = source[first : first + size], keys, shift, which[some] - first, slot[some]
        sums.append(checkpoint(_of_block, *given, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(sums)


def _of_block(source: Tensor, keys: Tensor, shift: Tensor, row: Tensor, slot: Tensor) -> Tensor:
    """Log sums of scores of rows, less those hidden."""
    scores = torch.addmm(shift, source, keys.T)
    hidden = torch.zeros(scores.shape, dtype=torch.bool).index_put_((row, slot), torch.tensor(True))
    return scores.masked_fill(hidden, -torch.inf).logsumexp(1)
