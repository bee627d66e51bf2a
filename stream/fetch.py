"""A range of Kafka's topics as a log on disk: every value byte for byte, every record with the offset it had.

    DST/topic/partition.jsonl   a line a record, in an envelope with timestamp and key
    DST/offsets.json            which offset the lines have: see `stream.numbering`
    DST/journal.jsonl           where the store of a live run is given: see `stream.journal`

Small gaps in the offsets (transactions, compaction) are blank lines, longer ones a jump in offsets.json. The log appears
under its names only when it is complete. Nothing is told to the broker: no group, no offsets.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from labelstore.ledger import Advance, Swap
from stream import broker, journal, numbering
from stream.config import Kafka
from stream.drafts import drafts
from stream.envelope import exact
from stream.sources import Partition, SourceError
from stream.start import start

GAP = 1_000  # offsets that are blank lines; beyond, the offsets jump
PATIENCE = 60.0  # seconds without anything new
READING = {
    "group_id": None, "enable_auto_commit": False, "auto_offset_reset": "none", "isolation_level": "read_committed",
    "max_poll_records": 5_000,
}  # fmt: skip


class Range(NamedTuple):
    """Offsets of a partition: the first that is wanted, and one past the last."""

    begin: int
    end: int


class LiveRun(NamedTuple):
    """What the store of a live run says of it: its journal, swaps of the product graph (None: it has none), and the offsets
    up to which it has read (None: there is no such store)."""

    advances: Sequence[Advance] = ()
    swaps: Sequence[Swap] | None = None
    committed: Mapping[Partition, int] | None = None


NO_RUN = LiveRun()


class Fetched(NamedTuple):
    """What was written: ranges and records by partition, and how many advances of a journal."""

    ranges: dict[Partition, Range]
    records: dict[Partition, int]
    advances: int


def fetch(
    config: Kafka,
    dst: Path,
    since: str,
    until: str,
    run: LiveRun = NO_RUN,
    told: Callable[..., None] = lambda done, of=None: None,
) -> Fetched:
    """Write the records of ``config.topics`` from ``since`` (earliest, ts=, last=) to ``until`` (end, ts=, or commit: as far
    as ``run`` has read) into ``dst``.

    Raises:
        SourceError: the broker cannot be reached or stops to answer. FileExistsError: ``dst`` holds something already,
            see `drafts`.
    """
    with drafts(dst) as place:
        consumer = broker.consumer(config, **READING)
        try:
            found = broker.topics(consumer, config)
            places = sorted(Partition(topic, n) for topic, numbers in found.items() for n in numbers)
            ranges = _ranges(consumer, config, places, since, until, run.committed)
            numbers, rows = place(numbering.NAME), [row for row in run.advances if _within(row, ranges)]
            if rows:
                journal.write(place(journal.NAME), rows)
            if run.swaps is not None:
                journal.write(place(journal.SWAPS), run.swaps)
            with ExitStack() as stack:
                files = {
                    one: stack.enter_context(_File(place(f"{one.topic}/{one.partition}.jsonl"), ranges[one].begin))
                    for one in places
                }
                _copy(consumer, ranges, files, told)
            numbering.write(numbers, {one: file.jumps for one, file in files.items()})
        except KafkaError as error:
            raise SourceError(f"kafka {', '.join(config.servers)}: {error!r}; nothing was written to {dst}") from None
        finally:
            consumer.close(autocommit=False)
    return Fetched(ranges, {one: file.records for one, file in files.items()}, len(rows))


def _ranges(
    consumer: Any,
    config: Kafka,
    places: list[Partition],
    since: str,
    until: str,
    committed: Mapping[Partition, int] | None,
) -> dict[Partition, Range]:
    consumer.assign([TopicPartition(*place) for place in places])
    first, ends = broker.span(consumer, config, places)
    begin = _at(consumer, config, since, "--from", places, {"earliest": first, "latest": ends}, ends)
    words = {"end": ends}
    if committed is not None:
        words["commit"] = {place: committed.get(place, first[place]) for place in places}
    end = _at(consumer, config, until, "--until", places, words, ends)
    found = {}
    for place in places:
        low = min(max(begin[place], first[place]), ends[place])
        found[place] = Range(low, max(low, min(end[place], ends[place])))
    return found


def _at(
    consumer: Any,
    config: Kafka,
    text: str,
    option: str,
    places: list[Partition],
    words: Mapping[str, dict[Partition, int]],
    ends: dict[Partition, int],
) -> dict[Partition, int]:
    """The offsets a word or time stands for; a time after the last record stands for the end."""
    if text in words:
        return words[text]
    try:
        at = start(text, time.time_ns() // 1_000_000)
    except ValueError:
        at = "earliest"
    if isinstance(at, str):
        raise SourceError(f"{option} {text!r}: write {', '.join(words)}, ts=2024-05-01T12:00 or last=6h")
    found = consumer.offsets_for_times({TopicPartition(*p): at for p in places}, timeout_ms=config.timeout)
    return {Partition(*p): known.offset if known else ends[Partition(*p)] for p, known in found.items()}


def _copy(
    consumer: Any, ranges: Mapping[Partition, Range], files: Mapping[Partition, "_File"], told: Callable[..., None]
) -> None:
    open_ = {place for place, (begin, end) in ranges.items() if begin < end}
    total, at, moved = sum(end - begin for begin, end in ranges.values()), dict[Partition, int](), time.monotonic()
    for place, (begin, _) in ranges.items():
        consumer.seek(TopicPartition(*place), begin)
        at[place] = begin
    consumer.pause(*(TopicPartition(*place) for place in ranges.keys() - open_))
    while open_:
        for tp, records in consumer.poll(timeout_ms=500).items():
            place = Partition(*tp)
            for record in records:
                if record.offset < ranges[place].end:
                    files[place].write(record)
        for place in sorted(open_):
            position = min(consumer.position(TopicPartition(*place)), ranges[place].end)
            if position > at[place]:
                at[place], moved = position, time.monotonic()
            if position >= ranges[place].end:
                open_.discard(place)
                consumer.pause(TopicPartition(*place))
        told(sum(at[place] - begin for place, (begin, _) in ranges.items()), total)
        if time.monotonic() - moved > PATIENCE:
            raise SourceError(
                f"kafka: nothing came for {PATIENCE:g} s; {len(open_)} partitions are not yet at their end"
            )


def _within(row: Advance, ranges: Mapping[Partition, Range]) -> bool:
    place = Partition(row.topic, row.partition)
    return place in ranges and row.offset <= ranges[place].end


class _File:
    """One partition being written."""

    def __init__(self, file: Path, begin: int) -> None:
        self._file = file
        self.jumps: list[tuple[int, int]] = [(0, begin)]
        self.records, self._line, self._next = 0, 0, begin

    def __enter__(self) -> "_File":
        self._stream: IO[bytes] = self._file.open("wb", buffering=1 << 18)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, record: Any) -> None:
        gap = record.offset - self._next
        if gap > GAP:
            self.jumps.append((self._line, record.offset))
        elif gap:
            self._stream.write(b"\n" * gap)
            self._line += gap
        stamp = record.timestamp if record.timestamp is not None and record.timestamp >= 0 else None
        self._stream.write(exact(stamp, record.key, record.value or b"") + b"\n")
        self._line, self._next, self.records = self._line + 1, record.offset + 1, self.records + 1
