"""Offsets told to the broker, so that tools can show our lag. Nobody reads them back.

It has a client of its own: the one that reads belongs to no group, so that no coordinator can hold it up.
"""

import logging
from collections.abc import Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from stream import broker
from stream.config import Kafka
from stream.sources import Partition, SourceError

ANSWER = 2_000  # ms
log = logging.getLogger(__name__)


class Courtesy:
    """Commits to the group `belated`. What goes wrong is said in the log at level debug, and tried at the next commit."""

    def __init__(self, config: Kafka) -> None:
        self._config = config
        self._consumer: KafkaConsumer | None = None

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Say that the next record of each partition is at this offset."""
        try:
            if self._consumer is None:
                told = broker.options(self._config, broker.tls(self._config)) | {"bootstrap_timeout_ms": ANSWER}
                own = {"group_id": broker.NAME, "enable_auto_commit": False}
                self._consumer = broker.attempt(KafkaConsumer, told | own)
            places = {TopicPartition(*p): OffsetAndMetadata(n, "", -1) for p, n in offsets.items()}
            self._consumer.commit(places, timeout_ms=ANSWER)
        except (KafkaError, SourceError) as error:
            log.debug("kafka: offsets were not told to the broker: %r", error)

    def close(self) -> None:
        """Leave the broker."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=ANSWER)
