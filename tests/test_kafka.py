"""The live source on a real broker: where it begins, what it reads, how silence and new partitions are noticed."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaTimeoutError
from servers import free_port
from sqlalchemy import select

from broker_tools import configured, grow, produce, until
from labelstore.letters import Letter, Place
from labelstore.tables import dead_letters
from stream.codec import Codec, DeadLetter
from stream.config import Kafka
from stream.kafka_outbox import KafkaOutbox
from stream.kafka_source import KafkaSource
from stream.loop import Loop
from stream.sources import Partition, Record, SourceError
from stream.start import start
from stream.workspace import opened
from test_journal import NOBODY, item


@contextmanager
def reading(config: Kafka) -> Iterator[KafkaSource]:
    source = KafkaSource(config)
    try:
        yield source
    finally:
        source.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("ts=1970-02-01", None),
        ("ts=2024-05-01", 1714521600000),
        ("last=1h", 6_400_000),
    ],
)
def test_the_grammar_of_a_start(text: str, expected: object) -> None:
    """earliest, latest, a moment, or a time before now; what is none of them is refused."""
    if expected is None:
        with pytest.raises(ValueError, match="2000 to 2100"):
            start(text, 10_000_000)
    else:
        assert start(text, 10_000_000) == expected
    with pytest.raises(ValueError, match="write earliest, latest"):
        start("first", 0)


def test_records_come_with_key_timestamp_and_place(kafka: str) -> None:
    """All partitions of all topics are read, sorted, from the beginning; seek goes where it is told."""
    config = configured(kafka)
    produce(
        kafka, [(config.items, 1, b"x"), (config.items, 1, b"y"), (config.impressions, 0, b"z")], at=1_700_000_000_000
    )
    with reading(config) as source:
        partitions = source.partitions()
        assert partitions == sorted(Partition(t, n) for t in config.topics for n in range(2))
        busy = Partition(config.items, 1)
        found = until(source, lambda found: len(found) >= 3)
        assert Record(config.impressions, 0, 0, 1_700_000_000_000, b"k0", b"z") in found
        assert source.positions()[busy] == 2
        source.seek({busy: 1, Partition(config.impressions, 0): 1})
        (again,) = until(source, lambda found: len(found) >= 1)
        assert again == Record(*busy, 1, 1_700_000_000_000, b"k1", b"y")


def test_paused_when_half_read(kafka: str) -> None:
    """A partition that is paused in the middle of what was fetched of it goes on where it stood, also when the other has
    been read out meanwhile and is paused in its turn."""
    config = configured(kafka)
    produce(kafka, [(config.items, n % 2, item(n)) for n in range(200)])
    one, other = (Partition(config.items, n) for n in (0, 1))
    with reading(config) as source:
        for now, paused, until_ in ((one, other, 50), (other, one, 100), (one, other, 100)):
            end = time.monotonic() + 10
            while source.positions()[now] < until_:
                assert time.monotonic() < end, source.positions()
                source.poll(7, frozenset({paused}))  # the last poll of a batch finds its end


def test_a_paused_partition_shows_nothing(kafka: str) -> None:
    """While it is paused its records wait; afterwards they come, all of them."""
    config = configured(kafka)
    produce(kafka, [(config.items, n % 2, b"%d" % n) for n in range(10)])
    paused = frozenset({Partition(config.items, 1)})
    with reading(config) as source:
        found = [record for _ in range(8) for record in source.poll(100, paused)]
        assert {record.partition for record in found} == {0}
        found += until(source, lambda more: len(found) + len(more) >= 10)
        assert sorted(record.value for record in found) == [b"%d" % n for n in range(10)]


def test_a_tombstone_is_a_dead_letter(kafka: str) -> None:
    """A record without a value is one with an empty value, and the codec says what it is."""
    config = configured(kafka)
    produce(kafka, [(config.items, 0, None)])
    with reading(config) as source:
        (record,) = until(source, lambda found: len(found) == 1)
    letter = Codec().decode(record)
    assert isinstance(letter, DeadLetter)
    assert "tombstone" in letter.reason


@pytest.mark.parametrize(("begin", "expected"), [("earliest", 3), ("latest", 0), ("ts=2023-11-15", 2), ("last=1h", 1)])
def test_where_a_first_start_begins(kafka: str, begin: str, expected: int) -> None:
    """At the beginning, at the end, at a moment of the records' own timestamps, or so long ago."""
    config = configured(kafka, start=begin)
    produce(kafka, [(config.items, 0, b"old")], at=1_600_000_000_000)
    produce(kafka, [(config.items, 0, b"newer")], at=1_700_100_000_000)
    produce(kafka, [(config.items, 0, b"now")])
    with reading(config) as source:
        assert (
            source.end_offsets()[Partition(config.items, 0)] - source.positions()[Partition(config.items, 0)]
            == expected
        )


def test_silence_is_confirmed_by_the_broker(kafka: str) -> None:
    """All are silent half a second after the last record, not before; a record ends it."""
    config = configured(kafka)
    produce(kafka, [(config.items, 0, b"x")])
    with reading(config) as source:
        begun = time.monotonic()
        until(source, lambda found: len(source.silent()) == 8)
        assert time.monotonic() - begun >= 0.5
        produce(kafka, [(config.items, 0, b"y")])
        until(source, lambda found: len(found) == 1)
        until(source, lambda found: len(source.silent()) == 7)
        assert source.lag[Partition(config.items, 0)] == 0


def test_a_partition_added_at_run_time_is_read_from_its_beginning(kafka: str) -> None:
    """It is noticed, also where the first start was at the end."""
    config = configured(kafka, start="latest")
    with reading(config) as source:
        source.poll(10)
        grow(kafka, config.items, 3)
        produce(kafka, [(config.items, 2, b"x")])
        (record,) = until(source, lambda found: len(found) == 1)
        assert (record.partition, record.offset) == (2, 0)
        assert Partition(config.items, 2) in source.partitions()


def silence(source: KafkaSource, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The broker does not say where partitions begin, three times; what was asked for."""
    asked: list[str] = []
    answer = source._consumer.beginning_offsets

    def perhaps(places: list[TopicPartition], timeout_ms: int) -> Any:
        asked.append(f"{places[0].topic}/{places[0].partition}")
        if len(asked) <= 3:
            raise KafkaTimeoutError("no answer")
        return answer(places, timeout_ms=timeout_ms)

    monkeypatch.setattr(source._consumer, "beginning_offsets", perhaps)
    return asked


def test_no_answer_on_a_partition_that_was_added(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker does not say where it begins it stays new; then it is read from its beginning."""
    config = configured(kafka, start="latest")
    with reading(config) as source:
        source.poll(10)
        asked = silence(source, monkeypatch)
        grow(kafka, config.items, 3)
        produce(kafka, [(config.items, 2, b"x"), (config.items, 0, b"y")])
        found = until(source, lambda found: len(found) == 2)
        assert sorted((r.partition, r.offset) for r in found) == [(0, 0), (2, 0)]
        assert len(asked) == 4


def test_no_answer_when_retention_has_overtaken_us(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next poll asks again: nothing is read past what is gone, and nothing ends."""
    config = configured(kafka, retention="earliest")
    place = Partition(config.items, 0)
    produce(kafka, [(config.items, 0, b"%d" % n) for n in range(10)])
    with reading(config) as source:
        source.seek({place: 0})
        delete_before(kafka, place, 6)
        asked = silence(source, monkeypatch)
        found = until(source, lambda found: len(found) == 4)
        assert [r.offset for r in found] == [6, 7, 8, 9]
        assert source.gone[place] == 6
        assert len(asked) == 4


def test_a_missing_topic_is_named_with_the_command(kafka: str) -> None:
    """The message names the topics and how to create them."""
    config = configured(kafka).model_copy(update={"signals": "nowhere", "items": "nothing"})
    with pytest.raises(SourceError, match=r"no topic nowhere, nothing .*kafka-topics .*--create --topic nowhere"):
        KafkaSource(config)


def delete_before(server: str, partition: Partition, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.delete_records({TopicPartition(*partition): offset})
    admin.close()


def test_what_retention_has_deleted(kafka: str) -> None:
    """An offset below the log's beginning: refused with the remedy, or gone on from the earliest, with the loss counted."""
    config = configured(kafka)
    place = Partition(config.items, 0)
    produce(kafka, [(config.items, 0, b"%d" % n) for n in range(10)])
    delete_before(kafka, place, 6)
    with (
        reading(config) as source,
        pytest.raises(SourceError, match=r"offset 2\) is gone.* begins at 6: .*deleted 4 .*earliest"),
    ):
        source.seek({place: 2})
    with reading(config.model_copy(update={"retention": "earliest"})) as source:
        source.seek({place: 2})
        assert [record.offset for record in until(source, lambda found: len(found) == 4)] == [6, 7, 8, 9]
        assert source.gone[place] == 4


def test_an_offset_beyond_the_end_is_another_topic(kafka: str) -> None:
    """Whatever the policy: a topic that was created anew is refused."""
    config = configured(kafka, retention="earliest")
    with (
        reading(config) as source,
        pytest.raises(SourceError, match=r"at offset 7, but the log ends at 0: .*created anew"),
    ):
        source.seek({Partition(config.items, 0): 7})


def test_a_topic_made_anew_is_another_one(kafka: str) -> None:
    """Though it has grown past where we stand: it has another id."""
    config = configured(kafka)
    place = Partition(config.items, 0)
    produce(kafka, [(config.items, 0, b"old%d" % n) for n in range(3)])
    with reading(config) as source:
        old = until(source, lambda found: len(found) == 3)[-1]
        marks = {place: source.mark(old)}
        assert len(marks[place]) == 36
        source.seek({place: 3}, marks)
    anew(kafka, config.items)
    produce(kafka, [(config.items, 0, b"new%d" % n) for n in range(9)])
    with reading(config) as source:
        with pytest.raises(
            SourceError, match=f"{config.items}: it has another id than when we read it: .*created anew"
        ):
            source.seek({place: 3}, marks)
        source.seek({place: 3}, {place: ""})  # of a broker that gives no ids


def anew(server: str, topic: str) -> None:
    """Delete a topic, and make it again."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.delete_topics([topic])
    deadline = time.monotonic() + 20
    while topic in admin.list_topics():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    admin.create_topics([NewTopic(topic, 2, 1)])
    admin.close()


@pytest.mark.parametrize("others", [(), ("impressions", "signals", "conversions")], ids=["one", "all"])
def test_a_topic_that_is_deleted_is_a_sentence(kafka: str, others: tuple[str, ...]) -> None:
    """While it is read: it names the topic and the remedy. Where no topic is left that the broker could tell the end of, it
    is not taken for one that does not answer."""
    config = configured(kafka)
    config = config.model_copy(update=dict.fromkeys(others, config.items))
    with reading(config) as source:
        source.poll(10)
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.delete_topics([config.items])
        admin.close()
        with pytest.raises(SourceError, match=rf"kafka: .*{config.items}.* start again"):
            until(source, lambda found: False)


def test_an_open_transaction_is_no_silence(kafka: str) -> None:
    """What it has written cannot be read yet and will be: the partition holds its clock. Once it is closed, the position
    is past its mark, and then the partition is silent."""
    config = configured(kafka, partitions=1)
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=uuid4().hex)
    producer.init_transactions()
    place = Partition(config.items, 0)
    with reading(config) as source, opened(None, NOBODY) as (store, checkpoints):
        loop = Loop(source, NOBODY, store, checkpoints)
        producer.begin_transaction()
        producer.send(config.items, b"x", partition=0).get(10)
        others, end = set[Partition](), time.monotonic() + 4 * config.idle_after / 1000
        while time.monotonic() < end:
            loop.reading.read(100, loop.passed)
            assert place not in source.silent()
            others |= source.silent()
        assert Partition(config.impressions, 0) in others
        producer.commit_transaction()
        end = time.monotonic() + 20
        while place not in source.silent():
            assert time.monotonic() < end
            loop.reading.read(100, loop.passed)
        assert loop.reading.offsets[place] == source.end_offsets()[place] == 2  # the record, and the mark
    producer.close()


def test_a_letter_that_is_too_large_holds_up_no_other(kafka: str) -> None:
    """It goes without its key, and if that is too large still, not at all; the others are sent, and told."""
    config = configured(kafka)
    assert config.dead_letters
    large = b"k" * 1_048_400
    letters = [
        Letter(Place("events", 0, n), None, key, value, "not JSON", None)
        for n, (key, value) in enumerate([(b"a", b"1"), (large, b"{"), (b"b", b"x" * 2_000_000), (b"c", b"2")])
    ]
    outbox = KafkaOutbox(config)
    assert outbox.send(letters) == ([letters[n].place for n in (0, 1, 3)], [letters[2].place])
    outbox.close()
    assert sorted(one[1] for one in letters_of(kafka, config.dead_letters, 3)) == [b"1", b"2", b"{"]


def test_a_letter_that_the_broker_refuses_holds_up_no_other(kafka: str) -> None:
    """The topic takes less than the client: those beside it in its batch arrive, and so do those of the next commit."""
    config = configured(kafka, dead_letters=f"small-{time.time_ns()}")
    assert config.dead_letters
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic(config.dead_letters, 1, 1, topic_configs={"max.message.bytes": "3000"})])
    admin.close()
    values = [b"1", b"x" * 9000, b"2", b"3"]
    letters = [Letter(Place("events", 0, n), None, None, value, "not JSON", None) for n, value in enumerate(values)]
    outbox = KafkaOutbox(config)
    assert outbox.send(letters[:3]) == ([letters[0].place, letters[2].place], [letters[1].place])
    assert outbox.send([letters[1], letters[3]]) == ([letters[3].place], [letters[1].place])
    outbox.close()
    assert sorted(one[1] for one in letters_of(kafka, config.dead_letters, 3)) == [b"1", b"2", b"3"]


def test_a_topic_that_is_not_named_any_more_is_refused(kafka: str) -> None:
    """Going on without it would forget where it stood, and read it from its beginning once it is named again."""
    config = configured(kafka)
    other = config.model_copy(update={"items": configured(kafka).items})
    with (
        reading(other) as source,
        pytest.raises(SourceError, match=rf"has been reading {config.items}, which .* name it"),
    ):
        source.seek({Partition(config.items, 0): 0, Partition(config.impressions, 0): 0})


def test_offsets_are_told_to_the_group(kafka: str) -> None:
    """A courtesy: tools see the group `belated`."""
    config = configured(kafka)
    place = TopicPartition(config.items, 0)
    produce(kafka, [(config.items, 0, b"x")])
    with reading(config) as source:
        source.commit({Partition(config.items, 0): 1})
    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id="belated", enable_auto_commit=False)
    assert consumer.committed(place) == 1
    consumer.close()


def letters_of(server: str, topic: str, count: int) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
    consumer = KafkaConsumer(topic, bootstrap_servers=server, auto_offset_reset="earliest", group_id=None)
    found: list[Any] = []
    while len(found) < count:
        found += [r for records in consumer.poll(timeout_ms=500).values() for r in records]
    consumer.close()
    return [(record.key, record.value, dict(record.headers)) for record in found]


def test_dead_letters_are_forwarded_after_the_commit(kafka: str) -> None:
    """With the record's key, and headers that say where it stands and why; marked, and not sent twice."""
    config = configured(kafka)
    produce(kafka, [(config.items, 0, b"{"), (config.items, 1, item(5)), (config.items, 1, None)])
    outbox = KafkaOutbox(config)
    with reading(config) as source, opened(None, NOBODY) as (store, checkpoints):
        loop = Loop(source, NOBODY, store, checkpoints, outbox=outbox)
        loop.run(stop=lambda: loop.counts["read"] == 3)
        assert set(store.connection.execute(select(dead_letters.c.forwarded)).scalars()) == {1}
        loop.commit()
    outbox.close()
    assert config.dead_letters
    (first, second) = sorted(letters_of(kafka, config.dead_letters, 2))
    assert first[:2] == (b"k0", b"{")
    assert {name: first[2][name] for name in ("topic", "partition", "offset")} == {
        "topic": config.items.encode(), "partition": b"0", "offset": b"0",
    }  # fmt: skip
    assert first[2]["reason"].startswith(b"not JSON")
    assert second[:2] == (b"k1", b"")


def test_a_topic_of_dead_letters_that_is_gone_stops_nothing(kafka: str) -> None:
    """What cannot be sent is not marked."""
    config = configured(kafka).model_copy(update={"dead_letters": None, "servers": ("127.0.0.1:1",)})
    outbox = KafkaOutbox(config.model_copy(update={"dead_letters": "nowhere"}))
    assert outbox.send([Letter(Place("events", 0, 1), None, None, b"{", "not JSON", None)]) == ([], [])


def test_a_broker_that_is_gone_is_no_silence(kafka_script: Path, tmp_path: Path) -> None:
    """Killed, it gives nothing and nobody is silent; started again, reading goes on by itself."""
    port = free_port()
    server, where = f"127.0.0.1:{port}", ["--port", str(port), "--dir", str(tmp_path), "--heap", "256m"]
    subprocess.run([kafka_script, "start", *where], check=True, capture_output=True)
    try:
        config = configured(server)
        with reading(config) as source:
            until(source, lambda found: len(source.silent()) == 8)
            subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                assert source.poll(10) == []
                assert source.silent() == frozenset() or source.reachable
            assert not source.reachable
            subprocess.run([kafka_script, "start", *where], check=True, capture_output=True)
            produce(server, [(config.items, 0, b"x")])
            assert [record.value for record in until(source, lambda found: len(found) == 1, 60)] == [b"x"]
            assert source.reachable or source.poll(1) == []
    finally:
        subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)
