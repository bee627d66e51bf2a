"""A user is forgotten: nothing is left in the store's files, the log keeps its offsets, and the store goes on."""

import gzip
import json
import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sqlalchemy import create_engine, func, select

from command_line import belated
from labelstore import erasure, ledger, vacuum
from labelstore.events import ADAPTER
from labelstore.stats import digest
from labelstore.store import LabelStore, StoreError, existing
from labelstore.tables import erasures, impressions, looks, metadata, predictions, waiting
from labelstore.traces import Traces
from learner.trainer import BATCH
from strategies import DAY, HOUR, T0, lines, logs
from stream import blanking
from stream.backtest import Result, backtest
from stream.blanking import blank
from stream.erasure import Forgotten, forget
from stream.files import FileSource
from stream.settings import Settings
from stream.sources import ListSource, Partition, Record, SourceError
from stream.workspace import checkpoint_folder
from test_loop import accounted, told

SETTINGS = Settings(methods=("pq_signals", "settled"), window=2 * DAY, wait=5 * HOUR)
USER = "anna-42"


def shop(days: int = 4) -> list[dict[str, Any]]:
    """Every 6 minutes one of seven users is shown something; carts name it, purchases only user and item; some go back."""
    events: list[dict[str, Any]] = []
    for n in range(days * 240):
        user, at = USER if n % 7 == 3 else f"u{n % 7}", T0 + n * HOUR // 10
        who = {"user_id": user, "item_id": f"p{n % 11}"}
        shown = {
            "type": "impression",
            "impression_id": f"i{n}",
            "at": at,
            "features": {"n": n % 5, "who": f"{user}/{n % 11}"},
        }
        events.append({**shown, **who})
        if n % 3 == 0:
            events.append(
                {"type": "signal", "event_id": f"s{n}", "kind": "cart", "at": at + HOUR, "impression_id": f"i{n}"}
            )
        if n % 4 == 0:
            bought = {"type": "conversion", "event_id": f"c{n}", "kind": "purchase", "at": at + 9 * HOUR}
            events.append({**bought, **(who if n % 8 else {"impression_id": f"i{n}"})})
        if n % 20 == 0:
            back = {"type": "adjustment", "event_id": f"a{n}", "conversion_id": f"c{n}", "action": "retract"}
            events.append({**back, "at": at + 15 * HOUR})
    events += [{"type": "item", "item_id": f"p{n}", "at": T0 + n, "features": {}} for n in range(11)]
    return sorted(events, key=lambda event: int(event["at"]))


EVENTS = shop()
BROKEN = [
    b'{"type":"impression","user_id":"anna-42","at":1}',
    b'{"type":"signal","impression_id":"i10","at":',
    b"[1, 2]",
]


def his(events: Sequence[dict[str, Any]], user: str = USER) -> list[bool]:
    """Which events are a user's, by the definition: a naive oracle."""
    shown = {e["impression_id"] for e in events if e["type"] == "impression" and e.get("user_id") == user}
    of = [
        e.get("user_id") == user
        or (e["type"] in ("impression", "signal", "conversion") and e.get("impression_id") in shown)
        for e in events
    ]
    bought = {e["event_id"] for e, mine in zip(events, of, strict=True) if mine and e["type"] == "conversion"}
    return [
        mine
        or (e["type"] == "adjustment" and e["conversion_id"] in bought)
        or (e["type"] == "conversion" and e["event_id"] in bought)
        for e, mine in zip(events, of, strict=True)
    ]


def write(folder: Path, records: Sequence[bytes], ending: str = "jsonl", parts: int = 1) -> Path:
    """A log of some partitions, in turn; the last lines have no end."""
    for part in range(parts):
        file = folder / "events" / f"{part}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = b"\n".join(records[part::parts])
        if ending.endswith("gz"):
            data = gzip.compress(data[:700]) + gzip.compress(data[700:])
        if ending.endswith("zst"):
            data = pytest.importorskip("zstandard").compress(data)
        file.write_bytes(data)
    return folder


def run(log: Path | ListSource, store: str | None = None, **how: Any) -> Result:
    return backtest("log", FileSource(log) if isinstance(log, Path) else log, SETTINGS, store, **how)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/s.db"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with three broken lines, and the store it was replayed into."""
    folder = tmp_path_factory.mktemp("replayed")
    records = lines(EVENTS)
    for n, line in enumerate(BROKEN):
        records.insert(100 * n + 50, line)
    run(write(folder / "log", records), url(folder), poll=100, every=500)
    return folder


@pytest.fixture
def folder(replayed: Path, tmp_path: Path) -> Path:
    """A log and its store, to be changed."""
    shutil.copytree(replayed, tmp_path / "own")
    return tmp_path / "own"


def rows(store: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables but those of checkpoints and erasures."""
    with existing(store) as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for name, table in metadata.tables.items()
            if name not in ("checkpoints", "erasures")
        }


def everything(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text, packed ones unpacked."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file():
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            found += [str(file)] if text.encode() in data else []
    return found


def test_nothing_is_left_in_any_file(folder: Path) -> None:
    """The id, and what was shown to the user, are in no byte of database, write-ahead log, checkpoints or log."""
    assert len(everything(folder, USER)) == 2
    found = forget(USER, url(folder), FileSource(folder / "log"))
    mine = his(EVENTS)
    assert found.lines == sum(mine) + 2
    assert found.counts["impressions"] == sum(e["type"] == "impression" for e, m in zip(EVENTS, mine, strict=True) if m)
    assert {"impressions", "predictions", "looks", "signals", "conversions", "adjustments"} < set(found.counts)
    assert everything(folder, USER) == []
    assert sorted(file.name for file in folder.iterdir()) == ["log", "s.checkpoints", "s.db", "s.db.lock"]


def test_the_rows_of_others_stay(folder: Path) -> None:
    """Of every table exactly the user's rows are gone, and one dead letter each for the id and for an impression's id."""
    before = rows(url(folder))
    found = forget(USER, url(folder))
    after = rows(url(folder))
    mine = his(EVENTS)
    names = {str(e.get("event_id") or e.get("impression_id")) for e, m in zip(EVENTS, mine, strict=True) if m}
    seqs = {row[0] for row in before["impressions"] if row[1] in names}
    for name in ("impressions", "signals", "conversions", "adjustments"):
        assert after[name] == [row for row in before[name] if row[1] not in names], name
    for name in ("predictions", "looks"):
        assert after[name] == [row for row in before[name] if row[0] not in seqs], name
    assert [row[4:6] for row in after["dead_letters"]] == [(None, BROKEN[2])]
    assert after["items"] == before["items"]
    assert after["metrics"] == before["metrics"]
    assert {
        name: len(before[name]) - len(after[name]) for name in before if before[name] != after[name]
    } == found.counts


def test_what_is_written_down(folder: Path) -> None:
    """The erasure has the sha256 of the id, the event time, and counts; never the id."""
    found = forget(USER, url(folder), FileSource(folder / "log"))
    with existing(url(folder)) as connection:
        ((n, user, at, counts),) = [tuple(row) for row in connection.execute(select(erasures))]
    assert (n, at) == (1, EVENTS[-1]["at"] + 1)
    assert user == sha256(USER.encode()).hexdigest()
    assert counts == found.counts | {"log_lines": found.lines}


def test_unfinished_batches_hold_no_look_at_the_user(folder: Path) -> None:
    """The one checkpoint file that is left has the unused looks of the others, and none at the user's impressions."""
    with existing(url(folder)) as connection:
        query = select(impressions.c.seq).where(impressions.c.user_id == USER)
        seqs = set(connection.execute(query).scalars())

    def unused() -> tuple[int, set[int]]:
        with existing(url(folder)) as connection:
            newest = ledger.newest(connection)
        assert newest
        tensors = load_file(checkpoint_folder(url(folder)) / newest.file)
        found = [n for name, value in tensors.items() if name.endswith(".impression") for n in value.tolist()]
        return len(found), set(found)

    before, held = unused()
    assert held & seqs
    forget(USER, url(folder))
    after, left = unused()
    assert left == held - seqs
    assert 0 < after < before < 6 * BATCH
    assert len(list(checkpoint_folder(url(folder)).glob("*.safetensors"))) == 1


@pytest.mark.parametrize(("ending", "parts"), [("jsonl", 1), ("jsonl.gz", 2), ("jsonl.zst", 3)])
def test_a_blanked_log_teaches_what_a_log_without_the_user_teaches(tmp_path: Path, ending: str, parts: int) -> None:
    """Weights, figures and counts of a replay are the same to the last bit, packed or not; offsets stay."""
    if ending.endswith("zst"):
        pytest.importorskip("zstandard")
    enveloped = [{"timestamp": e["at"], "key": "k", "value": e} if n % 2 else e for n, e in enumerate(EVENTS)]
    log = write(tmp_path / "log", lines(enveloped), ending, parts)
    before = {
        (r.partition, r.offset): r.value for p in FileSource(log).partitions() for r in FileSource(log).records(p)
    }
    ends = FileSource(log).end_offsets()
    found = blank(FileSource(log), Traces(USER), strict=False)
    assert (len(found.lines), found.files) == (sum(his(EVENTS)), parts)
    after = {(r.partition, r.offset): r.value for p in FileSource(log).partitions() for r in FileSource(log).records(p)}
    assert after == {place: value for place, value in before.items() if ("events", *place) not in found.lines}
    assert FileSource(log).end_offsets() == ends
    removed = [e for e, mine in zip(EVENTS, his(EVENTS), strict=True) if not mine]
    assert told(run(log)) == told(run(ListSource({("events", 0): lines(removed)})))


@settings(max_examples=8)
@given(logs, st.sampled_from(["u1", "u2"]))
def test_any_blanked_log(tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], user: str) -> None:
    """Whatever is in a log, with ids that repeat and records that come late: blank lines teach what removed ones do."""
    log = write(tmp_path_factory.mktemp("log"), lines(events))
    found = blank(FileSource(log), Traces(user), strict=False)
    mine = his(events, user)
    assert sorted(place.offset for place in found.lines) == [n for n, m in enumerate(mine) if m]
    removed = [e for e, m in zip(events, mine, strict=True) if not m]
    assert told(run(log)) == told(run(ListSource({("events", 0): lines(removed)})))


def test_an_untouched_log_brings_the_user_back(folder: Path, tmp_path: Path) -> None:
    """Replayed anew, a log that was not blanked gives the store of before the erasure, row by row."""
    before = rows(url(folder))
    forget(USER, url(folder))
    run(folder / "log", url(tmp_path), poll=100, every=500)
    assert rows(url(tmp_path)) == before


class Stopping(ListSource):
    """Stops with an error after so many records."""

    left = 0

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left -= limit
        return super().poll(limit, paused)


def test_a_store_goes_on(tmp_path: Path) -> None:
    """Stopped with records waiting, rid of a user and continued on the blanked rest: the same end twice, all accounted for,
    and nothing of the user."""
    other = {"type": "impression", "impression_id": "x", "at": T0 - HOUR, "features": {}}
    blanked = [b"" if mine else line for line, mine in zip(lines(EVENTS), his(EVENTS), strict=True)]
    ends = []
    for name in ("a", "b"):
        store = url(tmp_path / name)
        source = Stopping({("events", 0): lines(EVENTS), ("slow", 0): lines([other])})
        source.left = 900
        with pytest.raises(KeyboardInterrupt):
            run(source, store, poll=100, every=300)
        with existing(store) as connection:
            assert connection.execute(select(func.count()).select_from(waiting)).scalar_one() > 100
        found = forget(USER, store)
        assert found.counts["waiting"] > 10
        log = write(tmp_path / name / "log", blanked)
        write(tmp_path / name / "slow", lines([other]))
        (tmp_path / name / "slow" / "events").rename(log / "slow")
        ends.append(told(run(log, store, poll=100, every=300)))
        events = ends[-1]["events"]
        assert events["forgotten"] == found.counts["waiting"]
        assert events["read"] == accounted(events)
        with existing(store) as connection:
            told_ = digest(connection)
            ends[-1]["store"] = told_
            for table in (looks, predictions):
                lost = select(func.count()).where(table.c.impression.not_in(select(impressions.c.seq)))
                assert connection.execute(lost).scalar_one() == 0
        assert everything(tmp_path / name, USER) == []
    assert ends[0] == ends[1]


def test_an_oracle_goes_on(tmp_path: Path) -> None:
    """The final labels of a log that has grown, and has lost a user, are those of the rows in the store."""
    settings = SETTINGS.model_copy(update={"methods": ("oracle", "settled")})
    records, store = lines(EVENTS), url(tmp_path)
    half = len(records) // 2
    log = write(tmp_path / "log", records[:half])
    backtest("log", FileSource(log), settings, store)
    forget(USER, store, FileSource(log))
    with next((log / "events").iterdir()).open("ab") as file:
        file.write(b"".join(b"\n" + line for line in records[half:]))
    backtest("log", FileSource(log), settings, store)
    with existing(store) as connection:
        shown = looks.c.impression == impressions.c.seq
        late = select(looks.c.learner, looks.c.label, impressions.c.id).where(impressions.c.at > EVENTS[half]["at"])
        learned = {
            (learner, name): label
            for learner, label, name in connection.execute(late.join_from(looks, impressions, shown))
        }
    settled = {name: label for (learner, name), label in learned.items() if learner == 1}
    both = {name: label for (learner, name), label in learned.items() if learner == 0 and name in settled}
    assert len(both) > 80
    assert both == {name: settled[name] for name in both}


def test_retention_cuts_where_it_did() -> None:
    """Deleting by horizon after an erasure leaves what it would have left, less the user's rows, at every midnight."""
    mine = {str(e.get("event_id") or e.get("impression_id")) for e, m in zip(EVENTS, his(EVENTS), strict=True) if m}
    facts = [(int(e["at"]), ADAPTER.validate_python(e)) for e in EVENTS if e["type"] != "item"]
    stores = [LabelStore("sqlite://", {"purchase": DAY}, 2 * DAY) for _ in ("whole", "less")]
    for store in stores:
        store.pass_on(sorted(facts, key=lambda fact: fact[0]))
    traces = Traces(USER)
    erasure.trace(stores[1].connection, traces)
    erasure.erase(stores[1].connection, traces)
    for midnight in range(T0, T0 + 9 * DAY, DAY):
        kept = []
        for store in stores:
            store.forget_before(midnight)
            tables = [metadata.tables[name] for name in ("impressions", "signals", "conversions", "adjustments")]
            ids = [set(store.connection.execute(select(table.c.id)).scalars()) for table in tables]
            kept.append(ids)
        assert kept[1] == [ids - mine for ids in kept[0]]
    for store in stores:
        store.close()


def test_ids_that_only_the_log_knows(tmp_path: Path) -> None:
    """A signal whose impression the store has let go by its horizon is found by the impression's line in the log."""
    long_ago = {"type": "impression", "impression_id": "old", "at": T0, "user_id": USER, "item_id": "a", "features": {}}
    late = {"type": "signal", "event_id": "s", "kind": "cart", "at": T0 + 9 * DAY, "impression_id": "old"}
    rest = [{"type": "impression", "impression_id": f"i{n}", "at": T0 + n * DAY, "features": {}} for n in range(10)]
    log = write(tmp_path / "log", lines([long_ago, *rest, late]))
    run(log, url(tmp_path))
    assert forget(USER, url(tmp_path)) == Forgotten({}, 0, 0, [])
    assert forget(USER, url(tmp_path), FileSource(log)) == Forgotten({"signals": 1}, 2, 1, [])


def test_an_unknown_user(folder: Path) -> None:
    """Nothing is found, nothing is changed, the status is 1."""
    before = (
        rows(url(folder)),
        (folder / "log/events/0.jsonl").read_bytes(),
        sorted(checkpoint_folder(url(folder)).iterdir()),
    )
    status, _, err = belated("forget", "--user", "anna", "--store", url(folder), "--log", folder / "log")
    assert status == 1
    assert "user 'anna': nothing was found in" in err
    assert before == (
        rows(url(folder)), (folder / "log/events/0.jsonl").read_bytes(), sorted(checkpoint_folder(url(folder)).iterdir())
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "name"), [(blanking, "_replace"), (erasure, "erase"), (ledger, "record"), (vacuum, "vacuum")]
)
def test_stopped_anywhere_and_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Killed before the rename, before the rows, before the commit or before the vacuum: the same command does the rest."""
    with monkeypatch.context() as patch:
        target = sys.modules["stream.erasure"] if name == "vacuum" else where
        patch.setattr(target, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(USER, url(folder), FileSource(folder / "log"))
    found = forget(USER, url(folder), FileSource(folder / "log"))
    assert found.nothing == (name == "vacuum")
    assert everything(folder, USER) == []
    run(folder / "log", url(folder))


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_a_log_that_is_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    """What is behind a cut cannot be searched: nothing is changed, in no file."""
    log = write(tmp_path, lines(EVENTS), ending, parts=2)
    torn = log / "events" / f"1.{ending}"
    torn.write_bytes(torn.read_bytes()[:-9])
    before = {file: file.read_bytes() for file in sorted(log.rglob("*")) if file.is_file()}
    with pytest.raises(SourceError, match=r"events/1\..* is cut off.*nothing was blanked; restore it"):
        blank(FileSource(log), Traces(USER), strict=False)
    assert before == {file: file.read_bytes() for file in sorted(log.rglob("*")) if file.is_file()}


def test_a_log_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    """Lines somebody appends during the search would be lost: nothing is changed."""
    log = write(tmp_path, [*lines(EVENTS), *[b"{}"] * 10_000])

    def grow(_: int) -> None:
        with (log / "events/0.jsonl").open("ab") as stream:
            stream.write(b"\n{}")

    with pytest.raises(SourceError, match="somebody is writing to it; nothing was blanked"):
        blank(FileSource(log), Traces(USER), strict=False, told=grow)
    assert [file.name for file in (log / "events").iterdir()] == ["0.jsonl"]


def test_blank_lines_keep_offsets(tmp_path: Path) -> None:
    """Ends of lines stay as they are, long lines stay whole, and a last line without an end leaves one."""
    mine = lines([EVENTS[n] for n, m in enumerate(his(EVENTS)) if m][:1])[0]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\r\n" + mine + b"\r\n\n" + b"x" * 3_000_000 + b"\n" + mine)
    blank(FileSource(file), Traces(USER), strict=False)
    assert file.read_bytes() == b"{}\r\n" + b"\n\n" + b"x" * 3_000_000 + b"\n" + b"\n"
    assert FileSource(file).end_offsets() == {Partition("a", 0): 5}


def test_a_link_is_followed(tmp_path: Path) -> None:
    """A file of the log that is a link stays one, and what it points to is blanked."""
    real = write(tmp_path / "real", lines(EVENTS)) / "events/0.jsonl"
    link = tmp_path / "log/events/0.jsonl"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    Path(f"{real}.partial").write_bytes(USER.encode())  # left by a run that was killed
    blank(FileSource(tmp_path / "log"), Traces(USER), strict=False)
    assert link.is_symlink()
    assert everything(tmp_path, USER) == []


@pytest.mark.parametrize(
    ("value", "key", "mine"),
    [
        (b'{"type":"impression","user_id":"17","at":"now"}', None, True),
        (b'{"type":"impression","user_id":17,"at":1}', None, True),
        (b'{"type":"item","price":17}', None, False),
        (b'{"type":"?","who":{"is":["17"]}}', None, True),
        (b'[{"17":1}]', None, True),
        (b'{"type":"signal","impression_id":"mine","at":"now"}', None, True),
        (b'{"type":"signal","impression_id":"other","at":"now"}', None, False),
        (b"17;bought;shoes", None, True),
        (b"u-17;bought;117;17th", None, False),
        (b'{"type":"signal","impression_id":"mine","at":', None, True),
        (b'{"type":"signal","impression_id":"other","at":', None, False),
        (b"\xff\xfe", b"17", True),
        (b"[" * 100_000, None, False),
    ],
)
def test_what_mentions_a_user(value: bytes, key: bytes | None, mine: bool) -> None:
    """A record that cannot be read is a user's if its key or fields say so, or if the id stands in it by itself."""
    traces = Traces("17")
    assert traces.owns(b'{"type":"impression","impression_id":"mine","user_id":"17"}')
    assert traces.mentions(value, key) is mine


def test_names_beyond_ascii() -> None:
    """An id is found however JSON spells it, also in text that is no JSON any more."""
    traces = Traces("bjørn")
    for line in ('{"user_id":"bjørn"}', json.dumps({"user_id": "bjørn"})):
        assert traces.owns(line.encode())
        assert traces.mentions(line[:-1].encode())
    assert not traces.mentions("{torbjørn".encode())


def test_somebody_reads(folder: Path) -> None:
    """While another process reads, old pages cannot be removed from the files: this is said, with what to do then."""
    engine = create_engine(url(folder))
    with engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.execute(select(func.count()).select_from(impressions)).scalar_one()
        with pytest.raises(StoreError, match=r"another process is reading it.*belated store compact"):
            forget(USER, url(folder) + "?timeout=0.1")
    engine.dispose()
    assert forget(USER, url(folder)).before
    assert not everything(folder / "s.checkpoints", USER)
    assert [Path(name).name for name in everything(folder, USER)] == ["0.jsonl"]
