"""A log into Kafka and home again, with a real broker: every byte, every offset, and the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from labelstore.events import ADAPTER
from strategies import HOUR, T0, lines
from stream import fetch, numbering
from stream.appending import Tail
from stream.backtest import backtest
from stream.cli import app
from stream.codec import Codec
from stream.config import Kafka
from stream.envelope import exact, parse
from stream.fetch import _File
from stream.files import FileSource
from stream.numbering import Numbering
from stream.produce import Router, check
from stream.settings import Settings
from stream.sources import Partition, SourceError
from test_loop import own

RUN = CliRunner()


def impression(n: int, user: bool = True) -> dict[str, Any]:
    told = {"type": "impression", "impression_id": f"i{n}", "at": T0 + n * HOUR, "features": {"n": n % 5, "x": 1.5}}
    return told | ({"user_id": f"u{n % 7}", "item_id": "a"} if user else {})


def bought(n: int) -> dict[str, Any]:
    at = T0 + n * HOUR + 1
    return {"type": "conversion", "event_id": f"c{n}", "kind": "purchase", "at": at, "impression_id": f"i{n}"}


def back(n: int) -> dict[str, Any]:
    at = T0 + n * HOUR + 2
    return {"type": "adjustment", "event_id": f"a{n}", "at": at, "conversion_id": f"c{n}", "action": "retract"}


def write(folder: Path, partitions: dict[str, list[bytes]]) -> Path:
    for name, rows in partitions.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(row + b"\n" for row in rows))
    return folder


@pytest.fixture
def topics(kafka: str, tmp_path: Path) -> Kafka:
    """Topics with names of this test's own, and a file of settings, belated.toml, that names them."""
    own_ = uuid4().hex[:8]
    named = {kind: f"{kind}-{own_}" for kind in ("impressions", "signals", "conversions", "items")}
    told = "".join(f'{kind} = "{topic}"\n' for kind, topic in named.items())
    (tmp_path / "belated.toml").write_text(f'[kafka]\nservers = ["{kafka}"]\n{told}')
    return Kafka.model_validate({"servers": (kafka,), **named})


def belated(folder: Path, *arguments: str | Path) -> Result:
    return RUN.invoke(app, [*map(str, arguments), "-c", str(folder / "belated.toml")])


def all_of(log: Path) -> dict[Partition, list[tuple[Any, ...]]]:
    source = FileSource(log)
    return {p: [tuple(record)[2:] for record in source.records(p)] for p in source.partitions()}


def test_home_and_back_is_the_same_log(topics: Kafka, tmp_path: Path) -> None:
    """An export of what was produced has every byte of the log, at its offset, and replays to the same result."""
    rows = [[impression(n) for n in range(k, 300, 2)] for k in (0, 1)]
    sold = [bought(n) for n in range(0, 300, 5)] + [back(0)]
    odd = [b"{", bytes([0xFF, 0, 10, 13]), b'{"type": "item" }', b"[1,2]", b'"text"', b"1e400"]
    written = {f"{topics.impressions}/{k}": lines(rows[k]) for k in (0, 1)}
    strange = [exact(T0 + 5, b"\xff", value) for value in odd]
    log = write(tmp_path / "log", written | {f"{topics.conversions}/0": [*strange, *lines(sold)]})
    _make(topics, topics.signals, topics.items)
    done = belated(tmp_path, "produce", log, "--keep-partitions", "--create", "--partitions", "2")
    assert done.exit_code == 0, done.output
    done = belated(tmp_path, "export", tmp_path / "home")
    assert done.exit_code == 0, done.output
    settings = Settings(window=10 * HOUR, wait=HOUR)
    one, two = (backtest("x", FileSource(place), settings).summary for place in (log, tmp_path / "home"))
    assert one["events"] == two["events"]
    assert one["events"]["dead_letters"] == len(odd)
    assert [own(told) for told in one["methods"].values()] == [own(told) for told in two["methods"].values()]
    home = all_of(tmp_path / "home")
    assert [row[-1] for row in home[Partition(topics.conversions, 0)]][: len(odd)] == odd
    assert home[Partition(topics.conversions, 0)][0][2] == b"\xff"
    for place, records in all_of(log).items():
        assert [(row[0], row[-1]) for row in records] == [(row[0], row[-1]) for row in home[place]]


def _make(topics: Kafka, *names: str, partitions: int = 1) -> None:
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=list(topics.servers))
    admin.create_topics({name: {"num_partitions": partitions} for name in names}, wait_for_metadata=True)
    admin.close()


def test_a_users_records_share_a_partition(topics: Kafka, tmp_path: Path) -> None:
    """Whatever names only an impression or a conversion goes where the user's impression went, in the topic of its type."""
    rows = [e for n in range(40) for e in (impression(n, n % 4 > 0), bought(n), back(n))]
    log = write(tmp_path / "log", {"events/0": lines(rows)})
    _make(topics, topics.signals, topics.items, partitions=3)
    done = belated(tmp_path, "produce", log, "--create", "--partitions", "3")
    assert done.exit_code == 0, done.output
    assert f"40 in {topics.impressions}" in done.output
    assert belated(tmp_path, "export", tmp_path / "home").exit_code == 0
    at: dict[str, set[int]] = {}
    seen: list[str] = []
    for (topic, partition), records in all_of(tmp_path / "home").items():
        for _, timestamp, key, value in records:
            event = ADAPTER.validate_json(value)
            assert timestamp == event.at
            at.setdefault(key.decode(), set()).add(partition)
            seen.append(topic)
    assert all(len(partitions) == 1 for partitions in at.values())
    assert set(at) == {f"u{n}" for n in range(7)} | {f"i{n}" for n in range(0, 40, 4)}
    assert sorted(set(seen)) == sorted({topics.impressions, topics.conversions})


def test_a_part_of_a_log_keeps_its_offsets(topics: Kafka, tmp_path: Path) -> None:
    """From and until are record times; offsets are those of the broker, across the gaps of aborted transactions too."""
    from kafka import KafkaProducer

    _make(topics, *topics.topics)
    now = time.time_ns() // 1_000_000  # markers of transactions have the time of the broker: records here are after it
    at = [now + 60_000 * (n + 1) for n in range(6)]
    producer = KafkaProducer(bootstrap_servers=list(topics.servers), transactional_id=uuid4().hex)
    producer.init_transactions()
    for n, good in enumerate((True, True, False, True, True)):
        producer.begin_transaction()
        producer.send(topics.impressions, json.dumps(impression(n)).encode(), timestamp_ms=at[n])
        producer.flush()
        producer.commit_transaction() if good else producer.abort_transaction()
    producer.close()
    spans = ["--from", f"ts={at[1]}", "--until", f"ts={at[4]}"]
    done = belated(tmp_path, "export", tmp_path / "home", *spans)
    assert done.exit_code == 0, done.output
    source = FileSource(tmp_path / "home")
    place = Partition(topics.impressions, 0)
    assert [record.offset for record in source.records(place)] == [2, 6]
    assert source.positions()[place] == 2
    assert source.end_offsets()[place] == 7
    assert belated(tmp_path, "export", tmp_path / "all").exit_code == 0
    assert [row[0] for row in all_of(tmp_path / "all")[place]] == [0, 2, 6, 8]
    again = belated(tmp_path, "export", tmp_path / "home")
    assert isinstance(again.exception, FileExistsError)


def test_an_export_that_failed_can_be_repeated(topics: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after all was copied it leaves no file; the same command writes the log."""
    log = write(tmp_path / "log", {f"{topics.impressions}/0": lines([impression(n) for n in range(3)])})
    produced = belated(tmp_path, "produce", log, "--keep-partitions", "--topic-of", "log", "--create")
    assert produced.exit_code == 0, produced.output
    copy = fetch._copy

    def interrupted(*given: Any) -> None:
        copy(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_copy", interrupted)
        assert belated(tmp_path, "export", tmp_path / "home").exit_code == 130
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    done = belated(tmp_path, "export", tmp_path / "home")
    assert done.exit_code == 0, done.output
    assert [len(rows) for rows in all_of(tmp_path / "home").values() if rows] == [3]


def _until_some(topics: Kafka) -> None:
    """Wait until Kafka has a record of an impression."""
    from kafka import KafkaConsumer, TopicPartition

    place, deadline = TopicPartition(topics.impressions, 0), time.monotonic() + 60
    consumer = KafkaConsumer(bootstrap_servers=list(topics.servers), metadata_max_age_ms=500)
    while topics.impressions not in consumer.topics() or not consumer.end_offsets([place])[place]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    consumer.close()


def test_the_record_that_is_refused_is_told(topics: Kafka, tmp_path: Path) -> None:
    """Not one that was in its batch: the broker takes no record of 2096, and refuses the others beside it."""
    later = impression(5) | {"at": 4_000_000_000_000}
    log = write(tmp_path / "log", {"events/0": lines([impression(n) for n in range(5)] + [later, impression(6)])})
    done = belated(tmp_path, "produce", log, "--create", "--partitions", "1")
    assert isinstance(done.exception, SourceError)
    assert "record events/0@5 was not taken" in str(done.exception)
    assert "0 records before it are in Kafka" in str(done.exception)


def test_what_is_in_kafka_before_a_large_record_is_told(topics: Kafka, tmp_path: Path) -> None:
    """The client refuses it at once, while those before it are still on their way: they arrive, and are counted."""
    large = impression(5) | {"features": {f"f{n}": ["w" * 200] * 90 for n in range(60)}}
    log = write(tmp_path / "log", {"events/0": lines([impression(n) for n in range(5)] + [large, impression(6)])})
    done = belated(tmp_path, "produce", log, "--create", "--partitions", "1")
    assert "record events/0@5 was not taken" in str(done.exception)
    assert "; 5 records before it are in Kafka" in str(done.exception)


def test_ctrl_c_ends_cleanly(topics: Kafka, tmp_path: Path) -> None:
    """At the pace of event time a log takes long; Ctrl-C says how far it came, and that is what Kafka has."""
    log = write(tmp_path / "log", {"events/0": lines([impression(n) for n in range(1000)])})
    arguments = [
        "produce",
        str(log),
        "-c",
        str(tmp_path / "belated.toml"),
        "--create",
        "--partitions",
        "1",
        "--pace",
        "x36000",
    ]
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background shell ignores it
    command = [
        sys.executable,
        "-c",
        f"{heard}; import stream.cli; print('up', flush=True); stream.cli.main()",
        *arguments,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        _until_some(topics)
        run.send_signal(signal.SIGINT)
        said, told = run.communicate(timeout=60)
    assert run.returncode == 130, told
    sent = int(said.split()[1])
    assert 0 < sent < 1000
    assert f"stopped by Ctrl-C after events/0@{sent - 1};" in told
    assert belated(tmp_path, "export", tmp_path / "home").exit_code == 0
    assert sum(len(rows) for rows in all_of(tmp_path / "home").values()) == sent


# without a broker -----------------------------------------------------------------------------------------------------


def test_topics_that_do_not_fit_are_refused() -> None:
    """Missing ones, too few partitions, and numbers that would part a user's records, each with the remedy."""
    with pytest.raises(SourceError, match="no topic b; create it, or give --create"):
        check({"a": 1, "b": 1}, {"a": 1}, False)
    with pytest.raises(SourceError, match=r"different numbers of partitions \(a 1, b 2\).*--alter"):
        check({"a": 1, "b": 1}, {"a": 1, "b": 2}, False)
    with pytest.raises(SourceError, match="a has 1 partitions, the log 3"):
        check({"a": 3}, {"a": 1}, True)
    check({"a": 1, "b": 2}, {"a": 1, "b": 2}, True)


def test_partitions_of_a_log_are_merged_by_event_time(tmp_path: Path) -> None:
    """Each keeps its order; what comes late in one waits for nobody."""
    rows = {f"e/{k}": lines([impression(n) for n in ([0, 4, 2, 6] if k else [1, 3, 5])]) for k in (0, 1)}
    routes = Router(FileSource(write(tmp_path, rows)), Codec(), Kafka()).routes()
    assert [json.loads(route.record.value)["impression_id"] for route in routes] == [
        "i0",
        "i1",
        "i3",
        "i4",
        "i2",
        "i5",
        "i6",
    ]


@given(st.one_of(st.none(), st.integers(0, 2**61)), st.one_of(st.none(), st.binary(max_size=9)), st.binary(max_size=30))
def test_any_bytes_survive_an_envelope(timestamp: int | None, key: bytes | None, value: bytes) -> None:
    """A line reads back as just these bytes."""
    line = exact(timestamp, key, value)
    assert b"\n" not in line
    assert b"\r" not in line
    assert parse(line) == (timestamp, key, value)


@pytest.mark.parametrize("value", [b'{"a":1}', b'{"a": 1.0}', b'{"a":1,"a":2}', b"1e999", b"[" * 300, b"\0" * 99, b""])
def test_json_that_would_change_stands_as_text(value: bytes) -> None:
    """Spaces, doubled names, infinite numbers and deep nesting survive."""
    assert parse(exact(1, None, value)) == (1, None, value)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), max_size=5))
def test_lines_and_offsets_are_one_to_one(parts: list[tuple[int, int]]) -> None:
    """Every line has an offset, they rise, and each leads back to its line."""
    jumps, line, offset = [], 0, 0
    for length, gap in parts:
        jumps.append((line, offset + gap))
        line, offset = line + length, offset + gap + length
    numbers = Numbering(jumps)
    told = [offset for _, offset in zip(range(line + 3), numbers.offsets(), strict=False)]
    assert told == [numbers.offset(n) for n in range(line + 3)] == sorted(set(told))
    assert [numbers.line(offset) for offset in told] == list(range(line + 3))


def test_appending_to_an_exported_log_goes_on_with_its_offsets(tmp_path: Path) -> None:
    """A retried dead letter gets the offset after the last, not the number of its line."""
    write(tmp_path, {"e/0": lines([impression(0), impression(1)])})
    numbering.write(tmp_path / numbering.NAME, {Partition("e", 0): [(0, 500)]})
    source = FileSource(tmp_path)
    tail = Tail(source.file(Partition("e", 0)), source.numbers(Partition("e", 0)))
    assert tail.append(lines([impression(2)])) == 502
    assert [record.offset for record in FileSource(tmp_path).records(Partition("e", 0))] == [500, 501, 502]
    assert source.lines() == {Partition("e", 0): 3}


def test_a_broken_numbering_is_told(tmp_path: Path) -> None:
    """Offsets that do not rise, or a file of something else, are an error with the remedy."""
    write(tmp_path, {"e/0": []})
    for told in ('{"e/0": [[0, 5], [3, 6]]}', "[1]", '{"e": [[0, 1]]}', '{"e/0": [[0, -1]]}', "{"):
        (tmp_path / "offsets.json").write_text(told)
        with pytest.raises(SourceError, match="export the log again"):
            FileSource(tmp_path)


class Sent(NamedTuple):
    """A record as the client gives it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def test_long_gaps_are_jumps_and_short_ones_blank_lines(tmp_path: Path) -> None:
    """Offsets survive compaction of any size, and the file stays as small as its records."""
    place = Partition("e", 0)
    offsets = [500, 501, 504, 10**9, 10**9 + 1_000]
    (tmp_path / "e").mkdir()
    with _File(tmp_path / "e" / "0.jsonl", 498) as file:
        for offset in offsets:
            file.write(Sent(offset, 5, None, None if offset == 501 else b"{}"))
        numbering.write(tmp_path / numbering.NAME, {place: file.jumps})
    records = list(FileSource(tmp_path).records(place))
    assert [record.offset for record in records] == offsets
    assert records[1].value == b""
    assert file.jumps == [(0, 498), (7, 10**9)]
