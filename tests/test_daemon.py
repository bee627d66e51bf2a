"""`belated run` as its users run it: a process, a broker, signals, and what it says."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient
from servers import free_port

import broker_tools
from broker_tools import configured
from command_line import belated
from labelstore import ledger
from labelstore.stats import digest
from labelstore.store import existing
from learner.names import DEFAULT
from strategies import lines
from stream.broker import NAME
from stream.config import Config, ConfigError, Kafka
from stream.courtesy import Courtesy
from stream.daemon import check
from stream.settings import Settings
from stream.sources import Partition
from test_loop import shop

pytest.importorskip("structlog", reason="needs the extra `daemon`: pip install 'belated[daemon]'")

EVENTS = shop(1500, seed=5)
LEARNER = {"window": "2d", "wait": "5h"}


class Daemon:
    """A running `belated run`, with a file or without, on a free port."""

    def __init__(self, environment: dict[str, str], file: Path | None = None) -> None:
        self.port = free_port()
        given = os.environ | environment | {"BELATED_HTTP__PORT": str(self.port)}
        command = [sys.executable, "-m", "stream.cli", "run", *(["--config", str(file)] if file else [])]
        self.process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True)

    def status(self) -> dict[str, Any] | None:
        """What /status says; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=2) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def wait(self, what: Any, seconds: float = 90) -> dict[str, Any]:
        """The first status for which ``what`` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            if (status := self.status()) is not None and what(status):
                return status
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s: {self.status()}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        """(status, lines of standard error) after a signal."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.splitlines()


@contextmanager
def running(config: Kafka, store: Path, **environment: str) -> Iterator[Daemon]:
    told = {
        "KAFKA__SERVERS": json.dumps(config.servers), "KAFKA__IMPRESSIONS": config.impressions,
        "KAFKA__SIGNALS": config.signals, "KAFKA__CONVERSIONS": config.conversions, "KAFKA__ITEMS": config.items,
        "KAFKA__IDLE_AFTER": "1s", "KAFKA__TIMEOUT": "5s", "STORE__URL": f"sqlite:///{store}", "STORE__EVERY": "1s",
        "LEARNER__WINDOW": "2d", "LEARNER__WAIT": "5h",
    }  # fmt: skip
    daemon = Daemon({f"BELATED_{name}": value for name, value in told.items()} | environment)
    try:
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.communicate()


def produce(config: Kafka, events: list[dict[str, Any]]) -> None:
    """Events into their topics, one partition each."""
    topics = {"impression": config.impressions, "signal": config.signals}
    places = [topics.get(event["type"], config.conversions) for event in events]
    broker_tools.produce(config.servers[0], zip(places, [0] * len(events), lines(events), strict=True))


def accounted(status: dict[str, Any]) -> int:
    """Records that have passed, by what became of them, and those that wait."""
    parts = ("impressions", "signals", "conversions", "adjustments", "items", "dead_letters", "duplicates")
    passed: int = sum(status["counts"].get(name, 0) for name in parts)
    return passed + int(status["waiting"])


def test_it_learns_tells_and_leaves(kafka: str, tmp_path: Path) -> None:
    """Ready, all read and committed, every line of its log JSON; SIGTERM commits and leaves with status 0; started again
    it goes on where it was and reads nothing twice. The topic of items is silent, and holds nothing back."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    produce(config, EVENTS[:900])
    with running(config, store) as daemon:
        daemon.wait(lambda s: s["ready"] and s["counts"].get("read") == 900)
        time.sleep(3)
        produce(config, EVENTS[900:])
        daemon.wait(lambda s: s["counts"].get("read") == len(EVENTS))
        status = daemon.wait(lambda s: s["learners"][DEFAULT]["looks"] > 256 and s["commit"])
        assert sum(status["lag"].values()) == 0
        code, said = daemon.stop()
    assert code == 0
    told = [json.loads(line) for line in said]
    assert [one["event"] for one in told if one["event"] != "progress"] == [
        "starting", "going on", "stopping: finish, commit, leave", "left",
    ]  # fmt: skip
    with running(config, store) as daemon:
        again = daemon.wait(lambda s: s["ready"])
        assert again["counts"]["read"] == len(EVENTS)
        assert daemon.stop(signal.SIGINT)[0] == 0


def test_killed_it_goes_on(kafka: str, tmp_path: Path) -> None:
    """SIGKILL after a commit, more records, a second run: every record is read once, and none twice."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    produce(config, EVENTS[:900])
    with running(config, store) as daemon:
        daemon.wait(lambda s: s["commit"] >= 1)
        daemon.process.kill()
    produce(config, EVENTS[900:])
    with running(config, store) as daemon:
        status = daemon.wait(lambda s: s["counts"].get("read", 0) >= len(EVENTS))
        daemon.stop()
    assert status["counts"]["read"] == len(EVENTS) == accounted(status)
    assert status["counts"].get("duplicates", 0) == 0


def test_killed_before_it_has_read_anything(kafka: str, tmp_path: Path) -> None:
    """Where a first start begins is committed at once: what comes after it is read, whatever happens."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    how = {"BELATED_STORE__EVERY": "1h", "BELATED_KAFKA__START": "latest"}
    produce(config, EVENTS[:100])
    with running(config, store, **how) as daemon:
        daemon.wait(lambda s: s["ready"] and s["commit"] == 1)
        produce(config, EVENTS[100:900])
        daemon.wait(lambda s: s["counts"].get("read") == 800)
        daemon.process.kill()
    with running(config, store, **how) as daemon:
        assert daemon.wait(lambda s: s["counts"].get("read", 0) >= 800)["counts"]["read"] == 800
        daemon.stop()


def test_a_second_daemon_is_refused(kafka: str, tmp_path: Path) -> None:
    """Two daemons on one store: the second ends at once, with status 2 and a sentence; the first goes on."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    with running(config, store) as first:
        first.wait(lambda s: s["ready"])
        with running(config, store) as second:
            _, said = second.process.communicate(timeout=60)
            assert second.process.returncode == 2
            assert "another process" in said
            assert "Traceback" not in said
        assert first.stop()[0] == 0


def test_a_second_signal_is_at_once(kafka: str, tmp_path: Path) -> None:
    """Two signals in a row: it leaves where it stands, with a status of its own; the last commit stands."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    produce(config, EVENTS)
    with running(config, store) as daemon:
        daemon.wait(lambda s: s["commit"] >= 1)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.communicate(timeout=60)
        assert daemon.process.returncode in (0, 130)
    with existing(f"sqlite:///{store}") as connection:
        assert ledger.newest(connection) is not None


INTERRUPTED = """
import io, os, signal, sys

class Interrupted(io.StringIO):
    signals = int(sys.argv[1])

    def write(self, text):
        if self.signals:
            self.signals -= 1
            os.kill(os.getpid(), signal.SIGTERM)
        return sys.__stderr__.write(text)

sys.stderr = Interrupted()
import structlog
from stream.commands.daemon import log_as_json
from stream.daemon import Stop
log_as_json("info")
log = structlog.get_logger()
stop = Stop(log, deadline=1)
with stop.listening():
    log.info("progress")
    assert stop() and stop()
    if sys.argv[2:]:
        import time
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["1"], 0, ["progress", "stopping: finish, commit, leave"]),
        (["2"], 130, ["leaving at once"]),
        (["1", "stuck"], 130, ["progress", "stopping: finish, commit, leave", "the deadline is past"]),
    ],
)
def test_a_signal_while_a_line_is_logged(arguments: list[str], status: int, said: list[str]) -> None:
    """The logger holds a lock while it writes: a signal that comes just then must not wait for it. Past the deadline it
    is left from where it hangs."""
    command = [sys.executable, "-c", INTERRUPTED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert [name for name in said if name in done.stderr] == said


LEFT = """
import logging, os, signal, time
from stream.daemon import Stop

stop = Stop(logging, deadline=0.5)
with stop.listening():
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop()
time.sleep(1)
print("whole")
"""


def test_the_deadline_is_that_of_the_run() -> None:
    """Whoever has left in time is not ended afterwards: a program that runs the daemon goes on."""
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_offsets_that_reach_nobody_leave_nothing() -> None:
    """Each commit tries the broker again: no thread and no descriptor stays of a try that failed."""
    courtesy = Courtesy(Kafka(servers=(f"127.0.0.1:{free_port()}",)))
    before = threading.active_count()
    for _ in range(2):
        courtesy.commit({Partition("events", 0): 1})
    assert threading.active_count() == before


def test_an_absent_broker_is_told(tmp_path: Path) -> None:
    """No broker: within 15 seconds a sentence that names it, status 2, no traceback."""
    config = Kafka(servers=(f"127.0.0.1:{free_port()}",))
    begun = time.monotonic()
    with running(config, tmp_path / "store.db") as daemon:
        _, said = daemon.process.communicate(timeout=60)
    assert daemon.process.returncode == 2
    assert config.servers[0] in said
    assert "Traceback" not in said
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_broker_is_waited_for(tmp_path: Path, number: int) -> None:
    """Nothing has begun that would have to be finished: it leaves at once, not after `kafka.timeout`."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = Kafka(servers=(f"127.0.0.1:{mute.getsockname()[1]}",))
        with running(config, tmp_path / "store.db", BELATED_KAFKA__TIMEOUT="1m") as daemon:
            mute.settimeout(60)
            _link = mute.accept()  # kept open
            begun = time.monotonic()
            status, said = daemon.stop(number)
    assert status == 128 + number
    assert "Traceback" not in "".join(said)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("learner", "says"),
    [({"methods": ["oracle"]}, "'oracle' runs in backtests only"), ({"pretrain": "7d"}, "pretrain")],
)
def test_what_only_a_backtest_can_do_is_refused(learner: dict[str, Any], says: str) -> None:
    """The daemon knows no final labels beforehand, and has no pre-training."""
    with pytest.raises(ConfigError, match=says):
        check(Config(learner=Settings(**(LEARNER | learner))).settings)


def told(config: Kafka) -> tuple[set[str], dict[Any, Any]]:
    """The groups the broker knows, and the offsets of our group in the topics of this test."""
    admin = KafkaAdminClient(bootstrap_servers=config.servers[0])
    groups = {group["group_id"] for group in admin.list_groups()}
    offsets = admin.list_group_offsets(NAME)
    admin.close()
    return groups, {place: at for place, at in offsets.get(NAME, {}).items() if place.topic in config.topics}


def test_an_export_and_its_replay_leave_the_daemon_where_it_is(kafka: str, tmp_path: Path) -> None:
    """Beside the running daemon a range of the topics is exported and replayed into a store of its own: the offsets in the
    daemon's store and those told to the broker stay as they are, and no group is new. Then it reads on, nothing twice."""
    config, store = configured(kafka, partitions=1), tmp_path / "store.db"
    produce(config, EVENTS[:900])
    with running(config, store) as daemon:
        daemon.wait(lambda s: s["counts"].get("read") == 900 and s["commit"])
        daemon.wait(lambda s: sum(row[-1] for row in where(store)) == 900)  # all of it committed
        daemon.wait(lambda s: sum(at.offset for at in told(config)[1].values()) == 900)
        before = told(config), where(store)
        beside = f"sqlite:///{tmp_path}/beside.db"
        file = settings_file(config, tmp_path)
        assert belated("export", tmp_path / "log", "-c", file, "--store", f"sqlite:///{store}").returncode == 0
        assert belated("replay", tmp_path / "log", "--store", beside, "--window", "2d", "--wait", "5h").returncode == 0
        assert (told(config), where(store)) == before
        assert sum(offset for *_, offset in where(tmp_path / "beside.db")) == 900
        assert {place.topic: at.offset for place, at in before[0][1].items()}[config.impressions] > 0
        produce(config, EVENTS[900:])
        status = daemon.wait(lambda s: s["counts"].get("read", 0) >= len(EVENTS))
        daemon.stop()
    assert status["counts"]["read"] == len(EVENTS) == accounted(status)


def test_its_store_is_that_of_its_replay(kafka: str, tmp_path: Path) -> None:
    """What it had read when it left, exported and replayed without taking the end for the end of time: one digest, one
    checkpoint to the byte. Records that came later are in the topics and not in the export."""
    config, store, again = configured(kafka, partitions=1), tmp_path / "store.db", tmp_path / "again.db"
    file = settings_file(config, tmp_path)
    produce(config, EVENTS[:900])
    with running(config, store) as daemon:
        daemon.wait(lambda s: s["counts"].get("read") == 900)
        time.sleep(3)  # topics fall silent, which is journalled where others are not
        produce(config, EVENTS[900:1400])
        daemon.wait(lambda s: s["counts"].get("read") == 1400 and s["learners"][DEFAULT]["looks"] > 256)
        time.sleep(2)  # all that may pass has passed
        daemon.stop()
    produce(config, EVENTS[1400:])
    export = ("export", tmp_path / "log", "-c", file, "--store", f"sqlite:///{store}", "--until", "commit")
    assert belated(*export).returncode == 0
    replay = ("replay", tmp_path / "log", "-c", file, "--window", "2d", "--wait", "5h", "--store", f"sqlite:///{again}")
    assert belated(*replay, "--unfinished").returncode == 0
    assert state(again) == state(store)
    assert belated(*replay).returncode == 0  # the log is over after all: what waited passes
    assert state(again) != state(store)


def settings_file(config: Kafka, folder: Path) -> Path:
    """A file that names the broker and its topics."""
    names = "".join(
        f'{kind} = "{getattr(config, kind)}"\n' for kind in ("impressions", "signals", "conversions", "items")
    )
    (folder / "belated.toml").write_text(f"[kafka]\nservers = {json.dumps(config.servers)}\n{names}")
    return folder / "belated.toml"


def state(store: Path) -> tuple[str, str]:
    """Digest of the rows, and sha256 of the checkpoint."""
    with existing(f"sqlite:///{store}") as connection:
        found = ledger.newest(connection)
        assert found is not None
        return digest(connection), found.sha256


def where(store: Path) -> Any:
    """The offsets of the last commit of a store."""
    with existing(f"sqlite:///{store}") as connection:
        found = ledger.newest(connection)
    assert found is not None
    return found.progress["offsets"]
