"""Where records come from: the protocol of a source, and published fakes.

`stream.files` reads logs on disk, `stream.kafka_source` topics of a broker.

A log is a set of partitions, each in its own order; nothing orders them against each other.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from labelstore.ledger import Advance, Swap
from labelstore.refusals import BelatedError


class Partition(NamedTuple):
    """One ordered part of a log."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record of a partition, as it was read. ``timestamp`` is in ms, where the log has one."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes


class SourceError(BelatedError):
    """A log that cannot be read; the message names it and the remedy."""


NO_MARKS: Mapping[Partition, str] = MappingProxyType({})


def stood(progress: Mapping[str, Any]) -> tuple[dict[Partition, int], dict[Partition, str]]:
    """Offsets and marks as a checkpoint keeps them: where a source is to go on.

    >>> stood({"offsets": [["events", 0, 7]]})
    ({Partition(topic='events', partition=0): 7}, {})
    """
    offsets, marks = (
        {Partition(topic, number): value for topic, number, value in progress.get(name, [])}
        for name in ("offsets", "marks")
    )
    return offsets, marks


def digest(value: bytes) -> str:
    """Which value it is: a part of its sha256."""
    return hashlib.sha256(value).hexdigest()[:16]


class Source(Protocol):
    """A log being read. Offsets are of the NEXT record."""

    def partitions(self) -> list[Partition]:
        """All partitions, sorted."""

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        """At most ``limit`` further records of the partitions that are not paused; empty when there are none now."""

    def seek(self, offsets: Mapping[Partition, int], marks: Mapping[Partition, str] = NO_MARKS) -> None:
        """Go on from these offsets; partitions not named start at their beginning.

        ``marks``: `mark` of the record before, so that another log is not taken for the one that was read.
        """

    def mark(self, record: Record) -> str:
        """What tells the log of a record from another log: the same whenever it is asked."""

    def positions(self) -> dict[Partition, int]:
        """The offset of the next record of each partition."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the log how far we are: a courtesy to tools that show lag, never read back."""

    def end_offsets(self) -> dict[Partition, int]:
        """One past the last record of each partition."""

    def exhausted(self) -> frozenset[Partition]:
        """Partitions that will never give another record. A live log has none."""

    def silent(self) -> frozenset[Partition]:
        """Live partitions known, as of the last poll, to have given nothing new for long. A finished log has none."""

    def journal(self) -> Sequence[Advance]:
        """How a live run raised the clocks when it read this log. A live log has none: it is being written."""

    def swaps(self) -> Sequence[Swap] | None:
        """When a live run swapped versions of the product graph; None: nobody says, so each as soon as it is learned."""


class ListSource:
    """A published fake: records from memory.

    >>> log = ListSource({("events", 0): [b'{"type":"item"}', b"{}"]})
    >>> [record.offset for record in log.poll(10)], log.exhausted()
    ([0, 1], frozenset({Partition(topic='events', partition=0)}))
    """

    def __init__(
        self,
        log: Mapping[tuple[str, int], Sequence[bytes | Record]],
        journal: Sequence[Advance] = (),
        swaps: Sequence[Swap] | None = None,
    ) -> None:
        self._journal, self._swaps = journal, swaps
        self._log = {
            Partition(*place): [
                value if isinstance(value, Record) else Record(*place, offset, None, None, value)
                for offset, value in enumerate(values)
            ]
            for place, values in sorted(log.items())
        }
        self.committed: dict[Partition, int] = {}
        self.seek({})

    def partitions(self) -> list[Partition]:
        return list(self._log)

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        found: list[Record] = []
        for partition in self._log:
            if partition not in paused:
                start = self._next[partition]
                records = self._log[partition][start : start + limit - len(found)]
                self._next[partition] = start + len(records)
                found += records
        return found

    def seek(self, offsets: Mapping[Partition, int], marks: Mapping[Partition, str] = NO_MARKS) -> None:
        self._next = {partition: offsets.get(partition, 0) for partition in self._log}

    def mark(self, record: Record) -> str:
        return digest(record.value)

    def positions(self) -> dict[Partition, int]:
        return dict(self._next)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed = dict(offsets)

    def end_offsets(self) -> dict[Partition, int]:
        return {partition: len(records) for partition, records in self._log.items()}

    def exhausted(self) -> frozenset[Partition]:
        return frozenset(p for p, records in self._log.items() if self._next[p] >= len(records))

    def silent(self) -> frozenset[Partition]:
        return frozenset()

    def journal(self) -> Sequence[Advance]:
        return self._journal

    def swaps(self) -> Sequence[Swap] | None:
        return self._swaps


class LiveListSource(ListSource):
    """A published fake of a live log: it shows what has arrived, never ends, and goes by a clock that you set.

    >>> log = LiveListSource({("events", 0): [b"{}", b"{}"]}, idle_after=30)
    >>> log.arrive(Partition("events", 0), 1)
    >>> len(log.poll(10)), log.silent(), log.exhausted()
    (1, frozenset(), frozenset())
    >>> log.now = 30
    >>> log.silent()
    frozenset({Partition(topic='events', partition=0)})
    """

    def __init__(
        self,
        log: Mapping[tuple[str, int], Sequence[bytes | Record]],
        idle_after: float = 30,
        later: Collection[tuple[str, int]] = (),
    ) -> None:
        """``later``: partitions that are added to the log when their first record arrives."""
        super().__init__(log)
        self.now, self._idle_after = 0.0, idle_after
        self._arrived = dict.fromkeys((p for p in self._log if p not in later), 0)
        self._since = dict.fromkeys(self._arrived, 0.0)

    def partitions(self) -> list[Partition]:
        return sorted(self._arrived)

    def positions(self) -> dict[Partition, int]:
        return {partition: self._next[partition] for partition in self._arrived}

    def arrive(self, partition: Partition, count: int) -> None:
        """So many further records of a partition have been written, now."""
        self._arrived[partition] = min(self._arrived.get(partition, 0) + count, len(self._log[partition]))
        self._since[partition] = self.now

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        found: list[Record] = []
        for partition in self._arrived:
            if partition not in paused:
                start = self._next[partition]
                stop = min(self._arrived[partition], start + limit - len(found))
                self._next[partition] = max(start, stop)
                found += self._log[partition][start:stop]
        return found

    def end_offsets(self) -> dict[Partition, int]:
        return dict(self._arrived)

    def exhausted(self) -> frozenset[Partition]:
        return frozenset()

    def silent(self) -> frozenset[Partition]:
        quiet = (p for p, since in self._since.items() if self.now - since >= self._idle_after)
        return frozenset(p for p in quiet if self._next[p] == self._arrived[p])
