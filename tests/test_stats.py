"""Where a store stands, what it holds, and how it is made small."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, func, select

from command_line import belated
from labelstore.stats import digest
from labelstore.store import LabelStore, StoreError, existing
from labelstore.tables import impressions, metadata, predictions
from strategies import DAY, HOUR, T0, lines
from stream import upkeep
from stream.backtest import backtest
from stream.settings import Settings
from stream.sources import ListSource
from stream.upkeep import compact, sizes
from stream.workspace import alone, checkpoint_folder

SETTINGS = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR)
SHOWN: list[dict[str, Any]] = [
    {"type": "impression", "impression_id": f"i{n}", "at": T0 + n * HOUR, "features": {"n": n, "pad": "x" * 900}}
    for n in range(300)
]


def run(store: str, records: list[bytes] | None = None, **how: Any) -> None:
    log = {("events", 0): [*(records or lines(SHOWN)), b"{", b"["], ("quiet", 3): []}
    backtest("log", ListSource(log), SETTINGS, store, **how)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/s.db"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    run(url(folder), poll=100, every=100)
    return folder


@pytest.fixture
def folder(replayed: Path, tmp_path: Path) -> Path:
    """A store, to be changed."""
    shutil.copytree(replayed, tmp_path / "own")
    return tmp_path / "own"


def test_the_figures(replayed: Path) -> None:
    """Checkpoint, event time, offsets, settings, rows, span, bytes and dead letters, as they are in store and folder."""
    status, out, _ = belated("store", "stats", "--store", url(replayed), "--digest", "--json")
    told = json.loads(out)
    assert status == 0
    assert (told["checkpoint"], told["passed"]) == (4, T0 + 299 * HOUR + 1)
    assert told["offsets"] == {"events/0": 302, "quiet/3": 0}
    assert told["settings"] == SETTINGS.told()
    with existing(url(replayed)) as connection:
        counted = {
            n: connection.execute(select(func.count()).select_from(t)).scalar_one() for n, t in metadata.tables.items()
        }
        assert told["digest"] == digest(connection)
        kept = connection.execute(select(func.min(impressions.c.at), func.max(impressions.c.at))).one()
    assert told["rows"] == counted
    assert told["impressions"] == list(kept)
    assert told["bytes"]["database"] == (replayed / "s.db").stat().st_size
    assert told["bytes"]["checkpoints"] == sum(file.stat().st_size for file in (replayed / "s.checkpoints").iterdir())
    assert sorted((count["letters"], count["reason"][:8]) for count in told["dead_letters"]) == [
        (1, "not JSON"),
        (1, "not JSON"),
    ]


def test_the_table(replayed: Path) -> None:
    """The same for people; without --digest there is none."""
    status, out, _ = belated("store", "stats", "--store", url(replayed))
    assert status == 0
    said_ = " ".join(out.split())
    for words in (
        "checkpoint: 4",
        "read: events/0 to 302",
        "methods settled",
        "window 2d",
        "dead letters 2",
        "not JSON",
    ):
        assert words in said_
    assert "digest" not in said_


def test_a_store_before_its_first_commit(tmp_path: Path) -> None:
    """A run that was killed before it committed leaves a store that knows nothing, and this is said."""
    LabelStore(url(tmp_path), {"purchase": DAY}, DAY).close()
    status, out, _ = belated("store", "stats", "--store", url(tmp_path))
    assert (status, "no checkpoint yet" in out) == (0, True)
    assert json.loads(belated("store", "stats", "--store", url(tmp_path), "--json")[1])["checkpoint"] is None
    assert "has no checkpoint" in belated("forget", "--user", "u", "--store", url(tmp_path))[2]
    assert compact(url(tmp_path)).removed == []


def test_a_store_in_which_nothing_has_passed(tmp_path: Path) -> None:
    """All records of a log were refused: this is when one asks."""
    late = [json.dumps(event | {"at": event["at"] // 1000}).encode() for event in SHOWN[:5]]
    run(url(tmp_path), late)
    status, out, _ = belated("store", "stats", "--store", url(tmp_path))
    assert (status, "event time: none has passed" in " ".join(out.split())) == (0, True)


def test_all_settings_are_told(tmp_path: Path) -> None:
    """Zeros too, and those of the product graph where there is one."""
    settings = SETTINGS.model_copy(update={"graph_every": 3 * DAY})
    backtest("log", ListSource({("events", 0): lines(SHOWN[:5])}), settings, url(tmp_path))
    out = " ".join(belated("store", "stats", "--store", url(tmp_path))[1].split())
    for words in ("seed 0", "lateness 0s", "graph_every 3d", "graph_method dual", "graph_half_life 90d"):
        assert words in out


def test_the_same_log_has_the_same_digest(replayed: Path, tmp_path: Path) -> None:
    """Other polls and commits, same digest; one record more, another."""
    run(url(tmp_path), poll=7, every=50)
    more = [*SHOWN, {"type": "item", "item_id": "p", "at": T0, "features": {}}]
    run(f"sqlite:///{tmp_path}/t.db", lines(more))
    stores = (url(replayed), url(tmp_path), f"sqlite:///{tmp_path}/t.db")
    found = []
    for store in stores:
        with existing(store) as connection:
            found.append(digest(connection))
    assert found[0] == found[1] != found[2]


def test_compacting_gives_back_room_and_changes_nothing_known(folder: Path) -> None:
    """After rows were deleted the file shrinks, by about their size; the digest stays, and a replay goes on."""
    engine = create_engine(url(folder))
    with engine.begin() as connection:
        first = select(impressions.c.seq).order_by(impressions.c.seq).limit(150)
        connection.execute(delete(predictions).where(predictions.c.impression.in_(first)))
        connection.execute(delete(impressions).where(impressions.c.seq.in_(first)))
    engine.dispose()
    with existing(url(folder)) as connection:
        before = digest(connection)
    done = compact(url(folder))
    assert done.before.database - done.after.database > 100_000
    assert done.after == sizes(url(folder))
    assert done.after.write_ahead_log == 0
    with existing(url(folder)) as connection:
        assert digest(connection) == before
    run(url(folder))


def test_the_write_ahead_log_is_emptied(folder: Path) -> None:
    """What a killed process left there goes into the database."""
    held = sqlite3.connect(folder / "s.db")
    held.execute("PRAGMA journal_mode=WAL")
    held.execute("PRAGMA wal_autocheckpoint=0")
    with held:
        held.execute("UPDATE impressions SET served = 'x'")
    done = compact(url(folder))
    assert done.before.write_ahead_log > 0 == done.after.write_ahead_log
    held.close()


def test_files_nobody_names_are_removed(folder: Path) -> None:
    """Only files that a killed run left go: not those of checkpoints, not the lock, not what others put there."""
    place = checkpoint_folder(url(folder))
    named = {"3.safetensors", "4.safetensors"}
    assert {file.name for file in place.iterdir()} == named | {"lock"}
    for name in (
        "1.safetensors",
        "5.safetensors",
        "5.partial",
        "5-77.partial",
        "notes.txt",
        "best.safetensors",
        "4.safetensors.bak",
    ):
        (place / name).write_bytes(b"x")
    (place / "6.safetensors").mkdir()
    done = compact(url(folder))
    assert done.removed == ["1.safetensors", "5-77.partial", "5.partial", "5.safetensors"]
    left = {file.name for file in place.iterdir()}
    assert left == named | {"lock", "notes.txt", "best.safetensors", "4.safetensors.bak", "6.safetensors"}
    run(url(folder))


def test_two_databases_of_one_name(folder: Path) -> None:
    """Where another database shares the folder of checkpoints, no file is removed, and it is said why."""
    shutil.copy(folder / "s.db", folder / "s.sqlite")
    (folder / "s.txt").write_text("SQLite")
    assert compact(url(folder)).removed == []
    (checkpoint_folder(url(folder)) / "9.safetensors").write_bytes(b"x")
    with pytest.raises(
        StoreError, match=r"9\.safetensors and the like may belong to .*s\.sqlite.* nothing was removed"
    ):
        compact(url(folder))
    assert (checkpoint_folder(url(folder)) / "9.safetensors").exists()


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """As a user who may read a folder and write nothing into it."""
    us = os.geteuid()
    folder.chmod(0o755 if us == 0 else 0o555)
    if us == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(us)
        folder.chmod(0o755)


def touch(file: Path) -> None:
    """As its owner writes to it."""
    us = os.geteuid()
    os.seteuid(file.stat().st_uid)
    os.utime(file)
    os.seteuid(us)


def test_a_folder_that_cannot_be_written(replayed: Path) -> None:
    """A store in it is read, as a backup is; who would write is told what to do; nothing comes beside it."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(replayed, folder, dirs_exist_ok=True)
        before = sorted(folder.iterdir())
        with nobody(folder):
            with existing(url(folder)) as connection:
                assert connection.execute(select(func.count()).select_from(impressions)).scalar_one() > 0
            for name in ("s", "none"):
                with pytest.raises(StoreError, match=r"Permission denied; let this user read and write it"):
                    run(f"sqlite:///{folder}/{name}.db")
            with pytest.raises(StoreError, match=r"Permission denied; let this user read and write it"):
                compact(url(folder))
            with pytest.raises(StoreError, match="was written to while it was read"), existing(url(folder)):
                touch(folder / "s.db")
        assert sorted(folder.iterdir()) == before


def test_only_one_writes(folder: Path) -> None:
    """While a replay writes, a store is not compacted."""
    with (
        alone(url(folder), checkpoint_folder(url(folder))),
        pytest.raises(StoreError, match="another process is writing"),
    ):
        compact(url(folder))


def test_what_compact_says(folder: Path) -> None:
    """Sizes before and after, and what was removed."""
    (checkpoint_folder(url(folder)) / "9.partial").write_bytes(b"x" * 1000)
    status, out, _ = belated("store", "compact", "--store", url(folder))
    before = upkeep.sizes(url(folder)).checkpoints + 1000
    assert status == 0
    assert f"checkpoints: {before:,} -> {before - 1000:,} bytes" in out
    assert "1 files (9.partial)" in out


@pytest.mark.parametrize("command", [["store", "stats"], ["store", "compact"], ["forget", "--user", "u"]])
@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("sqlite:///DIR/none.db", "there is no such file"),
        ("sqlite:///DIR/noise.db", "not a database"),
        ("sqlite:///DIR/empty.db", "holds no label store"),
        ("nothing", "expected a URL such as sqlite:///belated.db"),
    ],
)
def test_wrong_stores(
    tmp_path: Path,
    command: list[str],
    store: str,
    says: str,
) -> None:
    """A store that is not there, or is something else, is refused in a sentence, and nothing is made."""
    (tmp_path / "noise.db").write_bytes(b"not a database" * 1000)
    (tmp_path / "empty.db").write_bytes(b"")
    status, _, err = belated(*command, "--store", store.replace("DIR", str(tmp_path)))
    assert (status, says in " ".join(err.split())) == (2, True)
    assert not list(tmp_path.glob("*.checkpoints"))


@pytest.mark.parametrize(
    "command", ["dlq list", "dlq show", "dlq retry", "forget", "store stats", "store compact", "dlq", "store"]
)
def test_help_teaches(command: str) -> None:
    """Every command says what it does and describes its options."""
    status, out, _ = belated(*command.split(), "--help")
    assert status == 0
    assert len(out.splitlines()) > 8
