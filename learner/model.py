"""The conversion model: hashed embeddings and numbers -> a logit; and the one step by which it learns.

Two parts are added up. A linear model over every hashed value and number learns by Newton steps on the diagonal: it is
quick, and it remembers a level as long as the rows behind it were many, so that a run of late positives moves it as much as
it should and no more. A small network over the embeddings learns what is not linear, slowly, by Adagrad.
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
PRIOR = 3.0  # curvature that the weight of a hashed value or number starts with: p (1 - p) of 60 rows at 5 %
BELIEF = 1.0  # the same for the intercept
HALF = 0.5  # attribution windows of event time after which what was learned counts half
MOVES = 0.5  # of a logit, what the level of a market moves in one attribution window: a standard deviation
FADING = 0.95  # of recent batches, in the length of a step
STRIDE = 4.0  # of a logit, the most that one step of the linear part may move it
FEW = 16.0  # rows for which the belief counts that an input's level moves as that of all does, and that not at all
TINY = 1e-20  # where nothing bends
FIRST = {"weight": PRIOR, "slope": PRIOR, "base": BELIEF}  # curvature never falls below it


class Shape(NamedTuple):
    """Sizes of a model. ``base_rate`` is the conversion rate believed before anything was learned.

    slots * width + numbers and the first of ``hidden`` are multiples of 4: rows that begin at other alignments would be
    summed in another order, and a score would depend, in its last bit, on where its row stands.
    """

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
    ``memory``: by the same names, sums of curvature w p (1 - p) x^2 of the linear part, of squared gradients of the network;
    and ``length`` [2], see `_length`.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        """ValueError: rows of what a layer reads would not be aligned alike, see `Shape`."""
        inputs = shape.slots * shape.width + shape.numbers
        for name, size in (("slots * width + numbers", inputs), ("hidden[0]", shape.hidden[0])):
            if size % 4:
                raise ValueError(f"{shape}: {name} is {size}; make it a multiple of 4")
        self.shape = shape
        self.weight, self.slope = torch.zeros(shape.buckets), torch.zeros(shape.numbers)
        self.base = torch.tensor([math.log(shape.base_rate / (1 - shape.base_rate))])
        self.table = torch.randn(shape.buckets, shape.width, generator=generator) * 0.05
        sizes = (inputs, *shape.hidden)
        self.dense: dict[str, Tensor] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            self.dense[f"weight{layer}"] = torch.randn(fan_out, fan_in, generator=generator) * math.sqrt(2.0 / fan_in)
            self.dense[f"bias{layer}"] = torch.zeros(fan_out)
        self.dense["out"] = torch.zeros(1, sizes[-1])
        self.memory = {name: torch.full_like(value, FIRST.get(name, START)) for name, value in self.tensors().items()}
        self.memory["length"] = torch.zeros(2)

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

    def step(
        self, run: "Pass", loss: Tensor, weight: Tensor, keep: float = 1.0, moved: float = 0.0, more: bool = False
    ) -> None:
        """One step down the gradient of a mean loss; of the hashed values only those used move.

        ``weight`` [R]: importance weights, what each row's curvature counts for; 0 where a loss is linear in the logit.
        ``keep``: what earlier curvature counts now. ``moved``: variance of what the level may have moved since the last
        step, logit^2; the curvature C of the intercept is the inverse of a variance, so it becomes 1 / (1 / C + moved).
        ``more``: other models will step on the same loss.
        """
        inputs = [run.logit, run.embeddings, *self.dense.values()]
        gradients = torch.autograd.grad(loss, inputs, retain_graph=more)
        self.memory["base"].div_(1 + moved * self.memory["base"])
        for name, first in FIRST.items():
            self.memory[name].mul_(keep).clamp_(min=first)
        self._newton(run, gradients[0] * len(run.logit), weight)
        squares = self.memory["table"][run.used].addcmul_(gradients[1], gradients[1])
        self.memory["table"][run.used] = squares
        self.table[run.used] = run.embeddings.detach().addcdiv_(gradients[1], squares.sqrt(), value=-RATE)
        for (name, value), gradient in zip(self.dense.items(), gradients[2:], strict=True):
            value.requires_grad_(False)
            squares = self.memory[name].addcmul_(gradient, gradient)
            value.addcdiv_(gradient, squares.sqrt(), value=-RATE)

    def _newton(self, run: "Pass", gradient: Tensor, weight: Tensor) -> None:
        """Each linear weight j moves by - a G / C: G = sum g x of the batch, C = sum h x^2 of all rows so far, fading.

        h = weight p (1 - p). Weights that share rows would correct the same error together, F times over where all rows
        call for it, so the step is as long as a line search says:

            a = sum_j B_j u_j^2 / sum_rows h (sum_j x_j u_j)^2 <= 1,   u_j = G_j / sqrt(C_j B_j),   B = sum h x^2 here

        the minimum, along this direction, of the quadratic with diagonal C whose correlations are those of the batch: 1
        where errors have nothing in common, 1 / F where all have; see `_length`. It moves the logit of no row by more than
        STRIDE. ``gradient`` [R]: dL / dlogit of each row.
        """
        p = torch.sigmoid(run.logit.detach())
        curvature, numbers, rows = weight * p * (1 - p), run.numbers, run.rows
        row = rows.row
        used, place = torch.unique(rows.ids, return_inverse=True)
        nothing = torch.zeros(len(used))
        parts = {  # of the batch: B, G
            "weight": (nothing.index_add(0, place, curvature[row]), nothing.index_add(0, place, gradient[row])),
            "slope": (curvature @ numbers.square(), gradient @ numbers),
            "base": (curvature.sum()[None], gradient.sum()[None]),
        }
        remembered = self._remember({name: bend for name, (bend, _) in parts.items()}, used)
        u = {name: pull / (remembered[name] * bend.clamp(min=TINY)).sqrt() for name, (bend, pull) in parts.items()}
        apart = torch.stack([(bend * u[name].square()).sum() for name, (bend, _) in parts.items()]).sum()
        together = curvature @ (numbers @ u["slope"] + u["base"]).index_add(0, row, u["weight"][place]).square()
        length = self._length(torch.stack([apart, together]))
        moves = {name: length * pull / remembered[name] for name, (_, pull) in parts.items()}
        far = (numbers @ moves["slope"] + moves["base"]).index_add(0, row, moves["weight"][place])
        short = (STRIDE / far.abs().max().clamp(min=STRIDE)).item()
        self.weight.index_add_(0, used, moves["weight"], alpha=-short)
        self.slope.sub_(moves["slope"], alpha=short)
        self.base.sub_(moves["base"], alpha=short)
        self._rescale(p, torch.sigmoid(run.logit.detach() - short * far), used, place, row)

    def _rescale(self, before: Tensor, after: Tensor, used: Tensor, place: Tensor, row: Tensor) -> None:
        """What was learned at another level bends as much as it does at the new one: p (1 - p) of rows that share an input.

            C_j *= (sum of p (1 - p) after + k r) / (sum before + k),   k = FEW times the mean before

        over the rows of the batch with the hashed value j; r is the same ratio over all of them, with k in place of k r.
        Slopes and intercept, which all rows share, take r itself. Delayed positives come after the negatives of their
        impressions: with the curvature of the low level that those left behind, a run of them would overshoot.
        """
        was, now = before * (1 - before), after * (1 - after)
        believed = FEW * was.mean().clamp(min=TINY)
        ratio = (now.sum() + believed) / (was.sum() + believed)
        shares = torch.zeros(2, len(used)).index_add(1, place, torch.stack([now, was])[:, row])
        self.memory["weight"][used] *= (shares[0] + believed * ratio) / (shares[1] + believed)
        self.memory["slope"].mul_(ratio)
        self.memory["base"].mul_(ratio)

    def _length(self, sums: Tensor) -> Tensor:
        """The length a of a step, from the ``sums`` [2] above and below the line, and those of recent batches.

        Rare positives are errors of few rows, their absence is an error that all rows share: within a batch the length goes
        with the sign of the error, and the level would rise. So a batch does not decide on its own length; those before it
        do, in their sums, fading. Where errors begin to have more in common, twice its own length is the most. A batch
        that bends nowhere has no length of its own.
        """
        recent, own = self.memory["length"], sums[0] / sums[1].clamp(min=TINY)
        if sums[1] <= 0 < recent[1]:
            own = recent[0] / recent[1]
        length = own if recent[1] <= 0 else torch.minimum(recent[0] / recent[1], 2 * own)
        self.memory["length"] = recent * FADING + sums
        return length.clamp(max=1)

    def _remember(self, bends: dict[str, Tensor], used: Tensor) -> dict[str, Tensor]:
        """C of the linear weights, with this batch: of the hashed values only those ``used``."""
        self.memory["weight"].index_add_(0, used, bends["weight"])
        found = {name: self.memory[name].add_(bends[name]) for name in ("slope", "base")}
        return found | {"weight": self.memory["weight"][used]}


class Pass(NamedTuple):
    """A forward pass of R rows: ``logit`` [R] with its gradient, the hashed values it ``used`` [U], their ``embeddings``."""

    rows: Rows
    numbers: Tensor
    logit: Tensor
    used: Tensor
    embeddings: Tensor


def by_slot(rows: Rows, slots: int) -> tuple[Tensor, Tensor]:
    """Hashed values ordered by (row, slot): ids [N], and where each of the R * slots bags begins [R * slots]."""
    bag = rows.row * slots + rows.slots
    ends = torch.bincount(bag, minlength=rows.size * slots).cumsum(0)
    return rows.ids[torch.argsort(bag, stable=True)], torch.cat([ends.new_zeros(1), ends[:-1]])
