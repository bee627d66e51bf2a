"""One learner in the stream: which impressions it has yet to score, which looks it has yet to learn from.

Batches are cut by count, never by poll, page or checkpoint: a learner steps when `BATCH` looks are there, wherever they
came from. Outcomes are handed to its auxiliary models in blocks of at most `BATCH`, and all of them before each step.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelstore.observations import Look, Observations, Schedule
from labelstore.store import LabelStore
from learner.batch import Batch, Rows, cat, cat_rows, restore, tensors
from learner.model import Shape
from learner.schedules import Looks
from learner.trainer import BATCH, Trainer
from stream.checkpoint import CheckpointError
from stream.settings import RIVER, Settings

if TYPE_CHECKING:
    from stream.river import Contestant

PRETRAINED = "pretrained"
UNUSED = re.compile(r"\d+\.(looks|outcomes)\.impression")


class Unscored:
    """Impressions that have passed, and that not every learner has scored."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """All have been scored."""
        self.seq = self.known_at = np.empty(0, dtype=np.int64)
        self.rows: Rows | None = None

    def add(self, seq: list[int], known_at: list[int], rows: Rows) -> None:
        """Impressions that have just passed, in order."""
        self.seq = np.concatenate([self.seq, np.array(seq, dtype=np.int64)])
        self.known_at = np.concatenate([self.known_at, np.array(known_at, dtype=np.int64)])
        self.rows = rows if self.rows is None else cat_rows([self.rows, rows])


class Learner:
    """A trainer with what it has been given and not used yet.

    Args:
        number: its place among the learners of the run.
        name: a method, or a classifier of river's, or `PRETRAINED`: final labels of a pre-training, and no more.
    """

    def __init__(self, number: int, name: str, settings: Settings, store: LabelStore, unscored: Unscored) -> None:
        elapsed, window = settings.wait / 1000, settings.window / 1000
        self.number, self.name, self._store, self._unscored = number, name, store, unscored
        self.trainer: Trainer | Contestant = _trainer(name, settings)
        looks = self.trainer.method.looks(elapsed, window)
        self.schedule = _schedule(looks, outcomes=bool(self.trainer.method.auxiliaries))
        self.looks: list[Batch] = []  # fewer than BATCH looks in all
        self.outcomes: list[Batch] = []
        self.scored = 0  # of the unscored impressions, these are done

    def score(self, count: int) -> None:
        """Score the first ``count`` of the unscored impressions, and store what was said before it can be learned from."""
        if count <= self.scored or self._unscored.rows is None:
            return
        scores = self.trainer.score(self._unscored.rows.take(torch.arange(self.scored, count)))
        seqs = self._unscored.seq[self.scored : count]
        self._store.keep_predictions(self.number, seqs, scores.numpy(), self.trainer.version)
        self.scored = count

    def walk(self, seen: Observations, batch: Batch, place: int, may: NDArray[np.bool_], hear: bool = True) -> None:
        """Take this learner's looks and outcomes from a page, in order; ``place`` is its schedule's.

        ``may``: which looks it may learn from. ``hear``: auxiliary models hear of all outcomes, once.
        """
        mine = seen.schedule == place
        known = (seen.look == Look.CONVERSION) | (seen.look == Look.CLOSE) | ~seen.learn
        if self.trainer.whole:
            known |= seen.look == Look.FIRST
        looks = np.flatnonzero(mine & seen.learn & may)
        outcomes = np.flatnonzero(mine & known) if self.schedule.outcomes and hear else looks[:0]
        while len(looks) or len(outcomes):
            cut, full = self._next_cut(looks, outcomes)
            heard, outcomes = np.split(outcomes, [np.searchsorted(outcomes, cut, side="right")])
            taken, looks = np.split(looks, [np.searchsorted(looks, cut, side="left" if full else "right")])
            _append(self.outcomes, batch, heard)
            _append(self.looks, batch, taken)
            if cut < len(seen.at):
                self._observe()
                if not full:
                    self._learn(int(seen.at[cut]))

    def _next_cut(self, looks: NDArray[np.int64], outcomes: NDArray[np.int64]) -> tuple[int, bool]:
        """The row at which something is full, and whether that is the block of outcomes (it goes first)."""
        end = 2**62
        need = BATCH - sum(part.size for part in self.looks)
        look = int(looks[need - 1]) if len(looks) >= need else end
        need = BATCH - sum(part.size for part in self.outcomes)
        outcome = int(outcomes[need - 1]) if len(outcomes) >= need else end
        return (outcome, True) if outcome <= look < end or look == end else (look, False)

    def _observe(self) -> None:
        if self.outcomes:
            self.trainer.observe(cat(self.outcomes))
            self.outcomes.clear()

    def _learn(self, now: int) -> None:
        """One step, after scoring every impression that was known by then."""
        self.score(int(np.searchsorted(self._unscored.known_at, now, side="right")))
        batch = cat(self.looks)
        self.looks.clear()
        columns: dict[str, Tensor] = {
            "impression": batch.impression,
            "look": batch.look,
            "at": (batch.at * 1000).round().to(torch.int64),
            "label": batch.label.to(torch.int64),
            "weight": self.trainer.learn(batch).to(torch.float64),
        }
        self._store.keep_looks(self.number, {name: column.numpy() for name, column in columns.items()})

    def start_from(self, pretrained: "Learner") -> bool:
        """Take over the weights of a pre-training. False for river's classifiers, which have learned by themselves."""
        if isinstance(self.trainer, Trainer) and isinstance(pretrained.trainer, Trainer):
            self.trainer.adopt(pretrained.trainer)
            return True
        return False

    def learn_rest(self, now: int) -> None:
        """One step on the looks that are left, however few."""
        if self.looks:
            self._observe()
            self._learn(now)

    def tensors(self) -> dict[str, Tensor]:
        """The trainer, and the looks and outcomes it has not used yet."""
        found = {f"trainer.{name}": value for name, value in self.trainer.tensors().items()}
        for name, waiting in (("looks", self.looks), ("outcomes", self.outcomes)):
            if waiting:
                found |= {f"{name}.{column}": value for column, value in tensors(cat(waiting)).items()}
        return found

    def restore(self, found: dict[str, Tensor]) -> None:
        """Go on from `tensors`.

        Raises:
            CheckpointError: another version of the method wrote them.
        """
        mine, written = ({k: v.shape for k, v in part.items()} for part in (self.tensors(), found))
        if other := sorted(name for name, shape in mine.items() if written.get(name) != shape):
            raise CheckpointError(
                f"the checkpoint holds {self.name} as another version of belated knew it ({other[0]} differs); "
                "go on with that version, or rebuild by replaying the log into a new --store"
            )
        self.trainer.restore(_below("trainer.", found))
        for name, waiting in (("looks", self.looks), ("outcomes", self.outcomes)):
            if columns := _below(f"{name}.", found):
                waiting[:] = [restore(columns)]


def without(found: dict[str, Tensor], impressions: Collection[int]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without the unused looks at these impressions and the outcomes of them."""
    left = dict(found)
    for prefix in [name.removesuffix("impression") for name in found if UNUSED.fullmatch(name)]:
        columns = _below(prefix, found)
        stay = ~torch.isin(columns["impression"], torch.tensor(sorted(impressions), dtype=torch.int64))
        kept = tensors(restore(columns).take(torch.nonzero(stay).flatten()))
        for name in columns:
            del left[prefix + name]
        left |= {prefix + name: value for name, value in kept.items() if stay.any()}
    return left


def _trainer(name: str, settings: Settings) -> "Trainer | Contestant":
    if name.startswith(RIVER):
        from stream.river import Contestant

        return Contestant(name.removeprefix(RIVER), settings.base_rate, settings.seed)
    method = "settled" if name == PRETRAINED else name
    shape = Shape(base_rate=settings.base_rate)
    return Trainer(method, settings.wait / 1000, settings.window / 1000, settings.seed, shape)


def _schedule(looks: Looks, outcomes: bool) -> Schedule:
    """A method's looks as the label store is asked for them: times in ms."""
    ages = tuple(round(age * 1000) for age in looks.ages)
    first, deadline = round(looks.first * 1000), round(looks.deadline * 1000)
    return Schedule(first, looks.conversion, outcomes, looks.hindsight, ages, looks.every, looks.confirm, deadline)


def _append(waiting: list[Batch], batch: Batch, index: NDArray[np.int64]) -> None:
    if len(index):
        waiting.append(batch.take(torch.from_numpy(index)))


def _below(prefix: str, found: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
