"""What is wrong with my events? A log read once, without a store: what is there, what is refused, what will not match."""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from labelstore.events import Adjustment, Conversion, Event, Impression, Signal, identity
from labelstore.letters import Alike
from stream.codec import Codec, DeadLetter
from stream.foreign import Ignored
from stream.mapping import Topic
from stream.sources import Partition, Record, Source
from stream.watermark import Watermark

EXAMPLES = 3  # dead letters shown for each reason
DECIMAL = re.compile(r"[+-]?\d+[.,]\d+")
NAMES = 1000  # of features that are looked at
REMEMBERED = 2_000_000  # ids; beyond, duplicates and references are not looked for, and the check says so


class Findings(NamedTuple):
    """``counts``: records by type, ``dead_letters``, ``duplicates``, ``late``. ``reasons``: dead letters by reason, those
    that are `Alike` together, with examples (topic, partition, offset); ``refused``: how many. ``kinds``: of signals and
    conversions. ``lateness``: the furthest any record was behind its partition, ms. ``span``: first and last ``at``, ms.
    ``lost``: references to impressions the log has not. ``delays``: of conversions by kind, ascending, ms after the
    impression they name, or the last of their user and item; below 0 before it. ``complete``: False where the log has more
    ids than are remembered. ``ignored``: records no mapping names. ``first``: topic -> its first record, and what was made
    of it. ``shape``: impressions without ``features``, with ``touch`` (user and item). ``decimals``: features of impressions
    that are texts and read as decimals, by name. ``ahead``: the record that made the most others late, if any did."""

    counts: Counter[str]
    reasons: dict[str, list[tuple[str, int, int]]]
    refused: Counter[str]
    unknown: Counter[str]
    kinds: Counter[str]
    lateness: int
    span: tuple[int, int] | None
    lost: Counter[str]
    delays: dict[str, list[int]]
    complete: bool
    ignored: Counter[str]
    first: dict[str, tuple[Record, Event | Ignored | DeadLetter]]
    shape: Counter[str]
    decimals: Counter[str]
    ahead: "Ahead | None"


class Ahead(NamedTuple):
    """A record that its partition's clock went by, ``at`` ms, and how many came ``late`` for that."""

    topic: str
    partition: int
    offset: int
    at: int
    late: int


def check(
    source: Source,
    strict: bool = False,
    told: Callable[[int], None] = lambda read: None,
    mapping: Mapping[str, Topic] = MappingProxyType({}),
) -> Findings:
    """Read the whole log."""
    reader = _Reader(source, strict, mapping)
    while records := source.poll(5000):
        for record in records:
            event = reader.codec.decode(record)
            reader.first.setdefault(record.topic, (record, event))
            if isinstance(event, DeadLetter):
                reader.refuse(event)
            elif isinstance(event, Ignored):
                reader.ignore()
            else:
                reader.take(record, event)
        told(reader.read)
    return reader.findings()


class _Reader:
    def __init__(self, source: Source, strict: bool, mapping: Mapping[str, Topic]) -> None:
        self.codec = Codec(strict, mapping)
        self.first: dict[str, tuple[Record, Event | Ignored | DeadLetter]] = {}
        self._shape: Counter[str] = Counter()
        self._decimals: Counter[str] = Counter()
        self.read = 0
        self._clocks = Watermark(source.partitions(), 0)
        self._counts: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._alike = Alike()
        self._reasons: dict[str, list[tuple[str, int, int]]] = {}
        self._ids: set[tuple[type, str]] = set()
        self._named: Counter[tuple[type, str, str]] = Counter()
        self._shown: dict[str, int] = {}
        self._touched: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._touching: Counter[tuple[str, str, str]] = Counter()
        self._converted: list[tuple[str, int, str | None, tuple[str, str]]] = []  # kind, at, what it names, its touch
        self._leads: dict[Partition, tuple[int, int]] = {}  # its clock, and the offset of the record that it is of
        self._behind: Counter[tuple[Partition, int, int]] = Counter()
        self._lateness = 0
        self._first = self._last = 0
        self._complete = True

    def refuse(self, letter: DeadLetter) -> None:
        self.read += 1
        self._counts["dead_letters"] += 1
        reason = self._alike(letter.reason)
        self._refused[reason] += 1
        examples = self._reasons.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append((letter.record.topic, letter.record.partition, letter.record.offset))

    def ignore(self) -> None:
        self.read += 1
        self._counts["ignored"] += 1

    def take(self, record: Record, event: Event) -> None:
        self.read += 1
        partition = Partition(record.topic, record.partition)
        known_at, late = self._clocks.read(partition, event.at)
        if late:
            self._counts["late"] += 1
            self._behind[(partition, *self._leads[partition])] += 1
        elif known_at > self._leads.get(partition, (-1, 0))[0]:
            self._leads[partition] = (known_at, record.offset)
        self._lateness = max(self._lateness, known_at - event.at)
        self._first = min(self._first or event.at, event.at)
        self._last = max(self._last, event.at)
        if len(self._ids) >= REMEMBERED:
            self._complete = False
        elif (key := (type(event), identity(event))) in self._ids:
            self._counts["duplicates"] += 1
            return
        else:
            self._ids.add(key)
            self._refer(event)
        self._counts[f"{event.type}s"] += 1
        if isinstance(event, (Signal, Conversion)):
            self._kinds[f"{event.type} {event.kind}"] += 1

    def _refer(self, event: Event) -> None:
        if isinstance(event, Impression):
            self._shape["features"] += not event.features
            for name, value in event.features.items():
                known = name in self._decimals or len(self._decimals) < NAMES
                if isinstance(value, str) and known and DECIMAL.fullmatch(value):
                    self._decimals[name] += 1
            self._shown[event.impression_id] = event.at
            if event.user_id and event.item_id:
                self._shape["touch"] += 1
                self._touched[event.user_id, event.item_id].append(event.at)
        elif isinstance(event, Adjustment):
            self._named[(Conversion, event.conversion_id, "adjustment")] += 1
        elif isinstance(event, (Signal, Conversion)):
            touch = (event.user_id or "", event.item_id or "")
            if isinstance(event, Conversion):
                self._converted.append((event.kind, event.at, event.impression_id, touch))
            if event.impression_id:
                self._named[(Impression, event.impression_id, f"{event.type} {event.kind}")] += 1
            else:
                self._touching[(*touch, f"{event.type} {event.kind}")] += 1

    def findings(self) -> Findings:
        lost: Counter[str] = Counter()
        for (of, name, who), times in self._named.items():
            if (of, name) not in self._ids:
                lost[who] += times
        for (user, item, who), times in self._touching.items():
            if (user, item) not in self._touched:
                lost[who] += times
        span = (self._first, self._last) if self._last else None
        return Findings(
            self._counts, self._reasons, self._refused, self.codec.unknown, self._kinds, self._lateness, span,
            lost, self._delays(), self._complete, self.codec.ignored, self.first, self._shape,
            self._decimals, self._ahead(),
        )  # fmt: skip

    def _ahead(self) -> Ahead | None:
        for (partition, at, offset), late in self._behind.most_common(1):
            return Ahead(partition.topic, partition.partition, offset, at, late)
        return None

    def _delays(self) -> dict[str, list[int]]:
        delays: dict[str, list[int]] = {}
        for shown in self._touched.values():
            shown.sort()
        for kind, at, named, touch in self._converted:
            if (shown_at := self._shown_at(at, named, touch)) is not None:
                delays.setdefault(kind, []).append(at - shown_at)
        return {kind: sorted(found) for kind, found in delays.items()}

    def _shown_at(self, at: int, named: str | None, touch: tuple[str, str]) -> int | None:
        """When what was bought was shown: the impression it names, else the last of its touch, or the first after it."""
        if named:
            return self._shown.get(named)
        times = self._touched.get(touch)
        return times[max(0, bisect_right(times, at) - 1)] if times else None
