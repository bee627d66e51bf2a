"""belated and river: our conversion model with river's interface, and river's classifiers as contestants in a backtest."""

import hashlib
import inspect
import math
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from numbers import Real
from typing import Any

import torch
from river import base
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from learner import features
from learner.batch import KINDS, Batch, Look, Rows
from learner.methods import METHODS
from learner.model import Shape
from learner.trainer import Report, Trainer
from learner.weights import clipped
from stream.assemble import Assembler

SHAPE = Shape(buckets=2**14)
EDGE = 1e-7  # a contestant's scores stay this far from 0 and 1
UNFIT = ("SGTClassifier",)  # it divides by the range of a feature, and that of a hashed value is 0


class BelatedClassifier(base.Classifier):  # type: ignore[misc]  # river comes without types
    """The conversion model of method ``settled`` for binary labels, one step per row.

    Numbers are numbers; all else is text, hashed with its feature's name, each element of a list by itself. None, NaN
    and infinite numbers count as missing. Names are taken as text, and their order in a row changes nothing.

    Args:
        seed: equal seeds give equal predictions.
        base_rate: the share of positives believed before anything was learned; ValueError if not between 0 and 1.
    """

    def __init__(self, seed: int = 0, base_rate: float = 0.05) -> None:
        if not 0 < base_rate < 1:
            raise ValueError(f"base_rate {base_rate}: expected a share between 0 and 1, such as 0.05")
        self.seed, self.base_rate = seed, base_rate
        self._labels: tuple[Any, Any] = (False, True)
        self._assembler = Assembler(SHAPE)
        self._trainer = self._untaught()

    def _untaught(self) -> Trainer:
        return Trainer("settled", 0.0, math.inf, self.seed, SHAPE._replace(base_rate=self.base_rate))

    def learn_one(self, x: Mapping[Any, Any], y: Any) -> None:
        """One step on a row and its final label: a bool, or 0 or 1 of any type; ValueError for another."""
        if y not in (0, 1):
            raise ValueError(f"label {y!r}: expected True or False, or 1 or 0")
        self._labels = (type(y)(0), type(y)(1))
        self._trainer.learn(_final(self._assembler.rows([_plain(x)]), float(y)))

    def predict_proba_one(self, x: Mapping[Any, Any], **kwargs: Any) -> dict[Any, float]:
        """P(y | x) of both labels, which are of the type learned last. Features get no lasting places here."""
        p = float(self._trainer.score(deepcopy(self._assembler).rows([_plain(x)])))
        return dict(zip(self._labels, (1 - p, p), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and for disk: the trainer as arrays."""
        tensors = {name: value.numpy() for name, value in self._trainer.tensors().items()}
        return self.__dict__ | {"_trainer": tensors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._trainer = self._untaught()
        self._trainer.restore({name: torch.tensor(value) for name, value in state["_trainer"].items()})


class Contestant:
    """A river classifier where a backtest has a `Trainer`: it learns each final label once, with weight 1.

    Its rows are dicts: 1.0 under "slot:id" of each hashed value, and numbers, as our own model sees them, under "n" and
    their column; what is missing is left out. So classifiers that split on values, or model their spread, learn from
    numbers only: a hashed value is always 1.0 to them. It has no tensors, and cannot go on from a checkpoint.

    Args:
        name: one of `names`; ValueError if not.
        base_rate: every score until both labels have been learned, and where the classifier gives no probability.
        seed: of its random generators, where it has any.
    """

    def __init__(self, name: str, base_rate: float, seed: int) -> None:
        if name not in _classifiers():
            raise ValueError(f"river classifier {name!r}: expected one that can be used as it is: {', '.join(names())}")
        untaught = _classifiers()[name]()
        self.model, self.base_rate = untaught.clone(_seeded(untaught._get_params(), seed)), base_rate
        self.method, self.report, self.version = METHODS["settled"], Report(), 0
        self.auxiliaries: dict[str, Any] = {}
        self.whole = False
        self.moments = features.init(1)  # as wide as the first rows from then on
        self._learned: set[bool] = set()
        self._said = hashlib.sha256()

    def score(self, rows: Rows) -> Tensor:
        """P(y = 1 | x) of R rows, [R] float64 in [1e-7, 1 - 1e-7]."""
        scores = self._chances(self._dicts(rows))
        self._said.update(scores.numpy().tobytes())
        return scores

    def learn(self, batch: Batch) -> Tensor:
        """B looks one after the other, after the moments of their numbers. Returns their weights, ones [B] float32."""
        self.moments = features.update(self.moments, batch.rows.numbers)
        rows = self._dicts(batch.rows)
        scores = self._chances(rows)
        for x, label in zip(rows, (batch.label > 0).tolist(), strict=True):
            self.model.learn_one(x, label)
            self._learned.add(label)
        loss = float(binary_cross_entropy(scores, batch.label.to(torch.float64), reduction="sum"))
        n, cut, t = batch.size, int(clipped(scores).sum()), self.report
        self.report = Report(t.looks + n, t.loss + loss, t.weight + n, t.weight_squared + n, 1.0, t.clipped + cut)
        self.version += 1
        return torch.ones_like(batch.label)

    def observe(self, outcomes: Batch) -> None:
        """Nothing: there are no auxiliary models."""

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def restore(self, found: dict[str, Tensor]) -> None:
        """Nothing: it stays as it is."""

    def digest(self) -> str:
        """sha256 over all scores given so far, in order."""
        return self._said.hexdigest()

    def _dicts(self, rows: Rows) -> list[dict[str, float]]:
        numbers = features.standardise(self.moments, rows.numbers).where(~rows.numbers.isnan(), torch.nan).tolist()
        keys = [f"{slot}:{value}" for slot, value in zip(rows.slots.tolist(), rows.ids.tolist(), strict=True)]
        ptr = rows.ptr.tolist()
        return [
            dict.fromkeys(keys[start:end], 1.0) | {f"n{n}": x for n, x in enumerate(row) if not math.isnan(x)}
            for start, end, row in zip(ptr, ptr[1:], numbers, strict=False)
        ]

    def _chances(self, rows: list[dict[str, float]]) -> Tensor:
        found = [self.base_rate] * len(rows)
        if len(self._learned) == 2:
            found = [(self.model.predict_proba_one(x) or {True: self.base_rate}).get(True, 0.0) for x in rows]
        return torch.tensor(found, dtype=torch.float64).nan_to_num(self.base_rate).clamp(EDGE, 1 - EDGE)


def names() -> list[str]:
    """River's classifiers that a backtest can use as they are: of numbers, without arguments, with probabilities."""
    return list(_classifiers())


@cache
def _classifiers() -> dict[str, Any]:
    from river import dummy, ensemble, facto, forest, linear_model, naive_bayes, neighbors, tree

    modules = (dummy, ensemble, facto, forest, linear_model, naive_bayes, neighbors, tree)
    classes = dict(pair for module in modules for pair in inspect.getmembers(module, inspect.isclass))
    return {name: classes[name] for name in sorted(classes) if name not in UNFIT and _usable(classes[name])}


def _usable(kind: Any) -> bool:
    """A concrete classifier with probabilities and without required arguments, which takes negative numbers."""
    if not issubclass(kind, base.Classifier) or inspect.isabstract(kind):
        return False
    needs = any(p.default is p.empty for p in inspect.signature(kind).parameters.values())
    silent = kind.predict_proba_one is base.Classifier.predict_proba_one
    return not needs and not silent and base.tags.POSITIVE_INPUT not in kind()._tags


def _seeded(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Constructor arguments with every seed set; those of a nested estimator are (class, arguments)."""
    found = params | {"seed": seed} if "seed" in params else dict(params)
    for name, value in params.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
            found[name] = value[0], _seeded(value[1], seed)
    return found


def _plain(x: Mapping[Any, Any]) -> dict[str, Any]:
    """Features by name: finite numbers, texts and lists of texts; what is missing is left out."""
    found: dict[str, Any] = {}
    for name, value in sorted(x.items(), key=lambda item: str(item[0])):
        if isinstance(value, (list, tuple, set, frozenset)):
            found[str(name)] = sorted(str(part) for part in value)
        elif isinstance(value, Real) and not isinstance(value, bool):
            if math.isfinite(value):
                found[str(name)] = float(value)
        elif value is not None:
            found[str(name)] = str(value)
    return found


def _final(rows: Rows, label: float) -> Batch:
    """A look at one row at the end of its window; times do not matter."""
    one, zero = torch.full((1,), label), torch.zeros(1, dtype=torch.float64)
    close, first = torch.full((1,), int(Look.CLOSE)), torch.zeros(1, dtype=torch.int64)
    none = torch.zeros(1, KINDS)
    return Batch(rows, close, first, zero, zero, zero, one, one, zero, none, zero, zero, one, zero, none, none)
