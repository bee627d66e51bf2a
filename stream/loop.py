"""The loop: reads the log, lets records pass as the watermark moves, asks what is due, hands it to the learners, commits.

Event time advances in spans that end at the watermark or at midnight, whichever comes first. In each span, records pass
first; then looks are taken in their one order, and before a learner steps it scores every impression known by then.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from labelstore import ledger
from labelstore.events import Signal
from labelstore.retention import DAY
from labelstore.store import LabelStore
from learner.model import Shape
from learner.trainer import BLOCK
from stream.assemble import Assembler
from stream.checkpoint import Checkpoints
from stream.codec import Codec, DeadLetter
from stream.learning import Learner, Unscored
from stream.pretraining import Pretraining
from stream.settings import Settings
from stream.sources import Partition, Record, Source
from stream.truth import Truth
from stream.validation import Validation
from stream.waiting import WaitingRoom
from stream.watermark import BEGINNING, Watermark

AHEAD = 50_000  # waiting records from which on only the slowest partitions are read


class Loop:
    """A run over a log, from its beginning or from the last commit.

    Args:
        source: the log. settings: what is asked. store, checkpoints: where facts and weights are kept.
        poll: records read at a time. every: records read between commits. Neither can change a result.
        hindsight: what a first pass found, for methods that may know it. truth: of a simulated log.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        store: LabelStore,
        checkpoints: Checkpoints,
        poll: int = 5000,
        every: int = 200_000,
        hindsight: frozenset[int] = frozenset(),
        truth: Truth | None = None,
    ) -> None:
        self.source, self.settings, self.store = source, settings, store
        self._checkpoints, self._poll, self._every = checkpoints, poll, every
        self.counts: Counter[str] = Counter()
        self.codec = Codec(settings.strict)
        self.clocks = Watermark(source.partitions(), settings.lateness)
        self.assembler = Assembler(Shape())
        self.unscored = Unscored()
        self.pretraining = Pretraining(settings)
        self.learners = [Learner(n, name, settings, store, self.unscored) for n, name in enumerate(settings.learners)]
        self._schedules = list(dict.fromkeys(learner.schedule for learner in self.learners))
        self.target = store.target(settings.target, self._schedules, hindsight)
        self.validation = Validation(settings.learners, settings.window, truth)
        self._offsets: dict[Partition, int] = {}
        self._waiting = WaitingRoom()
        self._letters: list[DeadLetter] = []
        self._passed = BEGINNING  # everything with known_at below it has passed
        self._midnight = BEGINNING  # the last one that was passed
        self._last = BEGINNING  # known_at of the last record that passed
        self._resume()

    def run(self, told: Callable[[int], None] = lambda read: None) -> None:
        """Read the log to its end and commit. ``told`` hears how many records have been read in all."""
        since, everything = 0, frozenset(self.clocks.clocks)
        while not self.source.exhausted() >= everything:
            records = self.source.poll(self._poll, self._paused())
            self.clocks.exhaust(self.source.exhausted())
            for record in records:
                self._read(record)
            self._advance(self.clocks.value)
            told(self.counts["read"])
            since += len(records)
            if since >= self._every:
                self.commit()
                since = 0
        self._advance(self.clocks.finish(self._waiting.last()))
        self.commit()

    def _paused(self) -> frozenset[Partition]:
        """While much is waiting, only the partitions that hold the watermark back are read."""
        if len(self._waiting) < AHEAD:
            return frozenset()
        return frozenset(self.clocks.clocks) - self.clocks.slowest()

    def _read(self, record: Record) -> None:
        place = Partition(record.topic, record.partition)
        self._offsets[place] = record.offset + 1
        self.counts["read"] += 1
        event = self.codec.decode(record)
        if isinstance(event, DeadLetter):
            self.counts["dead_letters"] += 1
            self._letters.append(event)
            return
        known_at, late = self.clocks.read(place, event.at)
        self.counts["late"] += late
        self._waiting.add(record, event, known_at)

    def _advance(self, watermark: int) -> None:
        """Everything with known_at below the watermark passes, span by span.

        The first span begins at a midnight before all that may pass: once the watermark has moved, no record still to
        come is known before it.
        """
        if self._passed == BEGINNING < watermark:
            first = min(self._waiting.first() or watermark, watermark)
            self._passed = self._midnight = first - first % DAY
        if self._passed == BEGINNING:
            return
        while self._passed < watermark:
            self._skip(watermark)
            midnight = self._midnight + DAY
            stop = min(watermark, midnight)
            if self._passed < self.pretraining.stream < stop:
                stop = self.pretraining.stream
            self._pass(stop)
            self._passed = stop
            if stop >= self.pretraining.stream and not self.pretraining.over:
                self._begin_stream()
            if stop == midnight:
                self._close_day(midnight)

    def _begin_stream(self) -> None:
        """The pre-training is over: every learner starts from its weights."""
        pretrained, *others = self.learners
        pretrained.learn_rest(self._passed)
        for learner in others:
            learner.start_from(pretrained)
        self.pretraining.over = True

    def _skip(self, watermark: int) -> None:
        """Over days in which nothing can happen: everything known has been settled and deleted."""
        first = self._waiting.first()
        until = watermark if first is None else min(watermark, first)
        if self._passed == self._midnight and self._last + self.store.keep + 2 * DAY < self._passed < until - DAY:
            self._passed = self._midnight = until - until % DAY

    def _pass(self, stop: int) -> None:
        """One span: records, then looks."""
        facts = self._waiting.take(stop)
        if facts:
            self._last = facts[-1][0]
            shown, counts = self.store.pass_on(facts)
            self.counts += counts
            self.assembler.meet(event.kind for _, event in facts if isinstance(event, Signal))
            if shown:
                self.pretraining.begin(shown[0].impression.at)
                rows = self.assembler.rows(row.impression.features for row in shown)  # all: places go by passing
                judged = [n for n, row in enumerate(shown) if row.impression.at >= self.pretraining.stream]
                seqs, known_at = [shown[n].seq for n in judged], [shown[n].known_at for n in judged]
                self.unscored.add(seqs, known_at, rows.take(torch.tensor(judged, dtype=torch.int64)))
        for seen in self.target.due(self._passed, stop):
            batch = self.assembler.batch(seen)
            for learner in self.learners:
                may = self.pretraining.learns(learner.name, seen)
                learner.walk(seen, batch, self._schedules.index(learner.schedule), may)
        if len(self.unscored.seq) >= BLOCK:
            self._score_all()

    def _score_all(self) -> None:
        for learner in self.learners:
            learner.score(len(self.unscored.seq))
            learner.scored = 0
        self.unscored.clear()

    def _close_day(self, midnight: int) -> None:
        """Judge the rows that were settled that day; delete what is past the horizon."""
        self._score_all()
        self.validation.settle(self.store.connection, self.target, self._midnight, midnight)
        self.store.forget_before(midnight)
        self._midnight = midnight

    def settle_rest(self) -> None:
        """For a report: also judge the rows settled since midnight. Must not be followed by a commit."""
        self.validation.settle(self.store.connection, self.target, self._midnight, self._passed)

    @property
    def passed(self) -> int:
        """Event time up to which everything has passed, ms."""
        return self._passed

    # commit and resume ----------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything up to here durable, as one; see `stream.checkpoint`."""
        self._score_all()
        connection = self.store.connection
        ledger.save_waiting(connection, self._passed, self._waiting.unsaved())
        ledger.save_dead_letters(connection, [{**d.record._asdict(), "reason": d.reason} for d in self._letters])
        self._letters.clear()
        tensors = {f"{n}.{k}": v for n, learner in enumerate(self.learners) for k, v in learner.tensors().items()}
        tensors |= {f"counts.{name}": torch.from_numpy(value) for name, value in self.validation.arrays().items()}
        self._checkpoints.save(tensors, self._progress())
        self.source.commit(self._offsets)

    def _progress(self) -> dict[str, Any]:
        return {
            "offsets": [[*place, offset] for place, offset in sorted(self._offsets.items())],
            **self.clocks.state(),
            "seq": self.store.seq,
            "passed": self._passed,
            "midnight": self._midnight,
            "last": self._last,
            "counts": dict(self.counts),
            "unknown": dict(self.codec.unknown),
            "features": self.assembler.state(),
            "funnel": self.validation.funnel,
            "pretraining": self.pretraining.state(),
        }

    def _resume(self) -> None:
        found = self._checkpoints.load()
        if found is None:
            return
        tensors, progress = found
        self._offsets = {Partition(topic, partition): offset for topic, partition, offset in progress["offsets"]}
        self.clocks.restore(progress["clocks"], progress["latest"], progress["watermark"])
        self._passed, self._midnight, self._last = progress["passed"], progress["midnight"], progress["last"]
        self.store.seq = progress["seq"]
        self.counts.update(progress["counts"])
        self.codec.unknown.update(progress["unknown"])
        self.assembler.restore(progress["features"])
        self.pretraining.restore(progress["pretraining"])
        counts = {k.removeprefix("counts."): v.numpy() for k, v in tensors.items() if k.startswith("counts.")}
        self.validation.restore(counts, progress["funnel"])
        for n, learner in enumerate(self.learners):
            learner.restore({k.removeprefix(f"{n}."): v for k, v in tensors.items() if k.startswith(f"{n}.")})
        self._waiting.restore(ledger.load_waiting(self.store.connection))
        self.source.seek(self._offsets)
