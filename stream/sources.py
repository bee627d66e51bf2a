"""Where records come from: the protocol of a source, and a published fake. `stream.files` reads logs on disk.

A log is a set of partitions, each in its own order; nothing orders them against each other.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


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


class SourceError(Exception):
    """A log that cannot be read; the message names it and the remedy."""


class Source(Protocol):
    """A log being read. Offsets are of the NEXT record."""

    def partitions(self) -> list[Partition]:
        """All partitions, sorted."""

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        """At most ``limit`` further records of the partitions that are not paused; empty when there are none now."""

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go on from these offsets; partitions not named start at their beginning."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the log how far we are: a courtesy to tools that show lag, never read back."""

    def end_offsets(self) -> dict[Partition, int]:
        """One past the last record of each partition."""

    def exhausted(self) -> frozenset[Partition]:
        """Partitions that will never give another record. A live log has none."""


class ListSource:
    """A published fake: records from memory.

    >>> log = ListSource({("events", 0): [b'{"type":"item"}', b"{}"]})
    >>> [record.offset for record in log.poll(10)], log.exhausted()
    ([0, 1], frozenset({Partition(topic='events', partition=0)}))
    """

    def __init__(self, log: Mapping[tuple[str, int], Sequence[bytes | Record]]) -> None:
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

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._next = {partition: offsets.get(partition, 0) for partition in self._log}

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed = dict(offsets)

    def end_offsets(self) -> dict[Partition, int]:
        return {partition: len(records) for partition, records in self._log.items()}

    def exhausted(self) -> frozenset[Partition]:
        return frozenset(p for p, records in self._log.items() if self._next[p] >= len(records))
