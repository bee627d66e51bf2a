"""Dead letters looked through and tried again: what is appended is read by the next replay, and nothing is lost."""

import gzip
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from command_line import belated
from labelstore import letters
from labelstore.ledger import DEAD_LETTER_BYTES
from labelstore.letters import Place
from labelstore.store import StoreError, existing
from strategies import DAY, HOUR, T0, lines, logs
from stream import retry as retrying
from stream.appending import Tail
from stream.backtest import backtest
from stream.envelope import parse, spell
from stream.files import FileSource
from stream.retry import Choice, retry
from stream.settings import Settings
from stream.sources import SourceError
from stream.workspace import alone, checkpoint_folder
from test_loop import accounted

SETTINGS = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR)
OPTIONS = ("--method", "settled", "--window", "2d", "--wait", "5h")
SHOWN: list[dict[str, Any]] = [
    {"type": "impression", "impression_id": f"i{n}", "at": T0 + n * HOUR, "user_id": f"u{n % 3}", "item_id": "a"}
    for n in range(20)
]
BROKEN = {"type": "conversion", "event_id": "c7", "kind": "purchase", "at": "noon", "impression_id": "i7"}
MENDED = {**BROKEN, "at": T0 + 8 * HOUR}
LONG = {"type": "signal", "event_id": "s", "kind": "cart", "at": T0 + HOUR, "note": "n" * 15_000}
LETTERS = {
    5: json.dumps(BROKEN).encode(),
    9: b'{"type":"item\x1b[31m',
    11: json.dumps({"timestamp": T0, "key": "u1", "value": {**SHOWN[3], "at": T0 + 9 * DAY}}).encode(),
    13: json.dumps(LONG).encode(),
}


def packed(file: Path, data: bytes) -> bytes:
    if file.suffix == ".gz":
        return gzip.compress(data)
    return pytest.importorskip("zstandard").compress(data) if file.suffix == ".zst" else data


def write(folder: Path, ending: str = "jsonl", end: bytes = b"\n") -> Path:
    """A log of one partition with the four dead letters. Returns its file."""
    log = lines(SHOWN)
    for offset, line in LETTERS.items():
        log.insert(offset, line)
    file = folder / "log" / "events" / f"0.{ending}"
    file.parent.mkdir(parents=True)
    file.write_bytes(packed(file, b"\n".join(log) + end))
    return file


def replay(folder: Path) -> dict[str, int]:
    found = backtest("log", FileSource(folder / "log"), SETTINGS, url(folder)).summary["events"]
    return dict(found)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/s.db"


def again(folder: Path, *places: int, **how: Any) -> retrying.Retried:
    chosen = Choice(tuple(Place("events", 0, offset) for offset in places), again=how.pop("again", False))
    return retry(url(folder), FileSource(folder / "log"), chosen, **how)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    write(folder)
    assert replay(folder)["dead_letters"] == 4
    return folder


@pytest.fixture
def folder(replayed: Path, tmp_path: Path) -> Path:
    """A log and its store, to be changed."""
    shutil.copytree(replayed, tmp_path / "own")
    return tmp_path / "own"


def test_a_mended_record_becomes_a_label(tmp_path: Path) -> None:
    """By the command line: a broken purchase is a dead letter, is corrected, is read by the next replay, and counts."""

    write(tmp_path, end=b"")  # the last line lacks its end
    log, store = tmp_path / "log", ("--store", url(tmp_path))
    before = json.loads(belated("replay", log, *OPTIONS, *store, "--json", "-").stdout)["events"]
    assert (before["read"], before["dead_letters"], before["conversions"]) == (24, 4, 0)
    done = belated("dlq", "retry", "events/0@5", "--log", log, *store, "--value", json.dumps(MENDED))
    assert "events/0@5: appended as events/0@24" in done.stdout
    after = json.loads(belated("replay", log, *OPTIONS, *store, "--json", "-").stdout)["events"]
    assert (after["read"], after["dead_letters"], after["conversions"]) == (25, 4, 1)
    assert after["read"] == accounted(after)
    assert "conversion purchase" in belated("labels", "show", "i7", *store)[1]
    status, text_, _ = belated("dlq", "retry", "events/0@5", "--log", log, *store)
    assert (status, "was retried already, as events/0@24" in text_) == (1, True)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_what_was_there_is_not_touched(tmp_path: Path, ending: str, end: bytes) -> None:
    """A retry only adds bytes at the end: one line more, after the end of the last line where that was missing."""
    file = write(tmp_path, ending, end)
    replay(tmp_path)
    old, before = file.read_bytes(), FileSource(tmp_path / "log")
    kept = before.poll(100)
    found = again(tmp_path, 5, value=json.dumps(MENDED).encode())
    assert found == ({Place("events", 0, 5): 24}, {}, {})
    assert file.read_bytes().startswith(old)
    records = FileSource(tmp_path / "log").poll(100)
    assert records[:-1] == kept
    assert (records[-1].offset, json.loads(records[-1].value)) == (24, MENDED)
    events = replay(tmp_path)
    assert (events["read"], events["dead_letters"], events["conversions"]) == (25, 4, 1)


def test_what_is_still_broken_is_not_appended(folder: Path) -> None:
    """Without a correction all four are refused with the reason of before, and the log keeps its bytes."""
    file = folder / "log/events/0.jsonl"
    before = file.read_bytes()
    with existing(url(folder)) as connection:
        reasons = {count.reason for count in letters.counted(connection)}
    found = again(folder)
    assert found.appended == found.already == {}
    assert set(found.refused) == reasons
    assert sorted(place.offset for places in found.refused.values() for place in places) == sorted(LETTERS)
    assert set(again(folder, 5, value=b"{").refused) == {"not JSON: EOF while parsing an object at line 1 column 1"}
    assert file.read_bytes() == before


def test_what_can_be_read_by_now_is_appended_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records a strict store refused are appended whole once it is off, block by block, and those it still refuses not."""
    monkeypatch.setattr(retrying, "BLOCK", 2)
    (tmp_path / "log").mkdir()
    odd = [{"type": "item", "item_id": f"p{n}", "at": T0 + n, "features": {}, "x": "x" * 12_000} for n in range(5)]
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"\n".join([*lines(odd), b"[]", *lines(SHOWN)]))
    strict = SETTINGS.model_copy(update={"strict": True})
    backtest("log", FileSource(file), strict, url(tmp_path))
    assert set(retry(url(tmp_path), FileSource(file), Choice(reason="UNKNOWN field")).refused) == {
        "item.x: unknown field; remove it, or read with strict off"
    }
    lenient = create_engine(url(tmp_path))
    with lenient.begin() as connection:
        connection.execute(text("UPDATE checkpoints SET settings = replace(settings, 'true', 'false')"))
    assert retry(url(tmp_path), FileSource(file), Choice(reason="unknown"), strict=True).appended == {}
    found = retry(url(tmp_path), FileSource(file), Choice())
    assert found.appended == {Place("log", 0, n): 26 + n for n in range(5)}
    assert found.refused == {"expected one JSON object, got []": [Place("log", 0, 5)]}
    assert file.read_bytes().splitlines()[26:] == lines(odd)


def test_key_and_timestamp_stay(folder: Path) -> None:
    """A correction keeps the envelope of the record; one that is an envelope itself replaces it."""
    corrected = {**SHOWN[3], "impression_id": "new", "at": T0 + HOUR}
    again(folder, 11, value=json.dumps(corrected, indent=1).encode())
    own = {"timestamp": T0 + 9 * DAY, "value": {**corrected, "at": T0 + 9 * DAY}}
    again(folder, 11, value=json.dumps(own).encode(), again=True)
    first, second = FileSource(folder / "log").poll(100)[-2:]
    assert (first.timestamp, first.key, json.loads(first.value)) == (T0, b"u1", corrected)
    assert (second.timestamp, second.key, json.loads(second.value)) == (T0 + 9 * DAY, None, own["value"])


@settings(max_examples=60)
@given(
    logs, st.none() | st.integers(0, 2**61), st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
)
def test_a_line_says_what_it_was_made_of(events: list[dict[str, Any]], timestamp: int | None, key: str | None) -> None:
    """Timestamp, key and event come back from the line, whatever they are."""
    for event in events:
        value = json.dumps(event, indent=1).encode()
        line = spell(timestamp, None if key is None else key.encode(), value)
        assert b"\n" not in line
        found = parse(line)
        assert found[:2] == (timestamp, None if key is None else key.encode())
        assert json.loads(found[2]) == event


def test_stopped_between_appending_and_marking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry killed before its mark is done again; the log then has the record twice, and it counts once."""
    value = json.dumps(MENDED).encode()
    with monkeypatch.context() as patch:
        patch.setattr(letters, "mark", lambda connection, appended: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            again(folder, 5, value=value)
    assert again(folder, 5, value=value).appended == {Place("events", 0, 5): 25}
    events = replay(folder)
    assert (events["read"], events["conversions"], events["duplicates"]) == (26, 1, 1)
    assert events["read"] == accounted(events)


def test_stopped_within_a_line(folder: Path) -> None:
    """Half a line at the end, as of a power cut, becomes a dead letter of its own; what is appended after it is whole."""
    file = folder / "log/events/0.jsonl"
    with file.open("ab") as stream:
        stream.write(b'{"type":"conv')
    again(folder, 5, value=json.dumps(MENDED).encode())
    events = replay(folder)
    assert (events["conversions"], events["dead_letters"], events["read"]) == (1, 5, 26)


def test_retried_once(folder: Path) -> None:
    """A letter that was retried is left alone, also among all, unless it is asked for again."""
    value = json.dumps(MENDED).encode()
    again(folder, 5, value=value)
    assert again(folder, 5, value=value) == ({}, {}, {Place("events", 0, 5): 24})
    assert again(folder).already == {Place("events", 0, 5): 24}
    assert again(folder, 5, value=value, again=True).appended == {Place("events", 0, 5): 25}


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    """Nothing is appended behind a cut, where nobody could read it."""
    file = write(tmp_path, ending)
    replay(tmp_path)
    file.write_bytes(file.read_bytes()[:-12])
    before = file.read_bytes()
    with pytest.raises(SourceError, match=r"0\.jsonl\..*nothing is appended; restore it"):
        again(tmp_path, 5, value=json.dumps(MENDED).encode())
    assert file.read_bytes() == before


def test_no_room_for_a_line(tmp_path: Path) -> None:
    """A full disk leaves the log as it was, and says so."""
    file = write(tmp_path, end=b"")
    before, tail = file.read_bytes(), Tail(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
    try:
        with pytest.raises(SourceError, match=r"0\.jsonl: cannot be written .*nothing was appended"):
            tail.append(lines([MENDED]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert tail.append(lines([MENDED])) == 24
    assert file.read_bytes() == before + b"\n" + lines([MENDED])[0] + b"\n"


def test_another_log_is_noticed(folder: Path) -> None:
    """Where the log has another record at the place, or where the store stands, it is another: nothing is appended."""
    file = folder / "log/events/0.jsonl"
    there = file.read_bytes()
    file.write_bytes(there.replace(LETTERS[5], lines(SHOWN)[0]))
    assert set(again(folder, 5, value=json.dumps(MENDED).encode()).refused) == {retrying.ELSEWHERE}
    for other, said in ((lines(SHOWN), "and it ends before"), ([*there.splitlines()[:-1], b"{}"], "is not the one")):
        file.write_bytes(b"\n".join(other) + b"\n")
        with pytest.raises(
            SourceError, match=rf"0\.jsonl: .*{said}.*a daemon's store has no log: .* `belated produce`"
        ):
            again(folder, 5, value=json.dumps(MENDED).encode())
        assert file.read_bytes() == b"\n".join(other) + b"\n"
    (folder / "log/events").rename(folder / "log/clicks")
    with pytest.raises(SourceError, match=r"no partition events/0; it has clicks/0; give the log that was replayed"):
        again(folder, 5, value=json.dumps(MENDED).encode())


def test_one_writer_at_a_time(folder: Path) -> None:
    """While a replay writes to the store, a retry is refused."""
    with (
        alone(url(folder), checkpoint_folder(url(folder))),
        pytest.raises(StoreError, match="another process is writing"),
    ):
        again(folder)


def test_the_list(folder: Path) -> None:
    """Place, time, size, reason; all are counted by reason; nothing in it is obeyed by a terminal."""
    status, text_, _ = belated("dlq", "list", "--store", url(folder))
    assert status == 0
    for words in (
        "events/0@5",
        "events/0@11",
        "10,000+",
        "got 'noon'",
        "4 dead letters, 4 of them listed; 0 were retried",
    ):
        assert words in text_
    assert "\x1b[31m" not in text_
    given_ = ("dlq", "list", "--store", url(folder), "--reason", "JSON", "--limit", 1, "--json")
    told = json.loads(belated(*given_)[1])
    assert [letter["place"] for letter in told["letters"]] == ["events/0@9"]
    assert [(count["letters"], count["retried"]) for count in told["reasons"]] == [(1, 0)]
    assert (
        "no dead letters with a reason that holds '%'"
        in belated("dlq", "list", "--store", url(folder), "--reason", "%")[1]
    )


def test_one_letter(folder: Path) -> None:
    """The store shows what it keeps and says when that is not all; the log has it whole; escapes are spelled out."""
    store = ("--store", url(folder))
    kept = belated("dlq", "show", "events/0@13", *store)[1]
    assert f"the first {DEAD_LETTER_BYTES:,} bytes, which is all the store keeps" in kept
    assert (
        kept.count("n")
        < DEAD_LETTER_BYTES
        < 15_000
        <= (belated("dlq", "show", "events/0@13", *store, "--log", folder / "log")[1].count("n"))
    )
    assert r"item\x1b[31m" in belated("dlq", "show", "events/0@9", *store)[1]
    enveloped = belated("dlq", "show", "events/0@11", *store)[1]
    assert "key: u1" in enveloped
    assert f"({T0})" in enveloped


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (
            ["retry", "--store", "URL", "--log", "LOG"],
            2,
            "which dead letters? give either places (topic/partition@offset",
        ),
        (["retry", "events/0@5", "--all", "--store", "URL", "--log", "LOG"], 2, "give either places"),
        (
            ["retry", "--all", "--value", "{}", "--store", "URL", "--log", "LOG"],
            2,
            "--value corrects one record, and 0",
        ),
        (["retry", "events/0@5", "--store", "URL", "--log", "NONE"], 2, "there is no such log"),
        (
            ["retry", "events/0@99", "--store", "URL", "--log", "LOG"],
            2,
            "no such dead letter; it has, for example: events/0@5",
        ),
        (["show", "events-0-5", "--store", "URL"], 2, "'events-0-5': expected topic/partition@offset"),
        (["show", "events/0@1", "--store", "URL"], 2, "no such dead letter"),
        (["list", "--store", "sqlite:///none.db"], 2, "none.db: there is no such file"),
        (["list", "--store", "nothing"], 2, "expected a URL such as sqlite:///belated.db"),
        (["list"], 2, "--store"),
    ],
)
def test_wrong_arguments(
    replayed: Path,
    arguments: list[str],
    status: int,
    says: str,
) -> None:
    """An error is one sentence with the remedy."""
    given_ = {"URL": url(replayed), "LOG": str(replayed / "log"), "NONE": "none"}
    found = belated("dlq", *(given_.get(argument, argument) for argument in arguments))
    assert found[0] == status
    assert says in " ".join(found[2].split())
    assert not os.path.exists("none.checkpoints")


def test_a_log_in_seconds_is_one_reason(tmp_path: Path) -> None:
    """Records that are wrong alike are told once, with their number, one of them and the remedy; by `retry` too."""
    file, log, store = write(tmp_path), tmp_path / "log", url(tmp_path)
    file.write_bytes(b"".join(json.dumps(row | {"at": row["at"] // 1000}).encode() + b"\n" for row in SHOWN))
    replay(tmp_path)
    for asked in (
        ("validate", log),
        ("dlq", "list", "--store", store, "--limit", 0),
        ("dlq", "retry", "--all", "--store", store, "--log", log),
    ):
        output = belated(*asked)[1].replace("\n", " ")
        assert output.count("impression.at: expected milliseconds since 1970") == 1
        assert f"(seconds? multiply by 1000), got {T0 // 1000}" in output
        assert "20: impression.at" in output
