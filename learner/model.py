"""The conversion model: hashed embeddings and numbers -> a logit; and the one step by which it learns."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

from learner.batch import Rows

RATE = 0.004  # Adagrad's step
START = 1e-4  # Adagrad's sums of squares begin here
BELIEF = 10.0  # curvature the base rate starts with: p (1 - p) of that many rows, about 200 at 5 %


class Shape(NamedTuple):
    """Sizes of a model. ``base_rate`` is the conversion rate believed before anything was learned."""

    buckets: int = 2**18
    slots: int = 24
    numbers: int = 24
    width: int = 8
    hidden: tuple[int, int] = (64, 32)
    base_rate: float = 0.05


class ConversionModel:
    """logit P(y = 1 | x): an MLP over the mean embedding of each slot and the standardised numbers, plus a linear part.

    The first column of the embedding table is the linear weight of the hashed value. The output starts at the logit of
    the base rate: the last layer is zero.

    ``table`` [buckets, width]; ``dense``: the other weights by name. ``squares``: Adagrad's sums, by the same names; that
    of ``base``, the intercept, is the sum of p (1 - p) over the rows learned from.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        self.shape = shape
        self.table = torch.randn(shape.buckets, shape.width, generator=generator) * 0.05
        self.table[:, 0] = 0.0
        sizes = (shape.slots * shape.width + shape.numbers, *shape.hidden)
        self.dense: dict[str, Tensor] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            self.dense[f"weight{layer}"] = torch.randn(fan_out, fan_in, generator=generator) * math.sqrt(2.0 / fan_in)
            self.dense[f"bias{layer}"] = torch.zeros(fan_out)
        self.dense["out"] = torch.zeros(1, sizes[-1])
        self.dense["base"] = torch.tensor([math.log(shape.base_rate / (1 - shape.base_rate))])
        self.squares = {name: torch.full_like(value, START) for name, value in self.tensors().items()}
        self.squares["base"].fill_(BELIEF)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {"table": self.table, **self.dense}

    def logits(self, rows: Rows, numbers: Tensor) -> Tensor:
        """Rows (R rows) and standardised numbers [R, M] -> logits [R], without a gradient."""
        ids, offsets = by_slot(rows, self.shape.slots)
        return self._forward(embedding_bag(ids, self.table, offsets, mode="mean"), numbers)

    def _forward(self, bags: Tensor, numbers: Tensor) -> Tensor:
        """``bags`` [R * slots, width]: mean embeddings, 0 where a slot is empty."""
        embedded = bags.view(len(numbers), self.shape.slots, self.shape.width)
        x = torch.cat([embedded.flatten(1), numbers], 1)
        for layer in range(len(self.shape.hidden)):
            x = torch.relu(linear(x, self.dense[f"weight{layer}"], self.dense[f"bias{layer}"]))
        return linear(x, self.dense["out"], self.dense["base"]).squeeze(1) + embedded[:, :, 0].sum(1)

    def forward(self, rows: Rows, numbers: Tensor) -> "Pass":
        """The same logits, with what is needed to learn from them."""
        ids, offsets = by_slot(rows, self.shape.slots)
        used, place = torch.unique(ids, return_inverse=True)
        embeddings = self.table[used].requires_grad_()
        for value in self.dense.values():
            value.requires_grad_()
        logit = self._forward(embedding_bag(place, embeddings, offsets, mode="mean"), numbers)
        return Pass(logit, used, embeddings)

    def step(self, run: "Pass", loss: Tensor) -> None:
        """One step of Adagrad (Duchi, Hazan, Singer 2011) down the gradient of a mean loss; only used rows move.

        The intercept takes a Newton step instead, sum of gradients / sum of curvatures: it finds the level of a log within
        some hundred rows, and remembers it as long as the rows were many.
        """
        gradients = torch.autograd.grad(loss, [run.embeddings, *self.dense.values()])
        squares = self.squares["table"][run.used].addcmul_(gradients[0], gradients[0])
        self.squares["table"][run.used] = squares
        self.table[run.used] = run.embeddings.detach().addcdiv_(gradients[0], squares.sqrt_(), value=-RATE)
        for (name, value), gradient in zip(self.dense.items(), gradients[1:], strict=True):
            value.requires_grad_(False)
            if name == "base":
                p = torch.sigmoid(run.logit.detach())
                value -= len(p) * gradient / self.squares[name].add_((p * (1 - p)).sum())
                continue
            squares = self.squares[name].addcmul_(gradient, gradient)
            value.addcdiv_(gradient, squares.sqrt(), value=-RATE)


class Pass(NamedTuple):
    """A forward pass: ``logit`` [R] with its gradient, the hashed values it ``used`` [U] and their embeddings [U, width]."""

    logit: Tensor
    used: Tensor
    embeddings: Tensor


def by_slot(rows: Rows, slots: int) -> tuple[Tensor, Tensor]:
    """Hashed values ordered by (row, slot): ids [N], and where each of the R * slots bags begins [R * slots]."""
    row = torch.repeat_interleave(torch.arange(rows.size), rows.ptr.diff())
    bag = row * slots + rows.slots
    ends = torch.bincount(bag, minlength=rows.size * slots).cumsum(0)
    return rows.ids[torch.argsort(bag, stable=True)], torch.cat([ends.new_zeros(1), ends[:-1]])
