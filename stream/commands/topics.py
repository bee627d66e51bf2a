"""`belated produce` and `export`: a log on disk into Kafka, and a range of Kafka home as a log."""

import re
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.commands import options
from stream.commands.logs import source_of
from stream.terminal import fail, note, out, progress

if TYPE_CHECKING:
    from stream.config import Kafka
    from stream.fetch import LiveRun
    from stream.produce import Router

Config = Annotated[Path, typer.Option("--config", "-c", help="settings; `belated config init` writes a file of them")]
FOREVER = {"retention.ms": "-1"}  # else the broker deletes at once what an old log tells of


class TopicOf(StrEnum):
    """What says which topic a record goes to."""

    type = "type"
    log = "log"


def produce(
    log: options.Log,
    config: Config,
    pace: Annotated[str, typer.Option(help="max; real: the pace of event time; x10: ten times that")] = "max",
    topic_of: Annotated[
        TopicOf, typer.Option(help="a record goes to the topic of its type, or to the one it has in the log")
    ] = TopicOf.type,
    keep_partitions: Annotated[
        bool, typer.Option("--keep-partitions", help="exactly the topics, partitions and keys of the log")
    ] = False,
    create: Annotated[bool, typer.Option("--create", help="make the topics that are missing")] = False,
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="of topics that are made")] = 4,
) -> None:
    """A log on disk into Kafka: all of a user's records into one partition, in the log's order, each with its time.

    Ctrl-C ends it and says how far it came. What is produced twice is known by its ids, and counts once, as long as the
    learner's store keeps it.

    Example: belated produce log/ -c belated.toml --create --partitions 4
    """
    from kafka.errors import KafkaError

    from stream.codec import Codec
    from stream.config import load
    from stream.produce import Router, send

    told, speed = load(config), _speed(pace)
    source = source_of(log, told.mapping)
    router = Router(source, Codec(mapping=told.mapping), told.kafka, keep_partitions, topic_of is TopicOf.type)
    _prepare(told.kafka, router, keep_partitions, partitions if create else None)
    producer = _producer(told.kafka)
    try:
        with progress(f"produce {log}", router.topics.total()) as advance:
            done = send(producer, router.routes(), speed, advance)
    finally:
        with suppress(KafkaError):  # what was not taken has been said
            producer.close(timeout=10)
    counted = ", ".join(f"{times:,} in {topic}" for topic, times in sorted(done.counts.items()))
    out.print(
        f"produced {done.counts.total():,} of {router.topics.total():,} records: {counted or 'none'}", markup=False
    )
    if done.stopped:
        place = f"{done.last.topic}/{done.last.partition}@{done.last.offset}" if done.last else "the beginning"
        note(
            f"stopped by Ctrl-C after {place}; produced again, what came twice counts once as long as the store keeps it"
        )
        raise typer.Exit(130)


def export(
    dst: Annotated[Path, typer.Argument(help="folder of the log to write; must be empty or new")],
    config: Config,
    from_: Annotated[str, typer.Option("--from", help="earliest, ts=2024-05-01T12:00 or last=6h")] = "earliest",
    until: Annotated[str, typer.Option(help="end, ts=2024-05-02, or commit: as far as --store has read")] = "end",
    store: Annotated[
        str | None, typer.Option(help="label store of the live run, whose journal a replay is to obey")
    ] = None,
) -> None:
    """A range of Kafka's topics as a log on disk, byte for byte and with the offsets the records had.

    The broker is only read: no group, no committed offsets. Headers of records are not kept.

    Example: belated export incident/ -c belated.toml --from last=6h
    """
    from stream.config import load
    from stream.fetch import NO_RUN, fetch

    if until == "commit" and not store:
        fail("--until commit: as far as a store has read; name it by --store")
    told = load(config)
    with progress(f"export {dst}") as advance:
        done = fetch(told.kafka, dst, from_, until, _run(store) if store else NO_RUN, advance)
    for place, (begin, end) in sorted(done.ranges.items()):
        count = done.records[place]
        out.print(f"  {place.topic}/{place.partition}: {count:,} records, offsets {begin} to {end}", markup=False)
    also = f", and {done.advances:,} advances of the journal" if store else ""
    out.print(f"{dst}: {sum(done.records.values()):,} records{also}", markup=False)


def _run(store: str) -> "LiveRun":
    from labelstore import ledger
    from labelstore.store import existing
    from stream.fetch import LiveRun
    from stream.sources import stood

    with existing(store) as connection:
        newest = ledger.newest(connection)
        progress = newest.progress if newest else {}
        swaps = ledger.load_swaps(connection) if "graph" in progress else None
        return LiveRun(ledger.load_journal(connection), swaps, stood(progress)[0])


def _speed(pace: str) -> float | None:
    if pace == "max":
        return None
    found = re.fullmatch(r"x(\d{1,6}(?:\.\d{1,3})?)", "x1" if pace == "real" else pace)
    if not found or float(found[1]) <= 0:
        fail(f"--pace {pace!r}: write max, real, or x and how many times faster, such as x10")
    return float(found[1])


def _prepare(config: "Kafka", router: "Router", keep: bool, partitions: int | None) -> None:
    """Look at the topics, and make those that are missing where that was asked for."""
    from stream import broker
    from stream.produce import check

    consumer = broker.consumer(config)
    try:
        existing = consumer.topics()
        there = {topic: len(consumer.partitions_for_topic(topic)) for topic in router.topics if topic in existing}
    finally:
        consumer.close(autocommit=False)
    read = [*config.topics, *([config.dead_letters] if config.dead_letters else [])]  # `belated run` wants all of them
    needed = dict.fromkeys(read, 1) | dict(router.partitions) if partitions else {}
    missing = {topic: max(partitions or 1, need) for topic, need in needed.items() if topic not in existing}
    if missing:
        check(router.partitions, there | missing, keep)
        _create(config, missing)
        note(
            f"made {', '.join(f'{topic} ({n} partitions)' for topic, n in missing.items())}; their records are kept for ever"
        )
    check(router.partitions, there | missing, keep)


def _create(config: "Kafka", missing: dict[str, int]) -> None:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from stream import broker

    told = broker.options(config, broker.tls(config))
    known = {name: value for name, value in told.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
    admin = KafkaAdminClient(**known)
    try:
        admin.create_topics(
            {topic: {"num_partitions": n, "configs": FOREVER} for topic, n in missing.items()}, wait_for_metadata=True
        )
    except KafkaError as error:
        fail(f"topics {', '.join(missing)} cannot be made: {error}")
    finally:
        admin.close()


def _producer(config: "Kafka") -> Any:
    from kafka import KafkaProducer

    from stream import broker

    told = broker.options(config, broker.tls(config))
    return KafkaProducer(**told, enable_idempotence=True, linger_ms=20, batch_size=256_000)
