"""`belated run` in a process of its own that dies where it is told to, and what starts it again."""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feed import Feed
from kills import STEPS, _deadly

from labelstore.store import LabelStore
from stream import cli
from stream.kafka_outbox import KafkaOutbox
from stream.kafka_source import KafkaSource

STEPS_LIVE: dict[str, tuple[Any, str, bool]] = {
    **STEPS,
    "after the source's commit": (KafkaSource, "commit", True),
    "after dead letters were sent": (KafkaOutbox, "send", True),
}
STARTING, GOING_ON = (
    '"event": "starting"',
    '"event": "going on"',
)  # lines of its log: before and after it met its broker
EARLY = 128 + signal.SIGTERM  # what a command that is interrupted ends with: the daemon, before it could listen
AROUND = 0.02  # seconds from the beginning of an SQL commit within which the database crashes


class Failed(Exception):
    """The daemon did what it must not."""


def live(environment: dict[str, str], said: str, step: str | None, count: int, database: int | None) -> None:
    """In a process of its own: `belated run`, killed at the given step of the commit with this count.

    ``database``: the server with this pid crashes around that commit instead.
    """
    with open(said, "ab") as file:
        os.dup2(file.fileno(), 2)
    if step:
        where, name, after = STEPS_LIVE[step]
        setattr(where, name, _deadly(getattr(where, name), after, count))
    if database:
        setattr(LabelStore, "commit", _crashing(LabelStore.commit, database, count))  # noqa: B010  # as above
    os.environ.update(environment)
    sys.argv = ["belated", "run"]
    cli.main()


def _crashing(commit: Callable[[LabelStore], None], pid: int, count: int) -> Callable[[LabelStore], None]:
    calls = 0

    def call(store: LabelStore) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            threading.Timer(random.uniform(0, AROUND), os.kill, (pid, signal.SIGQUIT)).start()  # noqa: S311  # a moment
        commit(store)

    return call


class Daemon:
    """A daemon and its supervisor, which starts it again where it ended with status 2 because a server was gone.

    Args:
        said: where its log goes.
    """

    def __init__(self, context: Any, environment: dict[str, str], said: Path, feed: Feed) -> None:
        self._context, self._environment, self._said, self._feed = context, environment, said, feed
        self.happened: Counter[str] = Counter()
        self._process: Any = None

    def start(self, step: str | None = None, count: int = 1, database: int | None = None) -> None:
        """See `live`."""
        self._again = (step, count)
        given = (self._environment, str(self._said), step, count, database)
        self._process = self._context.Process(target=live, args=given)
        self._process.start()

    def hold(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Feed it for so long; True as soon as it has died at its step, or ``done``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done():
                return True
            self._feed.trickle()
            self._process.join(0.05)
            if self._process.exitcode == -signal.SIGKILL:
                self.happened["kills"] += 1
                return True
            if self._process.exitcode is not None:
                self._refuse()
                self.start(*self._again)
        return False

    def end(self, number: int) -> None:
        """SIGKILL or SIGTERM, which it obeys in time."""
        end = self._process.kill if number == signal.SIGKILL else self._process.terminate
        end()  # unless it has ended
        self._process.join(40)
        if self._process.exitcode is None:
            raise Failed("the daemon did not end within 40 s of SIGTERM")
        killed = self._process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, EARLY)
        if not killed and self._process.exitcode != 0:
            self._refuse()
        self.happened["kills"] += killed

    def leave(self) -> None:
        """Nothing is left of it."""
        if self._process:
            self._process.kill()
            self._process.join()

    def _refuse(self) -> None:
        """It has ended by itself: it may if its database was gone, or if it met no broker when it began."""
        said = self._said.read_text(errors="replace")
        last = said.splitlines()[-1] if said else ""
        beginning = GOING_ON not in said.rpartition(STARTING)[2]
        excused = last.startswith("error: store postgresql") or (last.startswith("error: kafka") and beginning)
        if self._process.exitcode != 2 or not excused:
            raise Failed(f"the daemon ended with status {self._process.exitcode}: {last}")
        self.happened["ends with status 2"] += 1
        time.sleep(0.1)
