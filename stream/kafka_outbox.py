"""The topic of dead letters."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from labelstore.letters import Letter, Place
from stream import broker
from stream.config import Kafka
from stream.forwarding import headers
from stream.sources import SourceError

TIMEOUT = 10_000  # ms for a block of letters
log = logging.getLogger(__name__)


class KafkaOutbox:
    """Sends letters to ``config.dead_letters``, keyed like their records; a failure leaves them for the next commit."""

    def __init__(self, config: Kafka) -> None:
        self._config = config
        self._producer: KafkaProducer | None = None

    def send(self, found: Sequence[Letter]) -> list[Place]:
        waiting: list[tuple[Place, Any]] = []
        try:
            producer = self._connected()
            for letter in found:
                if sent := self._sent(producer, letter):
                    waiting.append((letter.place, sent))
        except (KafkaError, SourceError) as error:
            log.warning("kafka %s: dead letters are not forwarded for now: %r", self._config.dead_letters, error)
        return [place for place, sent in waiting if self._arrived(place, sent)]

    def _arrived(self, place: Place, sent: Any) -> bool:
        try:
            sent.get(timeout=TIMEOUT / 1000)
        except KafkaError as error:
            log.warning("kafka %s: %s is not forwarded: %r", self._config.dead_letters, place, error)
            return False
        return True

    def _sent(self, producer: KafkaProducer, letter: Letter) -> Any:
        """The letter under way; one that is too large with its key, without it."""
        topic, told = self._config.dead_letters, {"headers": headers(letter)}
        try:
            return producer.send(topic, letter.value, key=letter.key, **told)
        except MessageSizeTooLargeError:
            log.warning("kafka %s: %s is too large with its key: forwarded without", topic, letter.place)
        try:
            return producer.send(topic, letter.value, **told)
        except MessageSizeTooLargeError as error:
            log.warning("kafka %s: %s is not forwarded: %s", topic, letter.place, error)
            return None

    def close(self) -> None:
        """Leave the broker."""
        if self._producer is not None:
            with suppress(KafkaError):
                self._producer.close(timeout=TIMEOUT / 1000)

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            told = broker.options(self._config, broker.tls(self._config))
            limits = {"max_block_ms": TIMEOUT, "request_timeout_ms": TIMEOUT // 2, "delivery_timeout_ms": TIMEOUT}
            how = {"linger_ms": 5, "enable_idempotence": False}  # else one refusal ends the producer
            self._producer = KafkaProducer(**told, **limits, **how, bootstrap_timeout_ms=TIMEOUT // 2)
        return self._producer
