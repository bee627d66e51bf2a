"""What the converters share: a log that is complete or not there."""

import gzip
from pathlib import Path

import pytest

from stream.convert.log import CUT_OFF, Summary, rows, writing
from stream.drafts import drafts

EVENT: dict[str, object] = {"type": "item", "item_id": "a", "at": 1_500_000_000_000}


def test_writes_one_event_per_line_and_counts_by_type(tmp_path: Path) -> None:
    """The log is DST/events/0.jsonl, one JSON event per line with `type` first, and the summary counts by type."""
    summary = Summary()
    with writing(tmp_path / "new", summary) as log:
        log.write(EVENT)
        log.put("signal", b'{"type":"signal"}')
    written = (tmp_path / "new" / "events" / "0.jsonl").read_bytes()
    assert written == b'{"type":"item","item_id":"a","at":1500000000000}\n{"type":"signal"}\n'
    assert summary.events == {"item": 1, "signal": 1}


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    """A folder with anything in it is left alone, and the error names it and the remedy."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty; name a new folder"), writing(tmp_path, Summary()):
        pytest.fail("the log was opened")
    assert [file.name for file in tmp_path.rglob("*")] == ["notes.txt"]


def test_refuses_a_file(tmp_path: Path) -> None:
    """A destination that is a file is refused in the same way."""
    (tmp_path / "log").write_text("mine")
    with pytest.raises(FileExistsError, match="name a new folder"), writing(tmp_path / "log", Summary()):
        pytest.fail("the log was opened")


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    """What fails half way leaves no log and no part of one."""

    def fail() -> None:
        with writing(tmp_path, Summary()) as log:
            log.write(EVENT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_half_of_the_names_are_none(tmp_path: Path) -> None:
    """Where a file cannot be given its name, those that have theirs already go too."""

    def fail() -> None:
        with drafts(tmp_path) as place:
            place("offsets.json").write_text("{}")
            place("events/0.jsonl")

    with pytest.raises(FileNotFoundError):
        fail()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_the_rest_of_a_killed_conversion_is_replaced(tmp_path: Path) -> None:
    """A kill leaves a file that no reader takes for a log; the next conversion writes over it."""
    part = tmp_path / "events" / "0.jsonl.part"
    part.parent.mkdir()
    part.write_bytes(b'{"type":"impre')
    with writing(tmp_path, Summary()) as log:
        log.write(EVENT)
    assert [file.name for file in part.parent.iterdir()] == ["0.jsonl"]


def test_a_compressed_file_that_is_cut_off_is_read_to_the_cut(tmp_path: Path) -> None:
    """The rows before the cut are there; the cut is a refused row with a reason."""
    packed = gzip.compress(b"".join(b"row %d\n" % n for n in range(1000)), mtime=0)
    (tmp_path / "a.gz").write_bytes(packed[:-20])
    summary = Summary()
    found = list(rows(tmp_path / "a.gz", summary, lambda done, total: None))
    assert found == [f"row {n}" for n in range(len(found))]
    assert summary.refused == {CUT_OFF: 1}
    assert summary.rows == len(found) + 1


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfx\n\xef\xbb\xbfy\n")
    assert list(rows(tmp_path / "a", Summary(), lambda done, total: None)) == ["x", "\ufeffy"]


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    """Progress counts bytes of the source, never goes back, and ends at its size."""
    (tmp_path / "a").write_bytes(b"x\n" * 100_000)
    calls: list[tuple[int, int]] = []
    assert len(list(rows(tmp_path / "a", Summary(), lambda done, total: calls.append((done, total))))) == 100_000
    assert calls == sorted(calls)
    assert calls[-1] == (200_000, 200_000)
    assert len(calls) == 6


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    """The error of a file that is not there names it."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: there is no such file"):
        list(rows(tmp_path / "nothing.csv", Summary(), lambda done, total: None))
