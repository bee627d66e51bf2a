"""Reaching the broker: the client's options, and what is wrong when it cannot be reached.

kafka-python tries again and again, and ends with "unable to bootstrap" whatever the reason. So each server is looked at
first with a plain socket (`stream.probe`), and what kafka-python logs meanwhile is listened to (`stream.admission`).
"""

import ssl
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from stream.admission import listening, refusal, unknown
from stream.config import Kafka
from stream.environment import variable
from stream.probe import probe
from stream.sources import Partition, SourceError
from stream.start import start

NAME = "belated"  # the client's, and that of the group whose offsets are a courtesy
ATTEMPT = 2_000  # ms for one try; in between, what was logged is looked at
Client = TypeVar("Client", KafkaConsumer, KafkaProducer)

READING = {  # what a consumer of the log is told besides
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "metadata_max_age_ms": 5_000,  # so soon is a new partition noticed
    "max_poll_records": 5_000,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 1 << 20,
}


class NoAnswerError(SourceError):
    """The broker has not said in time where partitions begin and end."""


def options(config: Kafka, context: ssl.SSLContext | None) -> dict[str, Any]:
    """What consumers and producers are told alike."""
    told: dict[str, Any] = {
        "bootstrap_servers": list(config.servers),
        "client_id": NAME,
        "security_protocol": config.protocol,
        "reconnect_backoff_max_ms": ATTEMPT,
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
    }
    if context is not None:
        told["ssl_context"] = context
    if config.protocol.startswith("SASL"):
        told |= {"sasl_mechanism": config.mechanism, "sasl_plain_username": config.username}
        told["sasl_plain_password"] = config.password and config.password.get_secret_value()
    return told


def consumer(config: Kafka, **more: Any) -> KafkaConsumer:
    """A consumer that is connected.

    Raises:
        SourceError: it is not, within ``config.timeout``; why, and the remedy.
    """
    deadline = time.monotonic() + config.timeout / 1000
    context = tls(config)
    probe(config, context, deadline)
    told = options(config, context) | more
    with listening() as said:
        while True:
            left = (deadline - time.monotonic()) * 1000
            try:
                return attempt(KafkaConsumer, told | {"bootstrap_timeout_ms": max(500, min(ATTEMPT, left))})
            except KafkaError as error:
                reason = refusal(config, said, error)
                if reason or left <= ATTEMPT:
                    raise SourceError(reason or unknown(config, said, error)) from None


def attempt(kind: type[Client], told: dict[str, Any]) -> Client:
    """A consumer or producer that is connected, or the error and nothing that is left of it."""
    clients: list[Any] = []

    def client(**options: Any) -> Any:
        clients.append(KafkaNetClient(**options))
        return clients[-1]

    try:
        return kind(**told, kafka_client=client)
    except BaseException:
        for one in clients:
            one.close()  # and the thread it has started
        raise


def topics(consumer: KafkaConsumer, config: Kafka) -> dict[str, set[int]]:
    """The partitions of each topic that is read.

    Raises:
        SourceError: a topic is missing, that of dead letters among them; or there is no answer in time.
    """
    found: list[set[str]] = []
    asking = threading.Thread(target=lambda: found.append(consumer.topics()), daemon=True)  # it would wait for ever
    asking.start()
    asking.join(config.timeout / 1000)
    server = config.servers[0]
    if not found:
        raise SourceError(
            f"kafka {server}: no answer on its topics within {config.timeout / 1000:g} s; the broker must be reachable at "
            "the address it advertises (advertised.listeners)"
        )
    asked = [*config.topics, *([config.dead_letters] if config.dead_letters else [])]
    if missing := [topic for topic in asked if topic not in found[0]]:
        create = f"kafka-topics --bootstrap-server {server} --create --topic {{}} --partitions 4"
        raise SourceError(
            f"kafka {server}: there is no topic {', '.join(missing)} (or the user may not read it); create it: "
            + "; ".join(create.format(topic) for topic in missing)
        )
    return {topic: consumer.partitions_for_topic(topic) for topic in config.topics}


def topic_id(consumer: Any, name: str) -> str:
    """What the broker calls a topic since it was created; empty of a broker that gives no ids."""
    found = consumer._cluster.topic_id(name)
    return "" if found is None else str(found)


def anew(name: str, why: str) -> SourceError:
    """A topic is another one than was read."""
    return SourceError(
        f"{name}: {why}: the topic was created anew; start with a new store.url, or name the topic that was read before"
    )


def still_named(read: Collection[Partition], partitions: Collection[Partition]) -> None:
    """Refuse to go on without a topic that has been read: where it stood would be forgotten.

    Raises:
        SourceError: it names the topics and the remedy.
    """
    if lost := sorted({p.topic for p in read} - {p.topic for p in partitions}):
        raise SourceError(
            f"kafka: the store has been reading {', '.join(lost)}, which [kafka] does not name; name it again, or start "
            "with a new store.url"
        )


def lost(consumer: Any, partitions: Iterable[Partition]) -> Partition | None:
    """One whose topic the broker does not know any more. Asked where its partitions end, the client would ask for ever.

    While the broker is away what it has said last stands.
    """
    return next((p for p in partitions if consumer._cluster.partitions_for_topic(p.topic) is None), None)


def gone(partition: tuple[str, int]) -> SourceError:
    """A partition is not there any more."""
    name = "/".join(map(str, partition))
    return SourceError(
        f"kafka: the broker has no partition {name} any more: the topic was deleted; create it, or name another, and start "
        "again"
    )


def span(
    consumer: KafkaConsumer, config: Kafka, partitions: Sequence[Partition]
) -> tuple[dict[Partition, int], dict[Partition, int]]:
    """The first offset of each partition, and its end.

    Raises:
        NoAnswerError: there is no answer in time.
        SourceError: a topic was deleted.
    """
    places, timeout = [TopicPartition(*p) for p in partitions], config.timeout
    try:
        first = consumer.beginning_offsets(places, timeout_ms=timeout)
        ends = consumer.end_offsets(places, timeout_ms=timeout)
    except KeyError as error:
        raise gone(error.args[0]) from None  # kafka-python misses it in what the broker has answered
    except KafkaError as error:
        raise NoAnswerError(
            f"kafka {', '.join(config.servers)}: no answer on where the partitions begin and end ({error!r}); the "
            "broker must be reachable at the address it advertises (advertised.listeners)"
        ) from None
    return {Partition(*p): n for p, n in first.items()}, {Partition(*p): n for p, n in ends.items()}


def begin(
    consumer: KafkaConsumer, config: Kafka, first: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> Mapping[Partition, int]:
    """Where ``config.start`` is in each partition, between its first offset and its end.

    Raises:
        SourceError: it is no start.
    """
    try:
        found = start(config.start, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise SourceError(f"kafka.start: {error}") from None
    if isinstance(found, str):
        return first if found == "earliest" else ends
    at = consumer.offsets_for_times({TopicPartition(*p): found for p in ends}, timeout_ms=config.timeout)
    return {Partition(*p): one.offset if one else ends[Partition(*p)] for p, one in at.items()}


def unblock(consumer: Any) -> None:
    """Let records come again that the client set aside when their partition was paused.

    kafka-python 3.0.12 takes them up again only while its place for the batch being read is None, and what it leaves there
    is a batch that was read to its end. Then they, and all that follows on their partition, would never come.
    """
    fetcher = getattr(consumer, "_fetcher", None)
    if fetcher is not None and not getattr(fetcher, "_next_partition_records", True):
        fetcher._next_partition_records = None


def tls(config: Kafka) -> ssl.SSLContext | None:
    """How to speak TLS, where the protocol asks for it.

    Raises:
        SourceError: a file of certificates or keys cannot be read.
    """
    if config.protocol not in ("SSL", "SASL_SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=config.cafile)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"kafka.cafile {config.cafile}: no certificates can be read from it ({error})") from None
    context.check_hostname = config.check_hostname
    if config.certfile:
        password = config.key_password.get_secret_value() if config.key_password else ""
        try:
            context.load_cert_chain(config.certfile, config.keyfile, password)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(
                f"kafka.certfile {config.certfile}, keyfile {config.keyfile or config.certfile}: not a certificate with its "
                f"key ({error}); a key's password comes from {variable('kafka.key_password')}"
            ) from None
    return context
