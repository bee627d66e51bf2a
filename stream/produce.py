"""A log on disk into Kafka: which record goes where, under which key, and when.

All records of a user share a partition: the key is the user's id; what refers to an impression or conversion by its id
takes the key of that; what has no user at all goes by its own id. Records of one partition of the log keep their order;
between partitions the order is that of event time. The ids of impressions and conversions are kept in memory.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from kafka.errors import KafkaError

from labelstore.events import Adjustment, Conversion, Event, Impression, Item, Signal
from stream.codec import Codec, DeadLetter
from stream.config import Kafka
from stream.files import FileSource
from stream.foreign import Ignored
from stream.sources import Partition, Record, SourceError

BLOCK = 5_000  # records that may be under way; then they are waited for
SLICE = 0.5  # seconds between two looks at what has arrived, while waiting for the pace
FLUSH = 60  # seconds for what is under way


class Route(NamedTuple):
    """Where a record goes. ``partition`` None: by its key. ``clock``: event time its partition has reached, ms."""

    clock: int
    record: Record
    topic: str
    partition: int | None
    key: bytes | None
    timestamp: int | None


class Produced(NamedTuple):
    """``counts``: records that Kafka has, by topic. ``last``: the last of them, in the log. ``stopped``: by Ctrl-C."""

    counts: Counter[str]
    last: Record | None
    stopped: bool


class Router:
    """Says where each record of a log goes; a first pass over the log finds the users.

    Args:
        keep: exactly the topics, partitions and keys of the log. by_type: to the topic of its type, else of its name.
    """

    def __init__(
        self, source: FileSource, codec: Codec, config: Kafka, keep: bool = False, by_type: bool = True
    ) -> None:
        self._source, self._codec, self._keep, self._by_type = source, codec, keep, by_type
        self._topics: dict[type[Any], str] = {
            Impression: config.impressions, Signal: config.signals, Conversion: config.conversions,
            Adjustment: config.conversions, Item: config.items,
        }  # fmt: skip
        self._config = config
        self._keys: dict[tuple[type[Any], str], str] = {}  # of impressions and conversions
        self.topics: Counter[str] = Counter()
        self.partitions: dict[str, int] = {}  # topic -> how many it needs at least
        for partition in source.partitions():
            for record in source.records(partition):
                self._meet(record)

    def _meet(self, record: Record) -> None:
        event = self._codec.decode(record)
        topic = self._topic(record, event)
        self.topics[topic] += 1
        self.partitions[topic] = max(self.partitions.get(topic, 1), record.partition + 1 if self._keep else 1)
        if isinstance(event, Impression) and event.user_id:
            self._keys.setdefault((Impression, event.impression_id), event.user_id)
        elif isinstance(event, Conversion):
            self._keys.setdefault((Conversion, event.event_id), event.user_id or f"\0{event.impression_id}")

    def routes(self) -> Iterator[Route]:
        """All records of the log, those of several partitions by event time."""
        return heapq.merge(*map(self._of, self._source.partitions()), key=lambda route: route.clock)

    def _of(self, partition: Partition) -> Iterator[Route]:
        clock, stamp = 0, None
        for record in self._source.records(partition):
            event = self._codec.decode(record)
            at = None if isinstance(event, (DeadLetter, Ignored)) else event.at
            clock = max(clock, at or 0)
            stamp = record.timestamp if record.timestamp is not None else at if at is not None else stamp
            topic = self._topic(record, event)
            if self._keep:
                yield Route(clock, record, topic, record.partition, record.key, stamp)
            else:
                yield Route(clock, record, topic, None, self._key(record, event), stamp)

    def _topic(self, record: Record, event: Event | Ignored | DeadLetter) -> str:
        if self._keep or not self._by_type or self._codec.maps(record.topic):
            return record.topic
        if isinstance(event, (DeadLetter, Ignored)):
            return record.topic if record.topic in self._config.topics else self._config.impressions
        return self._topics[type(event)]

    def _key(self, record: Record, event: Event | Ignored | DeadLetter) -> bytes | None:
        if isinstance(event, (DeadLetter, Ignored)):
            return record.key
        return self._user(event).encode()

    def _user(self, event: Event) -> str:
        if isinstance(event, Item):
            return event.item_id
        if isinstance(event, Adjustment):
            found = self._keys.get((Conversion, event.conversion_id), event.conversion_id)
            return self._shown(found[1:]) if found.startswith("\0") else found
        if event.user_id:
            return event.user_id
        return self._shown(event.impression_id or event.event_id)  # type: ignore[union-attr]  # impressions have the first

    def _shown(self, impression: str) -> str:
        return self._keys.get((Impression, impression), impression)


def check(needed: Mapping[str, int], there: Mapping[str, int], keep: bool) -> None:
    """Whether the topics can take the records. ``needed``, ``there``: topic -> number of partitions.

    Raises:
        SourceError: a topic is missing or has too few, or they differ so that a user's records would part.
    """
    if missing := [topic for topic in needed if topic not in there]:
        raise SourceError(f"kafka has no topic {', '.join(missing)}; create it, or give --create --partitions N")
    if keep:
        for topic, number in needed.items():
            if there[topic] < number:
                raise SourceError(
                    f"topic {topic} has {there[topic]} partitions, the log {number}; add partitions to it, or produce into "
                    "another topic"
                )
    elif len({there[topic] for topic in needed}) > 1:
        counts = ", ".join(f"{topic} {there[topic]}" for topic in needed)
        raise SourceError(
            f"the topics have different numbers of partitions ({counts}), so a user's records would not share one; give "
            "them the same number (kafka-topics --alter --partitions N), before there is anything in them"
        )


def send(
    producer: Any, routes: Iterable[Route], speed: float | None, told: Callable[[int], None] = lambda done: None
) -> Produced:
    """Send everything, at ``speed`` times the pace of event time or, for None, at once. Ctrl-C ends it cleanly.

    Raises:
        SourceError: Kafka refuses a record; it says how far we came.
    """
    under = _UnderWay(producer, told)
    begun: tuple[float, int] | None = None
    try:
        for route in routes:
            if speed is not None and route.clock:
                begun = begun or (time.monotonic(), route.clock)
                under.wait(begun[0] + (route.clock - begun[1]) / 1000 / speed)
            under.send(route)
        under.settle()
    except KeyboardInterrupt:
        under.settle()
        return Produced(under.counts, under.last, True)
    return Produced(under.counts, under.last, False)


class _UnderWay:
    """Records that were sent and are not yet known to have arrived."""

    def __init__(self, producer: Any, told: Callable[[int], None]) -> None:
        self._producer, self._told = producer, told
        self._sent: list[tuple[Route, Any]] = []
        self.counts: Counter[str] = Counter()
        self.last: Record | None = None

    def send(self, route: Route) -> None:
        record = route.record
        stamp = None if route.timestamp is None else max(0, route.timestamp)
        try:
            sent = self._producer.send(route.topic, record.value, route.key, None, route.partition, stamp)
        except KafkaError as error:
            self.settle()  # those before it are on their way
            self._refused(route, error)
        self._sent.append((route, sent))
        if len(self._sent) >= BLOCK:
            self.settle()

    def wait(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            if left > SLICE:
                self.settle()
            time.sleep(min(SLICE, max(0.0, until - time.monotonic())))

    def settle(self) -> None:
        """Wait for what is under way."""
        with suppress(KafkaError):  # each record knows what became of it
            self._producer.flush(timeout=FLUSH)
        sent, self._sent = self._sent, []
        failed = [
            (route, future.exception or TimeoutError("no answer")) for route, future in sent if not future.succeeded()
        ]
        for route, future in sent:
            if not future.succeeded():  # of a batch that is refused, one with an error of its own is to blame
                self._refused(*next((one for one in failed if type(one[1]) is not KafkaError), failed[0]))
            self.counts[route.topic] += 1
            self.last = route.record
        self._told(self.counts.total())

    def _refused(self, route: Route, error: BaseException) -> None:
        place = route.record
        raise SourceError(
            f"topic {route.topic}: record {place.topic}/{place.partition}@{place.offset} was not taken ({error!r}); "
            f"{self.counts.total():,} records before it are in Kafka; mend this and produce again: what came twice "
            "counts once, as long as the learner's store keeps it"
        ) from None
