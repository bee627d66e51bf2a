"""Same log, settings and seed: the same tables, weights and checkpoint, to the byte. Simulated logs, read from disk."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from labelstore import ledger
from labelstore.stats import digest, sizes
from labelstore.store import existing
from learner.names import DEFAULT
from stream.backtest import backtest
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import Scenario
from stream.simulate.write import write
from stream.sources import Partition, Record

METHODS = (
    "settled",
    "fnw",
    DEFAULT,
    "defer",
    "dfm",
    "ulc",
    "gdfm",
)  # every schedule that differs, every auxiliary model
SETTINGS = Settings(methods=METHODS, window="2d", wait="3h", keep="90d")  # type: ignore[arg-type]  # as people write
MESS: dict[str, Any] = dict(
    window="2d", days=7, rate=0.2, late=0.1, late_by="3h", duplicates=0.05, gap="8h", broken=0.01, retractions=0.1,
    restatements=0.1, again=0.2,
)  # fmt: skip
ORDERLY: dict[str, Any] = MESS | dict(late=0, duplicates=0, gap=0, broken=0)
Log = Callable[..., Path]


class State(NamedTuple):
    """What a run leaves: digest of the tables, sha256 of the checkpoint's file, and digest of each learner's weights."""

    tables: str
    checkpoint: str
    learners: dict[str, str]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """A simulated log on disk, written once for each set of knobs."""
    written: dict[str, Path] = {}

    def make(**knobs: Any) -> Path:
        name = repr(sorted(knobs.items()))
        if name not in written:
            written[name] = tmp_path_factory.mktemp("log") / "log"
            write(Scenario(**knobs), written[name])
        return written[name]

    return make


def left(url: str) -> tuple[str, str]:
    """(digest of the tables, sha256 of the newest checkpoint's file)."""
    with existing(url) as connection:
        newest = ledger.newest(connection)
        assert newest is not None
        return digest(connection), newest.sha256


def run(source: FileSource, folder: Path, settings: Settings = SETTINGS, poll: int = 5000, every: int = 10**9) -> State:
    url = f"sqlite:///{folder}/store.db"
    told = backtest("log", source, settings, url, poll, every).summary["methods"]
    return State(*left(url), {name: method["digest"] for name, method in told.items()})


def test_the_log_is_a_mess(log: Log, tmp_path: Path) -> None:
    """The log of these tests has some of everything that could make a difference, and enough to learn from."""
    folder = log(impressions=2000, partitions=8, **MESS)
    told = backtest("log", FileSource(folder), SETTINGS, f"sqlite:///{tmp_path}/store.db").summary
    for name in ("adjustments", "dead_letters", "duplicates", "late"):
        assert told["events"][name] > 20, name
    with existing(f"sqlite:///{tmp_path}/store.db") as connection:
        rows = sizes(connection)
    assert all(rows[name] for name in ("conversions", "signals", "looks", "predictions", "metrics")), rows
    assert all(method["looks"] > 500 for method in told["methods"].values())


@pytest.fixture(scope="module")
def whole(log: Log, tmp_path_factory: pytest.TempPathFactory) -> State:
    """What one pass over the messy log leaves."""
    return run(FileSource(log(impressions=2000, partitions=8, **MESS)), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("poll", [7, 300])
def test_polls(log: Log, whole: State, tmp_path: Path, poll: int) -> None:
    """Polls of 7, 300 and 5000 records leave the same."""
    assert run(FileSource(log(impressions=2000, partitions=8, **MESS)), tmp_path, poll=poll) == whole


def test_polls_of_one_record(log: Log, tmp_path: Path) -> None:
    """Also record by record, on a short log."""
    states = []
    for poll in (1, 5000):
        (tmp_path / str(poll)).mkdir()
        states.append(run(FileSource(log(impressions=300, partitions=3, **MESS)), tmp_path / str(poll), poll=poll))
    assert states[0] == states[1]


def test_commits(log: Log, whole: State, tmp_path: Path) -> None:
    """Commits after every 1,000 records leave the same, in the tables as in the last file."""
    assert run(FileSource(log(impressions=2000, partitions=8, **MESS)), tmp_path, poll=50, every=1000) == whole


class Shuffled(FileSource):
    """Reads partitions in an order of its own, a few records at a time."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path)
        self._random = np.random.default_rng(seed)

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        ready = [p for p in self.partitions() if p not in paused and p not in self.exhausted()]
        if not ready:
            return []
        chosen = ready[int(self._random.integers(len(ready)))]
        others = frozenset(p for p in self.partitions() if p != chosen)
        return super().poll(int(self._random.integers(1, 300)), others)


@pytest.mark.parametrize("seed", range(3))
def test_orders_of_reading(log: Log, whole: State, tmp_path: Path, seed: int) -> None:
    """Eight partitions read in any order leave the same."""
    assert run(Shuffled(log(impressions=2000, partitions=8, **MESS), seed), tmp_path) == whole


def test_retention(log: Log, tmp_path: Path) -> None:
    """Also where most of it has been deleted meanwhile."""
    short, states = SETTINGS.model_copy(update={"keep": None}), []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        source = Shuffled(log(impressions=2000, partitions=8, **MESS), seed)
        states.append(run(source, tmp_path / str(seed), short, every=1000 + seed))
    assert states[0] == states[1]


def test_one_partition_and_eight(log: Log, tmp_path: Path) -> None:
    """Where nothing is late, the same records in one partition or in eight leave the same tables and the same file: but for
    dead letters (of which this log has none), no table names a partition."""
    states = []
    for partitions in (1, 8):
        folder = tmp_path / str(partitions)
        folder.mkdir()
        states.append(run(FileSource(log(impressions=2000, partitions=partitions, **ORDERLY)), folder))
        with existing(f"sqlite:///{folder}/store.db") as connection:
            assert sizes(connection)["dead_letters"] == 0 < sizes(connection)["looks"]
    assert states[0] == states[1]


@pytest.fixture(scope="module")
def alone(log: Log, tmp_path_factory: pytest.TempPathFactory) -> State:
    """What the default method leaves of the messy log."""
    one = SETTINGS.model_copy(update={"methods": (DEFAULT,)})
    return run(FileSource(log(impressions=2000, partitions=8, **MESS)), tmp_path_factory.mktemp("alone"), one)


@pytest.mark.parametrize(
    "surroundings",
    [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}, {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}],
    ids=["hash seed 1", "hash seed 2", "two threads"],
)
def test_processes(log: Log, alone: State, tmp_path: Path, surroundings: dict[str, str]) -> None:
    """The command line, in a process of its own under another hash seed or number of threads, leaves the same."""
    folder, url = log(impressions=2000, partitions=8, **MESS), f"sqlite:///{tmp_path}/replayed.db"
    command = [
        sys.executable,
        "-m",
        "stream.cli",
        "replay",
        str(folder),
        "--window",
        "2d",
        "--wait",
        "3h",
        "--keep",
        "90d",
    ]
    command += ["--store", url]
    done = subprocess.run(command, env=os.environ | surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert left(url) == (alone.tables, alone.checkpoint)
