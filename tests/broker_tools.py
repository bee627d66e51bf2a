"""What tests of the live source share: topics of their own on a broker, and records in them."""

import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from stream.config import Kafka
from stream.kafka_source import KafkaSource
from stream.sources import Record

NUMBER = count()


def configured(server: str, partitions: int = 2, **told: Any) -> Kafka:
    """A configuration with four new topics, and one for dead letters, which the broker has heard of from its controller."""
    name = f"{time.time_ns()}-{next(NUMBER)}"
    topics = {kind: f"{kind}-{name}" for kind in ("impressions", "signals", "conversions", "items", "dead_letters")}
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics.values()])
    deadline = time.monotonic() + 20
    while not set(topics.values()) <= set(admin.list_topics()):
        assert time.monotonic() < deadline, "created topics do not show"
        time.sleep(0.02)
    admin.close()
    return Kafka.model_validate({"servers": (server,), "idle_after": 500} | topics | told)


def grow(server: str, topic: str, partitions: int) -> None:
    """Add partitions to a topic."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_partitions({topic: NewPartitions(total_count=partitions)})
    admin.close()


def produce(server: str, records: Iterable[tuple[str, int, bytes | None]], at: int | None = None) -> None:
    """Write (topic, partition, value), keyed by the partition; ``at`` is their timestamp, ms."""
    producer = KafkaProducer(bootstrap_servers=server, linger_ms=5)
    for topic, partition, value in records:
        producer.send(topic, value, key=b"k%d" % partition, partition=partition, timestamp_ms=at)
    producer.flush()
    producer.close()


def until(source: KafkaSource, enough: Callable[[list[Record]], bool], seconds: float = 20) -> list[Record]:
    """Poll until it is enough; all that was read."""
    found: list[Record] = []
    deadline = time.monotonic() + seconds
    while not enough(found):
        assert time.monotonic() < deadline, found
        found += source.poll(100)
    return found
