"""The loop: reads the log, lets records pass as the watermark moves, asks what is due, hands it to the learners, commits.

Event time advances in spans that end at the watermark or at midnight, whichever comes first. In each span, records pass
first; then looks are taken in their one order, and before a learner steps it scores every impression known by then.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from labelstore.events import Signal
from labelstore.retention import DAY
from labelstore.store import LabelStore
from learner.model import Shape
from learner.trainer import BLOCK
from stream.assemble import Assembler, with_graph
from stream.checkpoint import Checkpoints
from stream.forwarding import Outbox
from stream.learning import Learner, Unscored
from stream.pace import Pace
from stream.pretraining import Pretraining
from stream.progress import Numbers
from stream.reading import Reading
from stream.refresh import Refresh
from stream.settings import Settings
from stream.sources import Source
from stream.truth import Truth
from stream.validation import Validation
from stream.watermark import BEGINNING


class Loop:
    """A run over a log, from its beginning or from the last commit.

    Args:
        source: the log. settings: what is asked. store, checkpoints: where facts and weights are kept.
        poll: records read at a time. every: records read between commits. Neither can change a result.
        hindsight: what a first pass found, for methods that may know it. truth: of a simulated log.
        every_s: seconds between commits, of the machine's clock. outbox: where dead letters are forwarded.
        aside: the product graph is learned in a process of its own.
        finished: where the log ends, time does. A part of a live one leaves what waits waiting, as the live run did.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        store: LabelStore,
        checkpoints: Checkpoints,
        poll: int = 5000,
        every: int = 200_000,
        hindsight: frozenset[tuple[str, int]] = frozenset(),
        truth: Truth | None = None,
        every_s: float = float("inf"),
        outbox: Outbox | None = None,
        aside: bool = False,
        finished: bool = True,
    ) -> None:
        self.source, self.settings, self.store = source, settings, store
        self._checkpoints, self._poll, self._outbox, self._pace = checkpoints, poll, outbox, Pace(every, every_s)
        self.counts: Counter[str] = Counter()
        self.reading = Reading(source, settings, self.counts, finished)
        self.assembler = Assembler(Shape())
        self.unscored = Unscored()
        self.pretraining = Pretraining(settings)
        self.graph = Refresh(settings, store, checkpoints, source.swaps(), aside)
        self.learners = [Learner(n, name, settings, store, self.unscored) for n, name in enumerate(settings.learners)]
        self._schedules = list(dict.fromkeys(learner.schedule for learner in self.learners))
        self.target = store.target(settings.target, self._schedules, hindsight)
        self.validation = Validation(settings.learners, settings.window, truth)
        self._passed = BEGINNING  # everything with known_at below it has passed
        self._midnight = BEGINNING  # the last one that was passed
        self._last = BEGINNING  # known_at of the last record that passed
        self.numbers = Numbers({}, 0, BEGINNING, BEGINNING, 0, 0.0)
        self._resume()
        self._pace.committed(self._passed)
        self._measure(checkpoints.made)

    def run(self, told: Callable[[int], None] = lambda read: None, stop: Callable[[], bool] = lambda: False) -> None:
        """Read the log to its end, or a live one until ``stop`` says so, and commit.

        ``told`` hears how many records have been read in all. Where it was stopped, what is pending stays pending: whoever
        goes on from the commit ends with the same bytes.
        """
        self._checkpoints.forward(self._outbox)
        self._pace.stop = stop
        while not (over := self.reading.over) and not stop():
            self._pace.turn(self.reading.read(self._poll, self._passed))
            self._advance(self.reading.clocks.value)
            told(self.counts["read"])
            self._measure()
            if self._pace.due(self.reading.unsaved, self._passed):
                self.commit()
        if over:
            self._pace.hurry()
            self._advance(self.reading.finish())
        self.commit()

    def _advance(self, watermark: int) -> None:
        """Everything with known_at below the watermark passes, span by span.

        The first span begins at a midnight before all that may pass: once the watermark has moved, no record still to
        come is known before it.
        """
        if self._passed == BEGINNING < watermark:
            first = min(self.reading.waiting.first() or watermark, watermark)
            self._passed = self._midnight = first - first % DAY
        if self._passed == BEGINNING:
            return
        self.graph.swap(self._passed)
        while self._passed < watermark and not self._pace.enough():
            self._skip(watermark)
            midnight = self._midnight + DAY
            stop = min(watermark, midnight, self.graph.next_swap)
            if stop == midnight and self.graph.waits(midnight):
                break
            if self._passed < self.pretraining.stream < stop:
                stop = self.pretraining.stream
            self._pass(stop)
            self._passed = stop
            if stop >= self.pretraining.stream and not self.pretraining.over:
                self._begin_stream()
            if stop == midnight:
                self._close_day(midnight)
            self.graph.swap(stop)

    def _begin_stream(self) -> None:
        """The pre-training is over: every learner starts from its weights, and takes the looks of the gap."""
        pretrained, *others = self.learners
        pretrained.learn_rest(self._passed)
        starting = [learner for learner in others if learner.start_from(pretrained)]
        for seen in self.target.due_by_days(self.pretraining.until, self.pretraining.stream):
            batch = self.assembler.batch(seen)
            for learner in starting:
                place = self._schedules.index(learner.schedule)
                learner.walk(seen, batch, place, self.pretraining.of_gap(seen), hear=False)
        self.pretraining.over = True

    def _skip(self, watermark: int) -> None:
        """Over days in which nothing can happen: everything known has been settled and deleted."""
        first = self.reading.waiting.first()
        until = watermark if first is None else min(watermark, first)
        if self._passed == self._midnight and self._last + self.store.keep + 2 * DAY < self._passed < until - DAY:
            self._passed = self._midnight = until - until % DAY
            self.graph.skip(self._midnight)

    def _pass(self, stop: int) -> None:
        """One span: records, then looks."""
        facts = self.reading.waiting.take(stop)
        if facts:
            self._last = facts[-1][0]
            shown, counts = self.store.pass_on(facts, self.graph.features(facts))
            self.counts += counts
            self.assembler.meet(event.kind for _, event in facts if isinstance(event, Signal))
            if shown:
                self.pretraining.begin(shown[0].impression.at)
                rows = self.assembler.rows(
                    with_graph(row.impression.features, row.graph) for row in shown
                )  # all: by passing
                judged = [n for n, row in enumerate(shown) if row.impression.at >= self.pretraining.stream]
                seqs, known_at = [shown[n].seq for n in judged], [shown[n].known_at for n in judged]
                self.unscored.add(seqs, known_at, rows.take(torch.tensor(judged, dtype=torch.int64)))
        for seen in self.target.due(self._passed, stop):
            batch = self.assembler.batch(seen)
            for learner in self.learners:
                may = self.pretraining.learns(learner.name, seen)
                hear = not (self.settings.frozen and self.pretraining.over)
                learner.walk(seen, batch, self._schedules.index(learner.schedule), may, hear)
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
        self.graph.close_day(midnight)
        self.store.forget_before(midnight)
        self._midnight = midnight

    def settle_rest(self) -> None:
        """For a report: also judge the rows settled since midnight. Must not be followed by a commit."""
        self.validation.settle(self.store.connection, self.target, self._midnight, self._passed)

    @property
    def passed(self) -> int:
        """Event time up to which everything has passed, ms."""
        return self._passed

    def _measure(self, committed_at: float | None = None) -> None:
        """Set ``numbers``, which another thread may read at any time."""
        reading, at = self.reading, self.numbers.committed_at if committed_at is None else committed_at
        self.numbers = Numbers(
            dict(self.counts), len(reading.waiting), reading.clocks.value, self._passed, self._checkpoints.n, at
        )

    # commit and resume ----------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything up to here durable, as one, see `stream.checkpoint`; then forward dead letters."""
        self._score_all()
        self.reading.save(self.store.connection, self._passed)
        self.graph.save()
        tensors = {f"{n}.{k}": v for n, learner in enumerate(self.learners) for k, v in learner.tensors().items()}
        tensors |= {f"counts.{name}": torch.from_numpy(value) for name, value in self.validation.arrays().items()}
        self._checkpoints.save(tensors, self._progress())
        self.source.commit(self.reading.offsets)
        self._checkpoints.forward(self._outbox)
        self._pace.committed(self._passed)
        self._measure(time.time())

    def _progress(self) -> dict[str, Any]:
        return {
            **self.reading.state(),
            "seq": self.store.seq,
            "passed": self._passed,
            "midnight": self._midnight,
            "last": self._last,
            "counts": dict(self.counts),
            "features": self.assembler.state(),
            "funnel": self.validation.funnel,
            "pretraining": self.pretraining.state(),
            **self.graph.state(),
        }

    def _resume(self) -> None:
        found = self._checkpoints.load()
        if found is None:
            self.reading.begin()
            return
        tensors, progress = found
        self.reading.restore(progress, self.store.connection)
        self._passed, self._midnight, self._last = progress["passed"], progress["midnight"], progress["last"]
        self.store.seq = progress["seq"]
        self.counts.update(progress["counts"])
        self.assembler.restore(progress["features"])
        self.pretraining.restore(progress["pretraining"])
        counts = {k.removeprefix("counts."): v.numpy() for k, v in tensors.items() if k.startswith("counts.")}
        self.validation.restore(counts, progress["funnel"])
        for n, learner in enumerate(self.learners):
            learner.restore({k.removeprefix(f"{n}."): v for k, v in tensors.items() if k.startswith(f"{n}.")})
        self.graph.restore(progress)  # at last: it may begin a process, which nobody would end
