"""Logs on disk and in memory: every line once, in order, whatever the file is like."""

import gzip
import json
from pathlib import Path

import pytest

from stream.codec import Codec, DeadLetter
from stream.files import CUT_OFF, LONGEST, FileSource
from stream.sources import ListSource, Partition, Record, Source, SourceError

LINES = [b'{"n":%d}' % n for n in range(25)]
A, B = Partition("clicks", 0), Partition("views", 1)


def on_disk(folder: Path) -> FileSource:
    for partition in (A, B):
        file = folder / partition.topic / f"{partition.partition}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\n".join(LINES) + b"\n")
    return FileSource(folder)


@pytest.fixture(params=["files", "list"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """The same log, on disk and in memory."""
    return on_disk(tmp_path) if request.param == "files" else ListSource({A: LINES, B: LINES})


def drain(source: Source, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
    found: list[Record] = []
    while records := source.poll(limit, paused):
        assert len(records) <= limit
        found += records
    return found


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_every_record_comes_once_in_the_order_of_its_partition(source: Source, limit: int) -> None:
    """Polls of any size give each partition whole, in order, with its offsets."""
    found = drain(source, limit)
    for partition in (A, B):
        mine = [(r.offset, r.value) for r in found if (r.topic, r.partition) == partition]
        assert mine == list(enumerate(LINES))
    assert source.exhausted() == {A, B}
    assert source.end_offsets() == {A: 25, B: 25}
    assert source.partitions() == [A, B]


def test_paused_partitions_rest(source: Source) -> None:
    """A paused partition gives nothing, and all of it afterwards."""
    assert {r.topic for r in drain(source, 10, frozenset({A}))} == {"views"}
    assert [r.offset for r in drain(source, 10)] == list(range(25))


def test_seek_goes_on_from_an_offset(source: Source) -> None:
    """After a seek the next record of a partition is the one with that offset; others start at their beginning."""
    drain(source, 10)
    source.seek({A: 20})
    found = drain(source, 10)
    assert [r.offset for r in found if r.topic == "clicks"] == list(range(20, 25))
    assert len([r for r in found if r.topic == "views"]) == 25


def values(file: Path) -> list[bytes]:
    return [record.value for record in drain(FileSource(file), 10)]


def test_compressed_logs(tmp_path: Path) -> None:
    """A .gz and a .zst read like the plain file."""
    zstandard = pytest.importorskip("zstandard")
    data = b"\n".join(LINES) + b"\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(data))
    assert values(tmp_path / "a.jsonl.gz") == values(tmp_path / "a.jsonl.zst") == LINES
    assert FileSource(tmp_path / "a.jsonl.gz").partitions() == [Partition("a", 0)]
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(data) + zstandard.compress(b"{}"))
    assert values(tmp_path / "b.jsonl.zst") == [*LINES, b"{}"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_that_is_cut_off_ends_in_a_record_that_says_so(tmp_path: Path, ending: str) -> None:
    """What can be read is read, and the cut is a record nobody can take for an event."""
    lines = [b'{"n":%d,"x":"%d"}' % (n, n * 7919 % 10007) for n in range(5000)]
    data = b"\n".join(lines) + b"\n"
    packed = gzip.compress(data) if ending == "gz" else pytest.importorskip("zstandard").compress(data)
    file = tmp_path / f"a.jsonl.{ending}"
    file.write_bytes(packed[: len(packed) // 2])
    found = values(file)
    assert found[-1] not in lines
    assert set(found[:-1]) <= set(lines)
    assert found[-1] == CUT_OFF


def test_blank_lines_are_passed_over_and_a_cut_off_line_is_a_record(tmp_path: Path) -> None:
    """Offsets are line numbers; a last line without its end is given as it is."""
    (tmp_path / "a.jsonl").write_bytes(b'{"n":0}\r\n\n{"n":2}\n{"n":')
    records = drain(FileSource(tmp_path / "a.jsonl"), 10)
    assert [(r.offset, r.value) for r in records] == [(0, b'{"n":0}'), (2, b'{"n":2}'), (3, b'{"n":')]


def test_an_endless_line_is_one_record_of_its_beginning(tmp_path: Path) -> None:
    """A line over the limit is cut, and the line after it is read."""
    (tmp_path / "a.jsonl").write_bytes(b"x" * (3 * LONGEST + 5) + b"\n{}\n")
    found = values(tmp_path / "a.jsonl")
    assert [len(found[0]), found[1]] == [LONGEST, b"{}"]


def test_envelopes_are_opened(tmp_path: Path) -> None:
    """An envelope gives timestamp, key and value; an event that begins with its value is not one."""
    event = {"type": "item", "item_id": "a", "at": 1}
    bought = {"value": 2.0, "type": "conversion"}
    lines = [{"timestamp": 5, "key": "u", "value": event}, {"value": json.dumps(event)}, bought, {"key": "u"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = drain(FileSource(tmp_path / "a.jsonl"), 10)
    assert (found[0].timestamp, found[0].key, json.loads(found[0].value)) == (5, b"u", event)
    assert (found[1].timestamp, json.loads(found[1].value)) == (None, event)
    assert json.loads(found[2].value) == bought
    assert json.loads(found[3].value) == {"key": "u"}


def test_a_log_that_is_not_there_says_what_was_expected(tmp_path: Path) -> None:
    """Missing, empty and doubled logs are errors with the path and the remedy."""
    with pytest.raises(SourceError, match=r"none: there is no such log; give a folder"):
        FileSource(tmp_path / "none")
    with pytest.raises(SourceError, match=r"holds no partition; expected files like .*events/0.jsonl"):
        FileSource(tmp_path)
    (tmp_path / "events").mkdir()
    for name in ("0.jsonl", "0.jsonl.gz"):
        (tmp_path / "events" / name).write_bytes(b"")
    with pytest.raises(SourceError, match="twice"):
        FileSource(tmp_path)


def test_many_empty_partitions(tmp_path: Path) -> None:
    """Partitions without a record are passed over, however many there are."""
    (tmp_path / "events").mkdir()
    for n in range(2000):
        (tmp_path / "events" / f"{n}.jsonl").write_bytes(b"{}\n" if n == 1999 else b"")
    source = FileSource(tmp_path)
    assert [record.partition for record in source.poll(10)] == [1999]
    assert source.poll(10) == []
    assert len(source.exhausted()) == 2000


@pytest.mark.parametrize(
    "line",
    [
        b'{"timestamp":1,"value":' + b"[" * 100_000,
        b'{"key":"\\ud800","value":{"type":"item"}}',
        b'{"timestamp":1' + b"0" * 40 + b',"value":"x"}',
        b'{"timestamp":1' + b"0" * 5000 + b',"value":"x"}',
        b'{"value":"\\udfff"}',
    ],
)
def test_envelopes_that_would_break_a_reader(tmp_path: Path, line: bytes) -> None:
    """Deep nesting, lone surrogates and numbers beyond all bounds give a record, and its value a dead letter."""
    (tmp_path / "log.jsonl").write_bytes(line + b"\n")
    (record,) = FileSource(tmp_path / "log.jsonl").poll(10)
    assert record.timestamp is None or record.timestamp < 2**63
    assert isinstance(Codec().decode(record), DeadLetter)
