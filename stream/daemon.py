"""The long-running consumer: from a broker into the label store and the learners, until it is told to stop.

SIGTERM or SIGINT: finish what was begun, commit, leave; within `DEADLINE`, or else at once, which costs the work since
the last commit. A second signal: at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
import torch

from learner.methods import LIVE
from stream.config import Config, ConfigError
from stream.health import Health, Server, Status
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import Source
from stream.workspace import opened

DEADLINE = 30.0  # seconds from the first signal to the end
AT_ONCE = 130  # status after a second signal, or past the deadline
BETWEEN = 1.0  # seconds between two statuses
SAID = 60.0  # seconds between two lines of progress in the log


class Stop:
    """Whether a signal has asked to stop; the second one, or the deadline, ends the process where it stands."""

    def __init__(self, log: Any, deadline: float = DEADLINE) -> None:
        self._log, self._deadline, self._asked = log, deadline, False

    def __call__(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal has come."""
        if self._asked:
            self._log.warning("leaving at once", signal=signal.Signals(number).name)
            os._exit(AT_ONCE)
        self._asked = True
        self._log.info("stopping: finish, commit, leave", signal=signal.Signals(number).name, deadline_s=self._deadline)
        timer = threading.Timer(self._deadline, self._too_late)
        timer.daemon = True
        timer.start()

    def _too_late(self) -> None:
        self._log.error("the deadline is past: leaving at once; the last commit stands", deadline_s=self._deadline)
        os._exit(AT_ONCE)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are heard inside the body."""
        before = {number: signal.signal(number, self.ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check(settings: Settings) -> None:
    """Refuse what only a backtest can do.

    Raises:
        ConfigError: it names the method and the remedy.
    """
    for name in settings.methods:
        if name not in LIVE:
            raise ConfigError(f"learner.methods: {name!r} runs in backtests only; choose from {', '.join(LIVE)}")
    if settings.pretrain:
        raise ConfigError("learner.pretrain belongs to backtests; leave it out")


def run(config: Config, source: Callable[[], Source], said: Callable[[int], None] = lambda port: None) -> None:
    """Run until a signal.

    Args:
        source: opens the log; called once the store is open, which holds the lock of the only writer.
        said: hears the port of the health endpoints.

    Raises:
        ConfigError, SourceError, StoreError, CheckpointError: with the remedy.
    """
    check(config.learner)
    torch.set_num_threads(1)
    log = structlog.get_logger("belated")
    stop, health = Stop(log), Health()
    server = Server(health, config.http.host, config.http.port)
    try:
        said(server.port)
        with (
            stop.listening(),
            opened(config.store.secret_url, config.learner, config.store.checkpoints) as (store, checkpoints),
        ):
            log.info("starting", topics=config.kafka.topics, servers=config.kafka.servers, http_port=server.port)
            loop = Loop(source(), config.learner, store, checkpoints, every=config.store.records)
            log.info("going on", commit=loop.committed, passed=loop.passed, records=loop.counts["read"])
            told = _Telling(loop, health, log)
            told(0)
            loop.run(told, stop=stop, every_s=config.store.every / 1000)
            health.leave()
            log.info("left", commit=loop.committed, records=loop.counts["read"])
    finally:
        server.close()


class _Telling:
    """Publishes the loop's status once a second, and a line in the log once a minute."""

    def __init__(self, loop: Loop, health: Health, log: Any) -> None:
        self._loop, self._health, self._log = loop, health, log
        self._published = self._logged = 0.0
        self._commit: tuple[int, int | None] = (loop.committed, None)

    def __call__(self, read: int) -> None:
        now = time.monotonic()
        if now - self._published < BETWEEN:
            return
        self._published = now
        if self._loop.committed != self._commit[0]:
            self._commit = self._loop.committed, round(time.time() * 1000)
        status = status_of(self._loop, *self._commit)
        self._health.publish(status)
        if now - self._logged >= SAID:
            self._logged = now
            told = {"records": status.counts.get("read", 0), "lag": sum(status.lag.values()), "commit": status.commit}
            self._log.info("progress", **told, passed=status.passed, event_time_lag_s=self._health.event_time_lag())


def status_of(loop: Loop, commit: int, committed: int | None) -> Status:
    """How a loop stands."""
    learners = {}
    for learner, judged in zip(loop.learners, loop.validation.judged, strict=True):
        settled, weights = judged.metrics.summary(), learner.trainer.report.weights()
        learners[learner.name] = {
            "steps": learner.trainer.version,
            "looks": learner.trainer.report.looks,
            "settled_rows": settled["rows"],
            **{f"settled_{name}": settled[name] for name in ("log_loss", "auc", "pcoc")},
            **{f"weight_{name}": weights[name] for name in ("mean", "ess_share")},
        }
    passed = loop.passed if loop.passed > 0 else None
    lag = {f"{place.topic}/{place.partition}": behind for place, behind in loop.source.lag().items()}
    return Status(True, dict(loop.counts), passed, loop.waiting, lag, loop.source.gone, commit, committed, learners)
