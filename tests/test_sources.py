"""Logs on disk and in memory: every line once, in order, whatever the file is like."""

import gzip
import json
from pathlib import Path

import pytest

from stream.codec import Codec, DeadLetter
from stream.files import CUT_OFF, LONGEST, FileSource
from stream.sources import ListSource, Partition, Record, Source, SourceError, digest

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
@pytest.mark.parametrize("harm", ["cut", "damaged", "other"])
def test_a_compressed_file_is_read_as_far_as_it_goes(tmp_path: Path, ending: str, harm: str) -> None:
    """What cannot be unpacked is left, and said; whole again, it is read from there on. Searched, it is a record."""
    lines = [b'{"n":%d,"x":"%d"}' % (n, n * 7919 % 10007) for n in range(50_000)]
    data = b"\n".join(lines) + b"\n"
    packed = gzip.compress(data) if ending == "gz" else pytest.importorskip("zstandard").compress(data)
    half, file = len(packed) // 2, tmp_path / f"a.jsonl.{ending}"
    bad = {"cut": packed[:half], "damaged": packed[:half] + bytes(64) + packed[half + 64 :], "other": b"hello" * 99}
    file.write_bytes(bad[harm])
    source, place = FileSource(file), Partition("a", 0)
    found = [record.value for record in drain(source, 1000)]
    assert found[:1] in ([], lines[:1])  # a .gz shows damage at its end, in what does not add up
    assert source.left == {place: "the compressed file is cut off or damaged"}
    assert [record.value for record in source.records(place)][-1] == CUT_OFF
    if harm == "cut":
        assert found == lines[: len(found)]
        file.write_bytes(packed)
        again = FileSource(file)
        again.seek(source.positions(), {place: digest(found[-1])} if found else {})
        assert found + [record.value for record in drain(again, 1000)] == lines
        assert again.left == {}


def test_a_last_line_without_its_end_is_left_until_it_is_whole(tmp_path: Path) -> None:
    """Offsets are line numbers; blank lines are passed over; a writer may be in the middle of the last one."""
    file, place = tmp_path / "a.jsonl", Partition("a", 0)
    file.write_bytes(b'{"n":0}\r\n\n{"n":2}\n{"n":')
    source = FileSource(file)
    assert [(r.offset, r.value) for r in drain(source, 10)] == [(0, b'{"n":0}'), (2, b'{"n":2}')]
    assert source.left == {place: "its last line has no end and is not JSON"}
    assert [r.offset for r in source.records(place)] == [0, 2, 3]
    file.write_bytes(b'{"n":0}\r\n\n{"n":2}\n{"n":3}')
    again = FileSource(file)
    again.seek(source.positions())
    assert [(r.offset, r.value) for r in drain(again, 10)] == [(3, b'{"n":3}')]
    assert again.left == {}


def test_another_log_is_not_taken_for_the_one_that_was_read(tmp_path: Path) -> None:
    """Where it is shorter, lacks a partition, or has another record at the place; a line that was blanked may be there."""
    source = on_disk(tmp_path)
    drain(source, 10)
    places, marks = source.positions(), {A: digest(LINES[-1]), B: digest(LINES[-1])}
    file = source.file(A)
    FileSource(tmp_path).seek(places, marks)
    for lines, says in (
        (LINES[:-1], "0.jsonl: the store has read it up to record 24, and it ends before that"),
        ([*LINES[:-1], b"{}", *LINES], "0.jsonl: record 24 is not the one that the store has read there"),
    ):
        file.write_bytes(b"\n".join(lines) + b"\n")
        with pytest.raises(SourceError, match=says):
            FileSource(tmp_path).seek(places, marks)
    file.write_bytes(b"\n".join(LINES[:-1]) + b"\n\n{}\n")
    again = FileSource(tmp_path)
    again.seek(places, marks)
    assert [record.value for record in drain(again, 10)] == [b"{}"]
    file.unlink()
    with pytest.raises(SourceError, match="the log has no partition clicks/0"):
        FileSource(tmp_path).seek(places, marks)


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
