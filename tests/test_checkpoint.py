"""What a commit promises: a file that is not the row's is refused, and a stop between two steps costs nothing."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import func, make_url, select

from labelstore import engines, ledger
from labelstore.store import StoreError, existing
from labelstore.tables import checkpoints
from learner.model import Shape
from learner.trainer import Trainer
from strategies import DAY, HOUR, T0, lines
from stream.backtest import backtest
from stream.checkpoint import KEEP, CheckpointError, Checkpoints
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import ListSource, Partition, Record
from stream.workspace import alone, opened

pytestmark = pytest.mark.usefixtures("few_buckets")
SETTINGS = Settings(methods=("pq_signals", "esdfm"), window=2 * DAY, wait=5 * HOUR)
EVENTS = [
    {
        "type": "impression",
        "impression_id": f"i{n}",
        "at": T0 + n * HOUR // 12,
        "features": {"n": n % 7, "s": str(n % 3)},
    }
    for n in range(900)
] + [
    {
        "type": "conversion",
        "event_id": f"c{n}",
        "kind": "purchase",
        "at": T0 + (n + 90) * HOUR // 12,
        "impression_id": f"i{n}",
    }
    for n in range(0, 800, 9)
]
EVENTS += [
    {"type": "item", "item_id": f"p{n % 9}", "at": T0 + n * HOUR // 12, "features": {"stock": n}}
    for n in range(0, 900, 4)
]
EVENTS.sort(key=lambda event: int(str(event["at"])))


class Kept(NamedTuple):
    """A store and the folder of its checkpoints."""

    url: str
    folder: Path


@pytest.fixture
def kept(store_url: str, tmp_path: Path) -> Kept:
    return Kept(store_url, tmp_path / "store.checkpoints")


@pytest.fixture
def sqlite(tmp_path: Path) -> Kept:
    return Kept(f"sqlite:///{tmp_path}/store.db", tmp_path / "store.checkpoints")


def replay(log: ListSource, kept: Kept | None, settings: Settings, poll: int, every: int) -> dict[str, Any]:
    url, folder = kept or (None, None)
    result = backtest("log", log, settings, store=url, poll=poll, every=every, checkpoints=folder)
    return result.summary["methods"]  # type: ignore[no-any-return]


def run(kept: Kept | None, settings: Settings = SETTINGS, upto: int = len(EVENTS)) -> dict[str, Any]:
    return replay(ListSource({("events", 0): lines(EVENTS[:upto])}), kept, settings, 50, 100)


def newest_file(kept: Kept) -> Path:
    with existing(kept.url) as connection:
        row = ledger.newest(connection)
    assert row is not None
    return kept.folder / row.file


def test_a_torn_file_is_refused(kept: Kept) -> None:
    """A checkpoint file that lost its end is refused, with its path and the remedy."""
    run(kept)
    file = newest_file(kept)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"sha256 differs.*restore it from a backup, or rebuild") as error:
        run(kept)
    assert str(file) in str(error.value)


def test_a_foreign_file_is_refused(kept: Kept) -> None:
    """The file of an earlier checkpoint under the newest one's name is refused: the label rows stand further on."""
    run(kept)
    file = newest_file(kept)
    older = sorted(file.parent.glob("*.safetensors"), key=lambda f: int(f.stem))[0]
    file.write_bytes(older.read_bytes())
    with pytest.raises(CheckpointError, match="sha256 differs"):
        run(kept)


def test_another_version_s_learner_is_refused(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint in which a learner lacks what it is made of now is refused by name, with the remedy."""
    tensors = Trainer.tensors
    with monkeypatch.context() as before:
        before.setattr(Trainer, "tensors", lambda self: {k: v for k, v in tensors(self).items() if k != "clock"})
        run(kept)
    with pytest.raises(CheckpointError, match=r"pq_signals as another version.*trainer\.clock.*new --store"):
        run(kept)


def test_a_missing_file_is_refused(kept: Kept) -> None:
    """A checkpoint without its file is refused, not skipped."""
    run(kept)
    newest_file(kept).unlink()
    with pytest.raises(CheckpointError, match="is gone; restore it"):
        run(kept)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"wait": HOUR}, {"methods": ("pq",)}, {"lateness": 1}, {"strict": True}]
)
def test_other_settings_are_refused(kept: Kept, change: dict[str, Any]) -> None:
    """A store is continued only under the settings it was written with; the message names the one that differs."""
    run(kept)
    with pytest.raises(CheckpointError, match=rf"with {next(iter(change))} = .* another --store"):
        run(kept, SETTINGS.model_copy(update=change))


def test_the_last_files_are_kept(kept: Kept) -> None:
    """After many commits the folder holds the newest files, one for each row that is left."""
    run(kept)
    folder = kept.folder
    with existing(kept.url) as connection:
        files = set(connection.execute(select(checkpoints.c.file)).scalars())
        assert connection.execute(select(func.max(checkpoints.c.n))).scalar_one() > 2 * KEEP
    assert {file.name for file in folder.glob("*.safetensors")} == files
    assert len(files) == KEEP


class Stopped(Exception):
    """The process ends here."""


STEPS = ("before the file", "before the row", "before the commit", "after the commit")


@pytest.mark.parametrize(
    ("store_url", "step", "commit"),
    [("sqlite", step, commit) for step in STEPS for commit in (1, 4)] + [("postgresql", step, 4) for step in STEPS],
    indirect=["store_url"],
)
def test_stopped_at_any_step_of_a_commit(kept: Kept, monkeypatch: pytest.MonkeyPatch, step: str, commit: int) -> None:
    """Stopped before or after any step of any commit, a run that goes on ends with the same weights and figures."""
    expected = run(None)
    count = 0

    def stop(*_: Any) -> bool:
        nonlocal count
        count += 1
        if count == commit:
            raise Stopped
        return True

    with monkeypatch.context() as patch:
        if step == "before the file":
            save = Checkpoints.save
            patch.setattr(Checkpoints, "save", lambda self, t, p: (stop(), save(self, t, p)))
        elif step == "before the row":
            record = ledger.record
            patch.setattr(ledger, "record", lambda c, row, keep: (stop(), record(c, row, keep))[1])
        elif step == "before the commit":
            from labelstore.store import LabelStore

            commit_ = LabelStore.commit
            patch.setattr(LabelStore, "commit", lambda self: (stop(), commit_(self)))
        else:
            patch.setattr(ListSource, "commit", stop)
        with pytest.raises(Stopped):
            run(kept)
    assert run(kept) == expected


def test_a_run_that_stops_between_commits_goes_on(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened after the last commit is done again, once."""
    expected = run(None)
    advance = Loop._advance
    calls = 0

    def stop(self: Loop, watermark: int) -> None:
        nonlocal calls
        calls += 1
        advance(self, watermark)
        if calls == 13:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_advance", stop)
        with pytest.raises(Stopped):
            run(kept)
    assert run(kept) == expected


def test_numbers_of_records_go_on(sqlite: Kept) -> None:
    """A commit that ends in items goes on numbering where it was: looks of one ms keep their turns."""
    items = [{"type": "item", "item_id": f"p{n}", "at": T0 + n, "features": {}} for n in range(150)]
    at = T0 + HOUR
    shown = [
        {"type": "impression", "impression_id": f"i{n}", "at": at, "features": {"n": n % 7, "s": str(n)}}
        for n in range(600)
    ]
    bought = [
        {"type": "conversion", "event_id": f"c{n}", "kind": "purchase", "at": at + n, "impression_id": f"i{n}"}
        for n in range(0, 600, 3)
    ]
    last = [{"type": "item", "item_id": "end", "at": at + 3 * DAY, "features": {}}]

    class Cut(ListSource):
        def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
            if self._next[Partition("events", 0)] >= 120:
                raise Stopped
            return super().poll(limit, paused)

    log = {("events", 0): lines([*items, *shown, *bought, *last])}
    expected = replay(ListSource(log), None, SETTINGS, 10, 20)
    with pytest.raises(Stopped):
        replay(Cut(log), sqlite, SETTINGS, 10, 20)
    assert replay(ListSource(log), sqlite, SETTINGS, 10, 20) == expected


def test_killed_at_random_moments_and_at_every_step() -> None:
    """SIGKILL, for five seeds: what goes on ends with the same tables and the same checkpoint, byte for byte."""
    script = Path(__file__).parent.parent / "benchmarks" / "kills.py"
    sizes = ["--records", "3000", "--runs", "5", "--kills", "2"]
    done = subprocess.run([sys.executable, script, *sizes], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records, runs, kills, divergences = done.stdout.strip().split(", ")
    assert (records, runs, divergences) == ("3,000 records", "5 runs", "0 divergences")
    assert int(kills.split()[0]) >= 35


def test_no_room_for_the_file(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at step 1 ends the run with the remedy; with room again it goes on to the same end."""
    monkeypatch.setattr("stream.learning.Shape", Shape)  # a file that is larger than the database
    expected = run(None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, hard))
    try:
        with pytest.raises(
            StoreError, match=r"checkpoints: File too large; free some room.*what was committed is kept"
        ):
            run(kept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(kept.folder.glob("*.partial"))  # it would keep the disk full
    assert run(kept) == expected


@pytest.mark.parametrize("pages", [54, 66])
def test_no_room_for_the_rows(sqlite: Kept, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """A disk that is full in step 2, or between commits, likewise."""
    expected = run(None)

    def small(connection: Any, record: object, plain: Any = engines._sqlite_settings) -> None:
        plain(connection, record)
        connection.execute(f"PRAGMA max_page_count={pages}")

    with monkeypatch.context() as patch:
        patch.setattr(engines, "_sqlite_settings", small)
        with pytest.raises(StoreError, match=r"disk is full; what was committed is kept.*run the same command again"):
            run(sqlite)
    assert run(sqlite) == expected


def test_one_writer_at_a_time(kept: Kept) -> None:
    """A second run on the same store is refused at once and changes nothing."""
    with alone(*kept), pytest.raises(StoreError, match="another process is writing to it"):
        run(kept)
    run(kept)


def test_one_writer_under_another_name(sqlite: Kept, tmp_path: Path) -> None:
    """Whatever folder it gives for the checkpoints, and through whatever link it names the file."""
    file = make_url(sqlite[0]).database
    assert file
    (tmp_path / "other.db").symlink_to(file)
    with alone(*sqlite):
        for url in (sqlite[0], f"sqlite:///{tmp_path}/other.db"):
            with pytest.raises(StoreError, match="another process is writing to it"):
                run(Kept(url, tmp_path / "elsewhere"))


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    """A file that is no database is refused by name."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"x\.db.*not a database"):
        run(Kept(f"sqlite:///{tmp_path}/x.db", tmp_path))


def test_half_a_file_of_one_that_was_killed_goes(tmp_path: Path) -> None:
    """The next writer removes it, and nothing of others."""
    for name in ("7-123.partial", "graph-2-9.partial", "mine.partial"):
        (tmp_path / name).write_bytes(b"half")
    with opened(f"sqlite:///{tmp_path}/store.db", SETTINGS, tmp_path) as _:
        assert [file.name for file in tmp_path.glob("*.partial")] == ["mine.partial"]
