"""The conversion model: hashed embeddings and numbers -> a logit; and the one step by which it learns.

Two parts are added up. A linear model over every hashed value and number learns by damped Newton steps: it is quick, and it
remembers a level as long as the rows behind it were many, so that a run of late positives moves it as much as it
should and no more. A small network over the embeddings learns what is not linear, slowly, by Adagrad.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

from learner.batch import Rows

RATE = 0.004  # Adagrad's step
START = 1e-4  # Adagrad's sums of squares begin here
PRIOR = 1.0  # curvature that the weight of a hashed value starts with: p (1 - p) of 20 rows at 5 %
BELIEF = 1.0  # the same for the intercept and the slopes of numbers
MEMORY = 2.0**19  # rows after which curvature counts half: how long a level is remembered


class Shape(NamedTuple):
    """Sizes of a model. ``base_rate`` is the conversion rate believed before anything was learned."""

    buckets: int = 2**18
    slots: int = 24
    numbers: int = 24
    width: int = 8
    hidden: tuple[int, int] = (64, 32)
    base_rate: float = 0.05


class ConversionModel:
    """logit P(y = 1 | x) = base + sum of `weight` over hashed values + numbers . `slope` + MLP(embeddings, numbers).

    The MLP sees the mean embedding of each slot. Its last layer starts at zero and so do all linear weights: the output
    starts at the base rate.

    ``weight`` [buckets], ``slope`` [M], ``base`` [1]: the linear part; ``table`` [buckets, width] and ``dense``: the MLP.
    ``memory``: by the same names, sums of curvature p (1 - p) x^2 of the linear part, of squared gradients of the network.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        self.shape = shape
        self.weight, self.slope = torch.zeros(shape.buckets), torch.zeros(shape.numbers)
        self.base = torch.tensor([math.log(shape.base_rate / (1 - shape.base_rate))])
        self.table = torch.randn(shape.buckets, shape.width, generator=generator) * 0.05
        sizes = (shape.slots * shape.width + shape.numbers, *shape.hidden)
        self.dense: dict[str, Tensor] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            self.dense[f"weight{layer}"] = torch.randn(fan_out, fan_in, generator=generator) * math.sqrt(2.0 / fan_in)
            self.dense[f"bias{layer}"] = torch.zeros(fan_out)
        self.dense["out"] = torch.zeros(1, sizes[-1])
        start = {"weight": PRIOR, "slope": BELIEF, "base": BELIEF}
        self.memory = {name: torch.full_like(value, start.get(name, START)) for name, value in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {"weight": self.weight, "slope": self.slope, "base": self.base, "table": self.table, **self.dense}

    def logits(self, rows: Rows, numbers: Tensor) -> Tensor:
        """Rows (R rows) and standardised numbers [R, M] -> logits [R], without a gradient."""
        ids, offsets = by_slot(rows, self.shape.slots)
        return self._linear(rows, numbers) + self._network(
            embedding_bag(ids, self.table, offsets, mode="mean"), numbers
        )

    def _linear(self, rows: Rows, numbers: Tensor) -> Tensor:
        values = embedding_bag(rows.ids, self.weight[:, None], rows.ptr[:-1], mode="sum").squeeze(1)
        return values + numbers @ self.slope + self.base

    def _network(self, bags: Tensor, numbers: Tensor) -> Tensor:
        """``bags`` [R * slots, width]: mean embeddings, 0 where a slot is empty."""
        x = torch.cat([bags.view(len(numbers), -1), numbers], 1)
        for layer in range(len(self.shape.hidden)):
            x = torch.relu(linear(x, self.dense[f"weight{layer}"], self.dense[f"bias{layer}"]))
        return linear(x, self.dense["out"]).squeeze(1)

    def forward(self, rows: Rows, numbers: Tensor) -> "Pass":
        """The same logits, with what is needed to learn from them."""
        ids, offsets = by_slot(rows, self.shape.slots)
        used, place = torch.unique(ids, return_inverse=True)
        embeddings = self.table[used].requires_grad_()
        for value in self.dense.values():
            value.requires_grad_()
        network = self._network(embedding_bag(place, embeddings, offsets, mode="mean"), numbers)
        return Pass(rows, numbers, self._linear(rows, numbers) + network, used, embeddings)

    def step(self, run: "Pass", loss: Tensor) -> None:
        """One step down the gradient of a mean loss; of the hashed values only those used move."""
        gradients = torch.autograd.grad(loss, [run.logit, run.embeddings, *self.dense.values()])
        self._newton(run, gradients[0] * len(run.logit))
        squares = self.memory["table"][run.used].addcmul_(gradients[1], gradients[1])
        self.memory["table"][run.used] = squares
        self.table[run.used] = run.embeddings.detach().addcdiv_(gradients[1], squares.sqrt(), value=-RATE)
        for (name, value), gradient in zip(self.dense.items(), gradients[2:], strict=True):
            value.requires_grad_(False)
            squares = self.memory[name].addcmul_(gradient, gradient)
            value.addcdiv_(gradient, squares.sqrt(), value=-RATE)

    def _newton(self, run: "Pass", gradient: Tensor) -> None:
        """Each linear weight moves by - c sum g x / sum p (1 - p) x^2; below the line over all rows of the past, fading.

        The intercept has c = 1/2, the F inputs of a row share the other half, c = 1 / (2 F): a correction that all rows
        call for is made once, not F times over. ``gradient`` [R]: dL / dlogit of each row.
        """
        p = torch.sigmoid(run.logit.detach())
        curvature, size = p * (1 - p), len(p)
        share = 0.5 * size / max(1, len(run.rows.ids) + int((run.numbers != 0).sum()))
        keep = 2.0 ** (-size / MEMORY)
        row = torch.repeat_interleave(torch.arange(size), run.rows.ptr.diff())
        self.base -= 0.5 * gradient.sum() / self.memory["base"].mul_(keep).add_(curvature.sum())
        memory = self.memory["slope"].mul_(keep).add_(curvature @ run.numbers.square())
        self.slope -= share * (gradient @ run.numbers) / memory
        memory = self.memory["weight"].mul_(keep).clamp_(min=PRIOR).index_add_(0, run.rows.ids, curvature[row])
        moved = torch.zeros_like(self.weight).index_add_(0, run.rows.ids, gradient[row])
        self.weight.addcdiv_(moved, memory, value=-share)


class Pass(NamedTuple):
    """A forward pass of R rows: ``logit`` [R] with its gradient, the hashed values it ``used`` [U], their ``embeddings``."""

    rows: Rows
    numbers: Tensor
    logit: Tensor
    used: Tensor
    embeddings: Tensor


def by_slot(rows: Rows, slots: int) -> tuple[Tensor, Tensor]:
    """Hashed values ordered by (row, slot): ids [N], and where each of the R * slots bags begins [R * slots]."""
    row = torch.repeat_interleave(torch.arange(rows.size), rows.ptr.diff())
    bag = row * slots + rows.slots
    ends = torch.bincount(bag, minlength=rows.size * slots).cumsum(0)
    return rows.ids[torch.argsort(bag, stable=True)], torch.cat([ends.new_zeros(1), ends[:-1]])
