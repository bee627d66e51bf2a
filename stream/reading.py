"""Reading: records of a source become events that wait for the watermark, or dead letters; clocks move with them.

Everything here is part of the next commit, so a run that goes on from it reads each record once.
"""

from collections import Counter
from typing import Any

from sqlalchemy import Connection

from labelstore import ledger
from stream.codec import Codec, DeadLetter
from stream.foreign import Ignored
from stream.journal import Journal
from stream.settings import Settings
from stream.sources import Partition, Record, Source, stood
from stream.waiting import WaitingRoom
from stream.watermark import BEGINNING, Watermark

AHEAD = 50_000  # waiting records from which on no more are read than event time needs to move


class Reading:
    """A source being read from its beginning, or from where `restore` says.

    Args:
        settings: how late records may be, and how they are read.
        counts: told how many records were ``read``, ``late``, ``ignored`` and ``dead_letters``.
        finished: where the source ends, time does; else it is a log that goes on elsewhere, read as far as it is here.
    """

    def __init__(self, source: Source, settings: Settings, counts: Counter[str], finished: bool = True) -> None:
        self.source, self._counts, self._finished = source, counts, finished
        self.codec = Codec(settings.strict, settings.mapping)
        self.clocks = Watermark(source.partitions(), settings.lateness)
        self.waiting = WaitingRoom()
        self.offsets: dict[Partition, int] = {}  # of the next record of each partition
        self._saved: dict[Partition, int] = {}  # those of the last commit
        self._journal = Journal(source.journal())
        self._letters: list[DeadLetter] = []
        self._last: dict[Partition, Record] = {}  # of each partition, since this run began
        self._marks: dict[Partition, str] = {}  # of the last ones before

    def begin(self) -> None:
        """Nothing was read before."""
        self.offsets = self.source.positions()
        self._obey_all()

    @property
    def over(self) -> bool:
        """Whether no record will come any more, or none that may be read. A live log is never over."""
        return self.source.exhausted() >= frozenset(self.clocks.clocks) - self._ahead()

    @property
    def unsaved(self) -> bool:
        """Whether clocks or positions were raised since the last commit, beside what records did."""
        return bool(len(self._journal)) or self.offsets != self._saved

    def read(self, limit: int, passed: int) -> int:
        """Read some records; how many there were. ``passed``: event time up to which everything has passed."""
        self._meet()
        records = self.source.poll(limit, self._paused(passed))
        if self._finished:
            self.clocks.exhaust(self.source.exhausted())
        for record in records:
            self._take(record)
        self.offsets |= self.source.positions()  # past marks of transactions too, which are no records
        for partition, clock in self.clocks.quiet(self.source.silent()).items():
            self._journal.note(partition, self.offsets[partition], clock)
        return len(records)

    def _meet(self) -> None:
        """Partitions that were added to a live log start at the watermark."""
        known, now = self.clocks.clocks, self.source.partitions()
        if len(now) > len(known):
            positions = self.source.positions()
            for partition in now:
                if partition not in known:
                    self.clocks.add(partition)
                    self._start(partition, positions[partition])

    def _start(self, partition: Partition, offset: int) -> None:
        """A partition that is new among others; its clock has been set."""
        self.offsets[partition] = offset
        if self.clocks.clocks[partition] > BEGINNING:
            self._journal.note(partition, offset, self.clocks.clocks[partition])
        self._obey(partition, offset)

    def _ahead(self) -> frozenset[Partition]:
        """While much is waiting, the partitions that do not hold the watermark back."""
        return frozenset(self.clocks.clocks) - self.clocks.slowest() if self._full else frozenset()

    def _paused(self, passed: int) -> frozenset[Partition]:
        """Partitions that are not read: those; all of them while it is event time that holds up what waits."""
        held_up = self._full and passed < self.clocks.value
        return frozenset(self.clocks.clocks) if held_up else self._ahead()

    @property
    def _full(self) -> bool:
        return len(self.waiting) >= AHEAD

    def _take(self, record: Record) -> None:
        place = Partition(record.topic, record.partition)
        self._obey(place, record.offset)
        self.offsets[place], self._last[place] = record.offset + 1, record
        self._counts["read"] += 1
        event = self.codec.decode(record)
        if isinstance(event, DeadLetter):
            self._counts["dead_letters"] += 1
            self._letters.append(event)
        elif isinstance(event, Ignored):
            self._counts["ignored"] += 1
        else:
            known_at, late = self.clocks.read(place, event.at)
            self._counts["late"] += late
            self.waiting.add(self.codec.plain(record, event), event, known_at)
        self._obey(place, record.offset + 1)

    def _obey(self, partition: Partition, offset: int) -> None:
        if (clock := self._journal.obey(partition, offset)) > BEGINNING:
            self.clocks.raise_to(partition, clock)

    def _obey_all(self) -> None:
        for partition in self.clocks.clocks:
            self._obey(partition, self.offsets.get(partition, 0))

    def finish(self) -> int:
        """The log is over; the event time at which it ends, ms. One that is not finished ends at the watermark."""
        return self.clocks.finish(self.waiting.last()) if self._finished else self.clocks.value

    # commit and resume ----------------------------------------------------------------------------------------------

    def save(self, connection: Connection, passed: int) -> None:
        """Write what a commit keeps of it: waiting records, dead letters, the journal."""
        ledger.save_waiting(connection, passed, self.waiting.unsaved())
        ledger.save_dead_letters(connection, [{**d.record._asdict(), "reason": d.reason} for d in self._letters])
        ledger.save_journal(connection, self._journal.unsaved())
        self._letters.clear()
        self._saved = dict(self.offsets)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it beside that."""
        marks = self._marks | {place: self.source.mark(record) for place, record in self._last.items()}
        return {
            "offsets": [[*place, offset] for place, offset in sorted(self.offsets.items())],
            "marks": [[*place, found] for place, found in sorted(marks.items())],
            **self.clocks.state(),
            "unknown": dict(self.codec.unknown),
            "ignored": dict(self.codec.ignored),
        }

    def restore(self, state: dict[str, Any], connection: Connection) -> None:
        """Go on from `state` and the rows of the commit."""
        offsets, self._marks = stood(state)
        self.source.seek(offsets, self._marks)
        self.codec.unknown.update(state["unknown"])
        self.codec.ignored.update(state.get("ignored", {}))
        self.clocks.restore(state["clocks"], state["latest"], state["watermark"])
        self.offsets = self.source.positions()
        self._saved = dict(self.offsets)
        known = {Partition(topic, partition) for topic, partition, _ in state["clocks"]}
        for partition in [p for p in self.clocks.clocks if p not in known]:
            self._start(partition, self.offsets[partition])
        self._obey_all()
        self.waiting.restore(ledger.load_waiting(connection))
