"""Any story of a log gives the same looks and labels: records of several partitions, read in any order, a bit at a time;
duplicates, late ones, retractions, bad bytes; commits, crashes, silence, new partitions, logs that end and grow again. The
oracle knows only the log, and where clocks were raised.
"""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from labelstore import ledger
from labelstore.due import Target
from labelstore.observations import ALL, NEGATIVES, Schedule
from labelstore.stats import digest, sizes
from labelstore.tables import dead_letters, predictions
from learner.model import Shape
from oracle import DAY, Known, Oracle, Row, clock_of, event_of, in_order, plain, read
from strategies import HOUR, T0, adjustments, impressions, journeys, lines, metadata, referring
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import NO_MARKS, ListSource, Partition, Record
from stream.watermark import BEGINNING
from stream.workspace import opened

WINDOW, WAIT = 2 * DAY, 5 * HOUR
BATCH = 4  # looks learned from at once
METHODS = ("pq", "fnw", "settled", "vanilla", "gdfm", "defer", "dfm", "ulc")
SCHEDULES = (
    Schedule(WAIT, True, True),
    Schedule(0, True),
    Schedule(WINDOW),
    Schedule(WAIT),
    Schedule(WAIT, outcomes=True, ages=(12 * HOUR, WINDOW), every=True),
    Schedule(WAIT, True, True, confirm=ALL),
    Schedule(WAIT, True, confirm=NEGATIVES),
    Schedule(WAIT, outcomes=True, deadline=(WAIT + WINDOW) // 2),
)
Log = dict[Partition, list[Record]]

events = st.one_of(impressions(), impressions(), referring(), referring(), adjustments(), metadata())
MOST = 3  # partitions
places = st.integers(0, MOST - 1)
stray = st.tuples(events, st.integers(-40, 3)).map(lambda one: [one])
polls = st.lists(st.tuples(places, st.integers(0, 12)), min_size=1, max_size=5)
happenings = st.lists(st.one_of(stray, journeys(), journeys()), min_size=2, max_size=6)


class Pause(Exception):
    """The story goes on elsewhere."""


class Told(ListSource):
    """A log in memory that is read as told, may grow, and knows that a partition has ended only once it was read to there.

    ``next``: (partition, how many records) of the polls to come; without them the reader is left. ``quiet``: silent ones.
    """

    def __init__(self, log: Log) -> None:
        super().__init__({})
        self._log = {place: log[place] for place in sorted(log)}
        self.next: list[tuple[Partition, int]] = []
        self.over = False
        self.quiet: frozenset[Partition] = frozenset()
        self.seek({})

    def add(self, place: Partition, records: list[Record]) -> None:
        """A partition that is new."""
        self._log[place], self._next[place] = records, 0

    def seek(self, offsets: Mapping[Partition, int], marks: Mapping[Partition, str] = NO_MARKS) -> None:
        super().seek(offsets, marks)
        self.ended: frozenset[Partition] = frozenset()

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        if not self.next:
            raise Pause
        place, count = self.next.pop(0)
        found = super().poll(count, frozenset(p for p in self._log if p != place) | paused)
        self.ended = super().exhausted() if self.over else frozenset()
        return found

    def exhausted(self) -> frozenset[Partition]:
        return self.ended

    def silent(self) -> frozenset[Partition]:
        return self.quiet


class Recording(Target):
    """Remembers the looks that were taken."""

    taken: list[Row]

    def due(self, start: int, stop: int) -> Any:
        for page in super().due(start, stop):
            self.taken += plain([page])
            yield page


class Raised(NamedTuple):
    """The clock of a partition is at least ``time`` from its record at ``offset`` on; ``told`` if the journal says so."""

    offset: int
    time: int
    told: bool


class Commit(NamedTuple):
    """What the story knows of the last commit."""

    positions: dict[Partition, int]
    watermark: int
    taken: int
    raised: dict[Partition, list[Raised]]


class Story(RuleBasedStateMachine):
    """One log, one store, and whoever reads, stops and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.folder = ExitStack(), TemporaryDirectory(prefix="belated-")
        self.log: Log = {}
        self.raised: dict[Partition, list[Raised]] = {}
        self.taken: list[Row] = []
        self.hour = 0
        self.last: Commit | None = None

    @initialize(parts=st.integers(1, 2), lateness=st.sampled_from([0, 6 * HOUR]), keep=st.sampled_from([0, 400 * DAY]))
    def begin(self, parts: int, lateness: int, keep: int) -> None:
        self.settings = Settings(methods=METHODS, window=WINDOW, wait=WAIT, lateness=lateness, keep=keep)
        self.log |= {Partition("events", n): [] for n in range(parts)}
        self.open()

    # what happens to the log -----------------------------------------------------------------------------------------

    def place(self, number: int) -> Partition:
        return sorted(self.log)[number % len(self.log)]

    def append(self, place: Partition, value: bytes, timestamp: int | None = None) -> None:
        self.log[place].append(Record(*place, len(self.log[place]), timestamp, None, value))

    @rule(
        step=st.integers(0, 12), told=happenings, where=st.lists(places, min_size=1, max_size=5), ordered=st.booleans()
    )
    def happen(self, step: int, told: list[list[tuple[dict[str, Any], int]]], where: list[int], ordered: bool) -> None:
        """Events around now, which moves on. They come in the order of time, or journey by journey: then most are late."""
        self.hour += step
        found = [one for journey in told for one in journey]
        for n, (event, hour) in enumerate(sorted(found, key=lambda one: one[1]) if ordered else found):
            at = T0 + max(0, self.hour + hour) * HOUR
            self.append(self.place(where[n % len(where)]), lines([event | {"at": at}])[0])

    @rule(
        step=st.integers(0, 12), told=happenings, where=st.lists(places, min_size=1, max_size=5), cut=st.integers(1, 9)
    )
    def live(self, step: int, told: list[list[tuple[dict[str, Any], int]]], where: list[int], cut: int) -> None:
        """Events in the order of time, each read soon after it has happened."""
        self.happen(step=step, told=told, where=where, ordered=True)
        self.catch_up(order=list(range(MOST)), step=cut)

    @rule(days=st.integers(4, 40))
    def much_later(self, days: int) -> None:
        """Nothing happens for days."""
        self.hour += 24 * days

    @rule(number=places, event=impressions(), value=st.binary(max_size=20), again=st.integers(0, 3), data=st.data())
    def noise(self, number: int, event: dict[str, Any], value: bytes, again: int, data: st.DataObject) -> None:
        """A record that cannot be read, one that is more than a day ahead of itself, some that were there before."""
        self.append(self.place(number), b"{" + value)
        self.append(self.place(number), lines([event])[0], event["at"] - DAY - 1)
        everything = [record.value for records in self.log.values() for record in records]
        for _ in range(again):
            self.append(self.place(number + again), data.draw(st.sampled_from(everything)))

    # what the reader does --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Go on from the last commit; partitions it does not know start at its watermark."""
        self.raised = {place: [] for place in self.log}
        if self.last:
            new = {
                place: [Raised(0, self.last.watermark, True)] for place in self.log if place not in self.last.positions
            }
            self.raised |= {place: list(times) for place, times in self.last.raised.items()} | new
        del self.taken[self.last.taken if self.last else 0 :]
        store, checkpoints = self.stack.enter_context(opened(f"sqlite:///{self.folder.name}/s.db", self.settings))
        self.source = Told(self.log)
        self.loop = Loop(self.source, self.settings, store, checkpoints)
        self.loop.target = Recording(store.connection, "purchase", WINDOW, self.loop.target.schedules)
        self.loop.target.taken = self.taken
        assert self.loop.target.schedules == SCHEDULES

    def go(self, *polls: tuple[Partition, int]) -> bool:
        """Read as told. True if the log has come to its end, which is a commit."""
        self.source.next = list(polls)
        try:
            self.loop.run()
        except Pause:
            return False
        end = self.watermark
        for place, records in self.log.items():
            self.raised[place].append(Raised(len(records), end, False))
        self.remember()
        return True

    @rule(polls=polls)
    def read_some(self, polls: list[tuple[int, int]]) -> None:
        """Some records of a partition, then of another; none of one that is paused."""
        self.read_polls(polls)

    @rule(order=st.permutations(range(MOST)), step=st.integers(1, 12))
    def catch_up(self, order: list[int], step: int) -> None:
        """All there is, by turns."""
        rounds = 1 + max(len(records) for records in self.log.values()) // step
        self.read_polls([(number, step) for _ in range(rounds) for number in order])

    @precondition(lambda self: self.last is None or self.last.positions != self.source.positions())
    @rule()
    def commit(self) -> None:
        """Everything until here is durable."""
        self.loop.commit()
        for place in self.source.ended:
            self.raised[place].append(Raised(len(self.log[place]), self.watermark, False))
        self.remember()
        self.kept()

    def remember(self) -> None:
        raised = {place: list(times) for place, times in self.raised.items()}
        self.last = Commit(self.source.positions(), self.watermark, len(self.taken), raised)

    @rule(new=st.booleans())
    def crash(self, new: bool) -> None:
        """What was not committed is gone. There may be a new partition by then."""
        self.stack.close()
        if new and len(self.log) < MOST:
            self.log[Partition("events", len(self.log))] = []
        self.open()

    @precondition(lambda self: len(self.log) < MOST)
    @rule()
    def appear(self) -> None:
        """A partition is added to the log while it is read: it starts at the watermark."""
        place, now = Partition("events", len(self.log)), self.watermark
        self.log[place], self.raised[place] = [], [Raised(0, now, True)] if now > BEGINNING else []
        self.source.add(place, self.log[place])
        self.go((place, 0))

    @rule(numbers=st.sets(places, min_size=1, max_size=3))
    def silence(self, numbers: set[int]) -> None:
        """Partitions that were read to their end are silent: their clocks go to the slowest of the others."""
        ends = {place for place, n in self.source.positions().items() if n == len(self.log[place])}
        self.source.quiet = frozenset(self.place(number) for number in numbers) & ends
        others = [self.clock(place) for place in self.log if place not in self.source.quiet]
        for place in self.source.quiet:
            if self.clock(place) < min(others, default=BEGINNING):
                self.raised[place].append(Raised(len(self.log[place]), min(others), True))
        self.go((self.place(0), 0))
        self.source.quiet = frozenset()

    @rule(
        polls=polls, commit=st.booleans(), crash=st.booleans(), grows=st.booleans(), rest=st.lists(places, max_size=4)
    )
    def end(self, polls: list[tuple[int, int]], commit: bool, crash: bool, grows: bool, rest: list[int]) -> None:
        """Nothing more comes: partitions that were read to their end hold nothing back. Somewhere on the way there may be a
        commit and a crash, after which the log may go on all the same; else it is read to its end, and then goes on."""
        self.source.over = True
        done = self.read_polls(polls)
        if commit and not done:
            self.commit()
        if crash and not done:
            self.crash(new=False)
            self.source.over = not grows
        if not done and self.source.over:
            self.read_rest(rest)
        self.agrees()
        self.crash(new=False)

    def read_polls(self, polls: list[tuple[int, int]]) -> bool:
        return self.go(*[(self.place(number), count) for number, count in polls])

    def read_rest(self, numbers: list[int]) -> None:
        """The rest of the log, some partitions first, to its end."""
        self.source.over = True
        rest = [(place, 3) for _ in range(200) for place in self.log]
        assert self.go(*[(self.place(number), 2) for number in numbers], *rest)
        self.agrees()
        self.kept()

    # what must be so -------------------------------------------------------------------------------------------------

    def clock(self, place: Partition) -> int:
        """Of a partition, where it has been read to."""
        n = self.source.positions()[place]
        raised = [time for offset, time, _ in self.raised[place] if offset <= n]
        clock = clock_of(self.log[place][:n], self.settings.lateness, raised)
        return BEGINNING if clock is None else clock

    @property
    def watermark(self) -> int:
        """The slowest clock of the partitions that have not ended; 1 ms past everything where all have."""
        if self.source.ended >= set(self.log):
            known = [k.known_at + 1 for k in self.facts()]
            raised = [time for times in self.raised.values() for _, time, _ in times]
            return max([BEGINNING + 1, *known, *raised])
        return min(self.clock(place) for place in self.log if place not in self.source.ended)

    def facts(self) -> list[Known]:
        """Every record of the log that can be read, in the one order."""
        found = []
        for place, records in self.log.items():
            found += read(records, self.settings.lateness, [(offset, time) for offset, time, _ in self.raised[place]])
        return in_order(found)

    def oracle(self) -> Oracle:
        facts = [(known.known_at, known.event) for known in self.facts()]
        return Oracle(facts, SCHEDULES, WINDOW, self.settings.kept)

    @invariant()
    def agrees(self) -> None:
        """Looks so far, labels, and every count are those of the oracle, which knows the whole log at once."""
        if not self.log:
            return
        oracle, watermark = self.oracle(), self.watermark
        assert self.loop.passed == watermark
        assert self.taken == [row for row in oracle.looks if row[0] < watermark]
        self.accounted(oracle, watermark)
        settled = oracle.settled(watermark - watermark % DAY)
        for told in ledger.read_metrics(self.loop.store.connection).values():
            assert {hour: (sums.rows, sums.positives) for hour, sums in told.items()} == settled
        assert self.loop.validation.funnel[""] == [
            sum(column) for column in zip((0, 0), *settled.values(), strict=True)
        ]

    def accounted(self, oracle: Oracle, watermark: int) -> None:
        """What was read has passed, was repeated, waits, or is a dead letter."""
        positions = self.source.positions()
        seen = [k for k in self.facts() if k.place[2] < positions[Partition(*k.place[:2])]]
        expected = oracle.counts(watermark)
        expected["read"] = sum(positions.values())
        expected["dead_letters"] = expected["read"] - len(seen)
        expected["late"] = sum(k.late for k in seen)
        assert +Counter(self.loop.counts) == +expected
        passed = sum(expected[name] for name in PASSED)
        assert passed + sum(k.known_at >= watermark for k in seen) == len(seen)

    def kept(self) -> None:
        """After a commit: scores, dead letters with a reason, and what waits."""
        connection, rows = self.loop.store.connection, sizes(self.loop.store.connection)
        P, D = predictions.c, dead_letters.c
        given = {
            (seq, n): version for seq, n, version in connection.execute(select(P.impression, P.learner, P.version))
        }
        assert given.items() <= self.versions().items()
        assert len(given) == len(METHODS) * rows["impressions"]
        kept = connection.execute(select(D.topic, D.partition, D.offset, D.value).where(D.reason != ""))
        read = [r for place, n in self.source.positions().items() for r in self.log[place][:n]]
        bad = [r for r in read if event_of(r) is None]
        assert sorted(tuple(row) for row in kept) == sorted((*r[:3], r.value) for r in bad)
        assert rows["waiting"] == self.loop.counts["read"] - sum(self.loop.counts[n] for n in (*PASSED, "dead_letters"))

    def versions(self) -> dict[tuple[int, int], int]:
        """(impression, learner) -> the steps its model had made when it scored: those of looks before it was known."""
        oracle = self.oracle()
        numbers = range(len(METHODS))
        steps = {n: [row[0] for row in oracle.looks if row[3] == n and row[4]][BATCH - 1 :: BATCH] for n in numbers}
        return {(place + 1, n): bisect_left(steps[n], known) for place, known, _ in oracle.shown for n in steps}

    def teardown(self) -> None:
        """A log that never grew past an end: tables and learners are, to the byte, those of an undisturbed replay."""
        if self.log:
            self.read_rest([])
            grown = [(p, one) for p, all_ in self.raised.items() for one in all_ if one.offset < len(self.log[p])]
            if all(one.told for _, one in grown):
                assert state(self.loop) == self.undisturbed()
        self.stack.close()
        self.folder.cleanup()

    def undisturbed(self) -> tuple[str, list[str]]:
        """The log as it is now, in one go, with the journal."""
        source = ListSource({place: records for place, records in self.log.items()}, self.journal())
        with opened(None, self.settings) as (store, checkpoints):
            loop = Loop(source, self.settings, store, checkpoints)
            loop.run()
            return state(loop)

    def journal(self) -> list[ledger.Advance]:
        return ledger.load_journal(self.loop.store.connection)


PASSED = ("impressions", "signals", "conversions", "adjustments", "items", "duplicates")


def state(loop: Loop) -> tuple[str, list[str]]:
    """Digests of the tables and of every learner."""
    return digest(loop.store.connection), [learner.trainer.digest() for learner in loop.learners]


def small(base_rate: float = 0.05) -> Shape:
    """Sizes are multiples of 8: else the last bit of a score depends on the row's place in its block."""
    return Shape(buckets=64, slots=4, numbers=8, width=4, hidden=(32, 16), base_rate=base_rate)


def test_any_story_gives_the_same_looks_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks, labels, counts and dead letters equal the oracle's after every step of any story; the end is the same bytes.

    Models, batches and the number of records that may wait are small, so that a short story meets all their bounds.
    """
    sizes = {
        "stream.reading.AHEAD": 9,
        "stream.loop.BLOCK": 5,
        "learner.trainer.BLOCK": 16,
        "stream.learning.BATCH": BATCH,
        "stream.validation.STEPS": 64,
        "stream.loop.Shape": small,
        "stream.learning.Shape": small,
        "stream.pace.PATIENCE": float("inf"),
    }
    for name, value in sizes.items():
        monkeypatch.setattr(name, value)
    examples = int(os.environ.get("BELATED_STORIES", "30"))
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            derandomize="BELATED_STORIES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            deadline=None,
        ),
    )
