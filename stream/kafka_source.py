"""Topics of Kafka as a source. Partitions are assigned, never subscribed: there is no rebalance to survive.

Where reading goes on is said by the offsets in SQL; what is committed to the broker is a courtesy to tools that show lag.

    silent     the broker has confirmed, again and again for ``idle_after``, that our position is a partition's end
    gone       records that retention had deleted before they were read, by partition
    reachable  whether the broker answered when it was last asked; while it does not, nobody is silent
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError, RetriableError

from labelstore.ledger import Advance
from stream import admission, broker
from stream.config import Kafka
from stream.courtesy import Courtesy
from stream.sources import NO_MARKS, Partition, Record, SourceError

WAIT = 200  # ms for which a poll waits for the first record
ASK = 1.0  # seconds between two questions for the ends of partitions, at most
ANSWER = 2_000  # ms for an answer while running
log = logging.getLogger(__name__)


class KafkaSource:
    """The topics of a configuration, read from ``config.start`` or from where `seek` says.

    Raises:
        SourceError: the broker cannot be reached or lets us not in, or a topic is missing; with the remedy.
    """

    def __init__(self, config: Kafka) -> None:
        self.config = config
        self.gone: Counter[Partition] = Counter()
        self.reachable = True
        self._consumer = broker.consumer(config, **broker.READING)
        self._courtesy = Courtesy(config)
        self._listening = ExitStack()
        self._said = self._listening.enter_context(admission.listening())  # since the broker was last asked
        self._next: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._still: dict[Partition, tuple[int, float]] = {}  # position at the end, and since when that is known
        self._silent: frozenset[Partition] = frozenset()
        self._asked = 0.0
        try:
            self._partitions = self._assigned(broker.topics(self._consumer, config))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER)
        self._courtesy.close()
        self._listening.close()

    def partitions(self) -> list[Partition]:
        return list(self._partitions)

    def positions(self) -> dict[Partition, int]:
        if not self._next:
            self.seek({})
        return dict(self._next)

    @property
    def lag(self) -> dict[Partition, int]:
        """Records of each partition that have not been read, as of the last answer of the broker."""
        return {p: max(0, end - self._next.get(p, end)) for p, end in self._ends.items()}

    # where to read ---------------------------------------------------------------------------------------------------

    def seek(self, offsets: Mapping[Partition, int], marks: Mapping[Partition, str] = NO_MARKS) -> None:
        """Go on from these offsets; without any, from ``config.start``. A partition that is new starts at its beginning.

        Raises:
            SourceError: the next record is deleted and the policy is `fail`; an offset is past the end; a topic not named.
        """
        broker.still_named(offsets, self._partitions)
        first, ends = broker.span(self._consumer, self.config, self._partitions)
        begin = first if offsets else broker.begin(self._consumer, self.config, first, ends)
        for p in self._partitions:
            then, now = marks.get(p), broker.topic_id(self._consumer, p.topic)
            if then and now and then != now:
                raise broker.anew(f"kafka {p.topic}", "it has another id than when we read it")
            self._place(p, offsets.get(p, begin[p]), first[p], ends[p])
        self._ends = ends
        self._still.clear()

    def mark(self, record: Record) -> str:
        """The id that the broker gave the topic when it was created; empty of one that gives none."""
        return broker.topic_id(self._consumer, record.topic)

    def _place(self, partition: Partition, offset: int, first: int, end: int) -> None:
        name = f"kafka {partition.topic}/{partition.partition}"
        if offset > end:
            raise broker.anew(name, f"we stand at offset {offset}, but the log ends at {end}")
        if offset < first:
            lost = first - offset
            if self.config.retention == "fail":
                raise SourceError(
                    f"{name}: our next record (offset {offset}) is gone, the log begins at {first}: retention has deleted "
                    f'{lost} records that were not read; go on without them by kafka.retention = "earliest", or start with '
                    "a new store.url; and raise retention.ms of the topic"
                )
            self.gone[partition] += lost
            log.warning("%s: %d records are gone, retention has deleted them; going on at offset %d", name, lost, first)
        self._next[partition] = max(offset, first)
        self._consumer.seek(TopicPartition(*partition), self._next[partition])

    def _assigned(self, found: Mapping[str, set[int]]) -> list[Partition]:
        if len(set(map(len, found.values()))) > 1:
            counts = ", ".join(f"{topic} {len(numbers)}" for topic, numbers in found.items())
            log.warning(
                "kafka: topics differ in their partitions (%s): a user's records do not come side by side", counts
            )
        partitions = sorted(Partition(topic, n) for topic, numbers in found.items() for n in numbers)
        self._consumer.assign([TopicPartition(*p) for p in partitions])
        return partitions

    # reading ---------------------------------------------------------------------------------------------------------

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        """Further records. Nothing while the broker is gone: it is asked again at the next poll."""
        if not self._next:
            self.seek({})
        self._silent = frozenset()
        self._pause(paused)
        try:
            batches = self._consumer.poll(timeout_ms=WAIT, max_records=limit)
        except OffsetOutOfRangeError as error:
            self._overrun([Partition(*p) for p in error.args[0]])
            return []
        except LogTruncationError as error:
            raise broker.anew(f"kafka {', '.join(self.config.servers)}", repr(error)) from None
        except RetriableError:
            time.sleep(WAIT / 1000)
            batches = {}
        except KafkaError as error:
            raise SourceError(f"kafka {', '.join(self.config.servers)}: {error!r}; mend this and start again") from None
        found = [_record(record) for records in batches.values() for record in records]
        for place, records in batches.items():
            self._next[Partition(*place)] = records[-1].offset + 1
        self._ask()
        return found

    def _pause(self, paused: frozenset[Partition]) -> None:
        before = {Partition(*p) for p in self._consumer.paused()}
        self._consumer.pause(*(TopicPartition(*p) for p in paused - before if p in self._next))
        self._consumer.resume(*(TopicPartition(*p) for p in before - paused))
        broker.unblock(self._consumer)

    def _overrun(self, partitions: list[Partition]) -> None:
        """Retention has overtaken us while reading. Without an answer the next poll says so again."""
        with suppress(broker.NoAnswerError):
            first, ends = broker.span(self._consumer, self.config, partitions)
            for p in partitions:
                self._place(p, self._next[p], first[p], ends[p])

    def _ask(self) -> None:
        """Now and then: where partitions end, which are silent, and whether there are new ones.

        Raises:
            SourceError: the broker does not let us in any more, or a partition is gone.
        """
        asked = time.monotonic()
        if asked - self._asked < min(ASK, self.config.idle_after / 4000):
            return
        self._asked = asked
        places = [TopicPartition(*p) for p in self._partitions]
        try:
            ends = {Partition(*p): end for p, end in self._consumer.end_offsets(places, timeout_ms=ANSWER).items()}
        except KeyError as error:
            raise broker.gone(error.args[0]) from None
        except KafkaError as error:
            if refused := admission.refusal(self.config, self._said, error):
                raise SourceError(refused) from None
            if lost := broker.lost(self._consumer, self._partitions):
                raise broker.gone(lost) from None
            self.reachable = False
            self._still.clear()
            return
        finally:
            self._said.clear()
        self.reachable = True
        self._ends = ends
        self._silent = frozenset(
            p for p, end in ends.items() if self._quiet_for(p, end, asked) >= self.config.idle_after
        )
        self._meet()

    def _quiet_for(self, partition: Partition, end: int, asked: float) -> float:
        """For how long our position has been the end of a partition, ms."""
        if end > self._next[partition]:  # perhaps marks of transactions, which are no records
            at = self._consumer.position(TopicPartition(*partition), timeout_ms=ANSWER)
            self._next[partition] = max(self._next[partition], at or 0)
        position = self._next[partition]
        if max(end, self._consumer.highwater(TopicPartition(*partition)) or 0) > position:  # or a transaction is open
            self._still.pop(partition, None)
            return 0.0
        at, since = self._still.get(partition, (-1, asked))
        self._still[partition] = (position, since if at == position else asked)
        return (asked - self._still[partition][1]) * 1000

    def _meet(self) -> None:
        """Partitions added to a topic are read from their beginning. Without an answer they are new at the next question."""
        found = {topic: self._consumer.partitions_for_topic(topic) for topic in self.config.topics}
        new = sorted({Partition(t, n) for t, numbers in found.items() for n in numbers} - set(self._partitions))
        if not new:
            return
        with suppress(broker.NoAnswerError):
            first, ends = broker.span(self._consumer, self.config, new)
            numbers = {topic: {p.partition for p in [*self._partitions, *new] if p.topic == topic} for topic in found}
            self._partitions = self._assigned(numbers)
            for p in new:
                self._place(p, first[p], first[p], ends[p])

    def silent(self) -> frozenset[Partition]:
        return self._silent

    def end_offsets(self) -> dict[Partition, int]:
        return broker.span(self._consumer, self.config, self._partitions)[1]

    def exhausted(self) -> frozenset[Partition]:
        return frozenset()

    def journal(self) -> Sequence[Advance]:
        return ()

    def swaps(self) -> None: ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._courtesy.commit(offsets)


def _record(found: Any) -> Record:
    timestamp = found.timestamp if found.timestamp is not None and found.timestamp >= 0 else None
    return Record(found.topic, found.partition, found.offset, timestamp, found.key, found.value or b"")
