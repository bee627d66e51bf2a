"""The topic of dead letters."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from labelstore.letters import Letter, Place
from stream import broker
from stream.config import Kafka
from stream.forwarding import Sent, headers
from stream.sources import SourceError

TIMEOUT = 10_000  # ms for a block of letters
LEAVING = 1.0  # s; letters that have not arrived stand in the store
log = logging.getLogger(__name__)


class KafkaOutbox:
    """Sends letters to ``config.dead_letters``, keyed like their records; a failure leaves them for the next commit."""

    def __init__(self, config: Kafka) -> None:
        self._config = config
        self._producer: KafkaProducer | None = None

    def send(self, found: Sequence[Letter]) -> Sent:
        topic, until = self._config.dead_letters, time.monotonic() + TIMEOUT / 1000
        under_way: list[tuple[Place, Any]] = []
        arrived, refused, why = list[Place](), list[Place](), dict[str, Place]()
        try:
            producer = self._connected()
            for letter in found:
                if sent := self._sent(producer, letter):
                    under_way.append((letter.place, sent))
                else:
                    refused.append(letter.place)
        except (KafkaError, SourceError) as error:
            log.warning("kafka %s: dead letters are not forwarded for now: %r", topic, error)
        for place, sent in under_way:
            try:
                sent.get(timeout=max(0.0, until - time.monotonic()))
                arrived.append(place)
            except KafkaError as error:
                why.setdefault(type(error).__name__, place)  # the text may hold a time, and differ each time
                if not error.retriable:
                    refused.append(place)
        for said, place in why.items():
            log.warning("kafka %s: %s and perhaps others are not forwarded: %s", topic, place, said)
        return Sent(arrived, refused)

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
                self._producer.close(timeout=LEAVING)

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            told = broker.options(self._config, broker.tls(self._config))
            limits = {"max_block_ms": TIMEOUT, "request_timeout_ms": TIMEOUT // 2, "delivery_timeout_ms": TIMEOUT}
            how = {"linger_ms": 5, "enable_idempotence": False}  # else one refusal ends the producer
            self._producer = broker.attempt(KafkaProducer, told | limits | how | {"bootstrap_timeout_ms": TIMEOUT // 2})
        return self._producer
