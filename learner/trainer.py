"""One learner: scores rows, learns from batches of looks, and lets its auxiliary models learn from outcomes.

Everything it is lies in `Trainer.tensors`: the same tensors and the same batches give the same bytes.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from learner import features
from learner.auxiliaries import AUXILIARIES
from learner.batch import Batch, Rows, cat_rows
from learner.contract import Outputs
from learner.methods import METHODS
from learner.model import HALF, MOVES, ConversionModel, Shape
from learner.weights import clipped

# A matrix product's last bits depend on its shape; and where rows are not aligned alike (see `Shape`), on a row's place.
BLOCK = 512  # rows scored at once, always padded to this
BATCH = 256  # looks learned from at once
HEADS = ("", "1")  # after the name of a head's tensors


class Report(NamedTuple):
    """Sums over the looks learned from so far."""

    looks: int = 0
    loss: float = 0.0
    weight: float = 0.0
    weight_squared: float = 0.0
    largest: float = 0.0
    clipped: int = 0

    def weights(self) -> dict[str, float | None]:
        """Mean, max, share of looks with a clipped estimate, effective sample size (sum w)^2 / sum w^2 as a share."""
        if not self.looks:
            return {"mean": None, "max": None, "clipped_share": None, "ess_share": None}
        return {
            "mean": self.weight / self.looks,
            "max": self.largest,
            "clipped_share": self.clipped / self.looks,
            "ess_share": self.weight**2 / (self.weight_squared * self.looks) if self.weight_squared else None,
        }


class Trainer:
    """A method at work.

    Args:
        method: a name in `METHODS`.
        elapsed, window: age of the first look and attribution window, s.
        seed: of this learner's own random generator; equal seeds give equal start weights, whatever the method.
        shape: sizes of the model.
    """

    def __init__(self, method: str, elapsed: float, window: float, seed: int, shape: Shape | None = None) -> None:
        self.method, self.window = METHODS[method], window
        shape, generator = shape or Shape(), torch.Generator().manual_seed(seed)
        starts = self.method.starts(shape.base_rate, elapsed, window)
        self.models = [ConversionModel(shape._replace(base_rate=start), generator) for start in starts]
        self.moments = features.init(shape.numbers)
        self.auxiliaries = {name: AUXILIARIES[name].init(shape, elapsed, window) for name in self.method.auxiliaries}
        self.report = Report()
        self.version = 0
        self.clock = 0.0  # event time up to which it has learned, s

    @torch.no_grad()
    def score(self, rows: Rows) -> Tensor:
        """P(y = 1 | x) of R rows as it is served, [R] float64. A row's score depends on that row alone, to the last bit."""
        scores = [self._score_block(rows, start) for start in range(0, rows.size, BLOCK)]
        return torch.cat(scores) if scores else torch.empty(0, dtype=torch.float64)

    def _score_block(self, rows: Rows, start: int) -> Tensor:
        index = torch.arange(start, min(start + BLOCK, rows.size))
        block = rows.take(index)
        if missing := BLOCK - len(index):
            block = cat_rows([block, _empty(missing, rows.numbers.shape[1])])
        numbers = features.standardise(self.moments, block.numbers)
        return self.method.serve(*(model.logits(block, numbers).double() for model in self.models))[: len(index)]

    def learn(self, batch: Batch) -> Tensor:
        """One gradient step on B looks. Returns their importance weights, [B] float32.

        The feature moments move first, once, by the rows of the batch.
        """
        self.moments = features.update(self.moments, batch.rows.numbers)
        numbers = features.standardise(self.moments, batch.rows.numbers)
        runs = [model.forward(batch.rows, numbers) for model in self.models]
        told = self.method.loss(self.outputs([run.logit for run in runs], batch), batch)
        mean, passed = told.loss.mean(), self._pass(float(batch.at.max()))
        keep, moved = 2.0 ** (-passed / HALF), MOVES**2 * passed if self.method.wanders else 0.0
        for head, (model, run) in enumerate(zip(self.models, runs, strict=True)):
            model.step(run, mean, told.curvature[:, head], keep, moved, more=head + 1 < len(runs))
        self.version += 1
        self._account(told.loss.detach(), told.weight, clipped(told.estimates).view(batch.size, -1).any(1))
        return told.weight

    def _pass(self, now: float) -> float:
        """Attribution windows up to event time ``now``, s, since the last step: the market moves with time, not traffic."""
        passed = max(now - self.clock, 0.0)
        self.clock += passed
        return passed / self.window

    def outputs(self, logits: list[Tensor], batch: Batch) -> Outputs:
        """The heads, and what the auxiliaries estimate now."""
        nothing = torch.full_like(batch.label, torch.nan)
        found = dict(zip(("logit", "other"), logits, strict=False))
        found["window"] = torch.full_like(batch.label, self.window)
        with torch.no_grad():
            f = self.method.serve(*(logit.detach() for logit in logits))
            for name, state in self.auxiliaries.items():
                for estimate, value in AUXILIARIES[name].estimate(state, batch, f).items():
                    found[estimate] = found[estimate] + value if estimate in found else value
        return Outputs(*(found.get(name, nothing) for name in Outputs._fields))

    @property
    def whole(self) -> bool:
        """Whether an auxiliary model also wants to see first looks."""
        return any(AUXILIARIES[name].whole for name in self.auxiliaries)

    def observe(self, outcomes: Batch) -> None:
        """Let the auxiliary models learn from outcomes: conversions and closes, and first looks where one is `whole`."""
        f = self.score(outcomes.rows) if self.whole else torch.full_like(outcomes.at, torch.nan)
        for name, state in self.auxiliaries.items():
            self.auxiliaries[name] = AUXILIARIES[name].update(state, outcomes, f)

    def _account(self, loss: Tensor, weight: Tensor, was_clipped: Tensor) -> None:
        w = weight.to(torch.float64)
        self.report = Report(
            self.report.looks + len(weight),
            self.report.loss + float(loss.to(torch.float64).sum()),
            self.report.weight + float(w.sum()),
            self.report.weight_squared + float(w.square().sum()),
            max(self.report.largest, float(w.max())),
            self.report.clipped + int(was_clipped.sum()),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that this learner is, by name."""
        found: dict[str, Tensor] = {}
        for head, model in zip(HEADS, self.models, strict=False):
            found |= {f"model{head}.{name}": value for name, value in model.tensors().items()}
            found |= {f"memory{head}.{name}": value for name, value in model.memory.items()}
        found |= {f"moments.{name}": value for name, value in self.moments._asdict().items()}
        for auxiliary, state in self.auxiliaries.items():
            found |= {f"{auxiliary}.{name}": value for name, value in state._asdict().items()}
        found["clock"] = torch.tensor(self.clock, dtype=torch.float64)
        return found | {"report": torch.tensor([self.version, *self.report], dtype=torch.float64)}

    @torch.no_grad()
    def restore(self, found: dict[str, Tensor]) -> None:
        """Become the learner that gave these `tensors`."""
        for head, model in zip(HEADS, self.models, strict=False):
            for name, value in model.tensors().items():
                value.copy_(found[f"model{head}.{name}"])
            for name, value in model.memory.items():
                value.copy_(found[f"memory{head}.{name}"])
        self.moments = features.Moments(*(found[f"moments.{name}"] for name in features.Moments._fields))
        for auxiliary, state in self.auxiliaries.items():
            self.auxiliaries[auxiliary] = type(state)(*(found[f"{auxiliary}.{name}"] for name in state._fields))
        self.clock = float(found["clock"])
        version, looks, loss, weight, squared, largest, was_clipped = found["report"].tolist()
        self.version = int(version)
        self.report = Report(int(looks), loss, weight, squared, largest, int(was_clipped))

    @torch.no_grad()
    def adopt(self, other: "Trainer") -> None:
        """Go on from another learner's weights and feature moments; auxiliary models and the account stay its own.

        A head that starts off the base rate starts as far off what was learned: its logit is shifted by the same amount.
        """
        learned = other.models[0]
        for model in self.models[: self.method.inherits]:
            for name, value in model.tensors().items():
                value.copy_(learned.tensors()[name])
            for name, value in model.memory.items():
                value.copy_(learned.memory[name])
            model.base += _logit(model.shape.base_rate) - _logit(learned.shape.base_rate)
        self.moments = features.Moments(*(value.clone() for value in other.moments))
        self.version, self.clock = other.version, other.clock

    def digest(self) -> str:
        """sha256 over the weights of each head, in the order of their names."""
        digest = hashlib.sha256()
        for model in self.models:
            for name, value in sorted(model.tensors().items()):
                digest.update(name.encode())
                digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _empty(rows: int, width: int) -> Rows:
    nothing = torch.empty(0, dtype=torch.int64)
    return Rows(
        nothing, nothing, torch.zeros(rows + 1, dtype=torch.int64), torch.full((rows, width), torch.nan).double()
    )
