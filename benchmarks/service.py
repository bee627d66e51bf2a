"""The daemon as its users run it, to be measured: a broker of our own, topics, and `belated run` as a process."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kafka.admin import KafkaAdminClient
from servers import Broker, free_port

TOPICS = ("impressions", "signals", "conversions", "items")
PARTS = ("impressions", "signals", "conversions", "adjustments", "items", "duplicates", "dead_letters", "ignored")
SECONDS = 3_600  # for anything that is waited for
STILL = 10.0  # seconds in which nothing passes: more than idle_after, and than a turn of the loop
Status = dict[str, Any]


class Used(NamedTuple):
    """What a process ended with: its status, CPU seconds (imports included), peak MB of resident memory."""

    code: int
    cpu: float
    peak: float


@contextmanager
def broker(folder: Path, *settings: str) -> Iterator[str]:
    """host:port of a broker with its data in ``folder``, started by the script that BELATED_KAFKA_SCRIPT names.

    ``settings``: lines of its server.properties.
    """
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        raise SystemExit("needs a broker of its own: set BELATED_KAFKA_SCRIPT to a script that starts one")
    found = Broker(script, folder, *settings, heap="512m")
    found.start()
    try:
        yield found.server
    finally:
        found.kill()


def create(server: str, topics: Iterable[str], partitions: int) -> None:
    """Make topics, and wait until the broker knows them."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_topics({name: {"num_partitions": partitions} for name in topics}, wait_for_metadata=True)
    admin.close()


def belated(*words: object) -> str:
    """What a command says; it must succeed."""
    command = [sys.executable, "-m", "stream.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"belated {' '.join(map(str, words))} ended with status {done.returncode}: {done.stderr}")
    return done.stdout


def configure(file: Path, **sections: dict[str, Any]) -> Path:
    """Write a configuration. The port of its HTTP server is one that is free."""
    told = sections | {"http": {"port": free_port()}}
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for name, keys in told.items()
    )
    file.write_text(text)
    return file


def imports() -> tuple[float, float]:
    """(seconds, CPU seconds) that it takes to import what `belated run` does, the least of three."""
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        modules = "stream.cli, stream.daemon, stream.kafka_outbox, stream.kafka_source"
        with subprocess.Popen([sys.executable, "-c", f"import {modules}"]) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        found.append((time.perf_counter() - begun, used.ru_utime + used.ru_stime))
    return min(found)


class Daemon:
    """`belated run` on a configuration, from now on; what it says is appended to ``said``."""

    def __init__(self, file: Path, said: Path, **environment: str) -> None:
        self._url = f"http://127.0.0.1:{_port(file)}"
        self._said, self.begun = said, time.perf_counter()
        with said.open("ab") as stream:
            command = [sys.executable, "-m", "stream.cli", "run", "-c", str(file)]
            self.process = subprocess.Popen(command, env=os.environ | environment, stderr=stream)

    def _get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self._url + path, timeout=5) as answer:  # noqa: S310  # of loopback
                found: bytes = answer.read()
                return found
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def status(self) -> Status | None:
        """What /status says; None while nobody answers."""
        answer = self._get("/status")
        found: Status | None = json.loads(answer) if answer else None
        return found

    def ready(self) -> float:
        """Waits for /readyz; seconds since the process was started."""
        self._until(lambda: self._get("/readyz"), 0.02)
        return time.perf_counter() - self.begun

    def wait(self, what: Callable[[Status], bool], apart: float = 0.25) -> Status:
        """The first status for which ``what`` holds."""
        told: Status = self._until(lambda: found if (found := self.status()) and what(found) else None, apart)
        return told

    def drained(self, total: int) -> Status:
        """The status once so many records have been read, and nothing passes any more for `STILL` seconds."""
        seen: list[tuple[float, int | None]] = []

        def still(status: Status) -> bool:
            if not seen or status["passed"] != seen[-1][1]:
                seen.append((time.monotonic(), status["passed"]))
            return status["counts"].get("read", 0) >= total and time.monotonic() - seen[-1][0] > STILL

        return self.wait(still)

    def _until(self, ask: Callable[[], Any], apart: float) -> Any:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := ask():
                return found
            if self.process.poll() is not None:
                raise SystemExit(f"the daemon ended by itself: {self._said.read_text()[-2000:]}")
            time.sleep(apart)
        raise SystemExit(f"not within {SECONDS} s: {self.status()}")

    def end(self, number: int = signal.SIGTERM) -> Used:
        """Send a signal, and wait."""
        self.process.send_signal(number)
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Used(self.process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _port(file: Path) -> int:
    return int(tomllib.loads(file.read_text())["http"]["port"])


def accounted(status: Status) -> int:
    """Records by what became of them, and those that wait."""
    passed: int = sum(status["counts"].get(name, 0) for name in PARTS)
    return passed + int(status["waiting"])
