"""The long-running consumer: from a broker into the label store and the learners, until it is told to stop.

SIGTERM or SIGINT: finish what was begun, commit, leave; within `DEADLINE`, or else at once, which costs the work since
the last commit. A second signal: at once.
"""

import errno
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

import structlog
import torch

from learner.names import LIVE
from stream.config import Config, ConfigError
from stream.forwarding import Outbox
from stream.health import Health, Server, Status
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import Partition, Source
from stream.workspace import opened

DEADLINE = 30.0  # seconds from the first signal to the end
AT_ONCE = 130  # status after a second signal, or past the deadline
BETWEEN = 1.0  # seconds between two statuses
PORT = (errno.EADDRINUSE, errno.EACCES)  # what is wrong with a port; else it is the host
SAID = 60.0  # seconds between two lines of progress in the log


class Live(Source, Protocol):
    """A source that never ends, and knows how it stands."""

    @property
    def lag(self) -> dict[Partition, int]:
        """Records of each partition that have not been read."""

    @property
    def gone(self) -> Mapping[Partition, int]:
        """Records of each partition that retention had deleted before they were read."""

    @property
    def reachable(self) -> bool:
        """Whether the broker answers."""


class Stop:
    """Whether a signal has asked to stop; the second one, or the deadline, ends the process where it stands.

    A signal may come while a line is being logged, and the logger's lock is held: what hears it never logs. The first one
    is told of by whoever asks; what ends the process writes past the logger, and only where that does not block.
    """

    def __init__(self, log: Any, deadline: float = DEADLINE) -> None:
        self._log, self._deadline = log, deadline
        self._asked: str | None = None
        self._told = False
        self._timer: threading.Timer | None = None

    def __call__(self) -> bool:
        if self._asked and not self._told:
            self._told = True
            self._log.info("stopping: finish, commit, leave", signal=self._asked, deadline_s=self._deadline)
        return self._asked is not None

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal has come."""
        if self._asked:
            _leave("leaving at once")
        self._asked = signal.Signals(number).name
        self._timer = threading.Timer(
            self._deadline, _leave, ["the deadline is past: leaving at once; the last commit stands"]
        )
        self._timer.daemon = True
        self._timer.start()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are heard inside the body, and so is the end of a process that it began; the deadline ends with it."""
        ended = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = {number: signal.signal(number, self.ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in (before | {signal.SIGCHLD: ended}).items():
                signal.signal(number, handler)
            if self._timer:
                self._timer.cancel()


def _leave(event: str) -> None:
    """End the process where it stands, with a line on standard error if somebody reads it."""
    with suppress(OSError):  # it is closed
        if select.select([], [2], [], 0)[1]:
            os.write(2, json.dumps({"event": event, "level": "error"}).encode() + b"\n")
    os._exit(AT_ONCE)


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


def run(
    config: Config,
    source: Callable[[], Live],
    outbox: Outbox | None = None,
    said: Callable[[int], None] = lambda port: None,
) -> None:
    """Run until a signal.

    Args:
        source: opens the log; called once the store is open, which holds the lock of the only writer.
        outbox: where dead letters are forwarded. said: hears the port of the health endpoints.

    Raises:
        ConfigError, SourceError, StoreError, CheckpointError: with the remedy.
    """
    settings, stored = config.settings, config.store
    check(settings)
    torch.set_num_threads(1)
    log = structlog.get_logger()
    stop, health = Stop(log), Health()
    server = _serve(health, config)
    try:
        said(server.port)
        with opened(stored.secret_url, settings, stored.checkpoints) as (store, checkpoints), ExitStack() as leaving:
            log.info("starting", topics=config.kafka.topics, servers=config.kafka.servers, http_port=server.port)
            live = source()  # till then there is nothing to finish, and a signal ends the process as it ends any other
            leaving.enter_context(stop.listening())
            pace = dict(every=stored.records, every_s=stored.every / 1000)
            loop = Loop(live, settings, store, checkpoints, outbox=outbox, aside=True, **pace)  # type: ignore[arg-type]  # each its own
            leaving.callback(loop.graph.leave)
            if not loop.numbers.commit:
                loop.commit()  # where the log is read from is known from here on, whatever happens
            log.info("going on", commit=loop.numbers.commit, read=loop.counts["read"])
            health.publish(status_of(loop, live))  # ready, however long the first turn takes
            loop.run(_Telling(loop, live, health, log), stop)
            health.leave()
            log.info("left", commit=loop.numbers.commit, read=loop.counts["read"])
    finally:
        server.close()


def _serve(health: Health, config: Config) -> Server:
    try:
        return Server(health, config.http.host, config.http.port)
    except OSError as error:
        place = f"{config.http.host}:{config.http.port}"
        remedy = "name another http.port, or 0" if error.errno in PORT else "correct http.host"
        raise ConfigError(f"http: cannot listen on {place} ({error.strerror}); {remedy}") from None


class _Telling:
    """Publishes the loop's status once a second, and a line in the log once a minute and when the broker comes or goes."""

    def __init__(self, loop: Loop, source: Live, health: Health, log: Any) -> None:
        self._loop, self._source, self._health, self._log = loop, source, health, log
        self._published = self._logged = -SAID
        self._reachable = True

    def __call__(self, read: int) -> None:
        now = time.monotonic()
        self._health.turn()
        if now - self._published < BETWEEN:
            return
        self._published = now
        self._health.publish(status := status_of(self._loop, self._source))
        if self._source.reachable != self._reachable:
            self._reachable = self._source.reachable
            self._log.warning("the broker answers again" if self._reachable else "the broker does not answer: waiting")
        if now - self._logged >= SAID:
            self._logged = now
            told = {"read": status.counts.get("read", 0), "lag": sum(status.lag.values()), "commit": status.commit}
            self._log.info("progress", **told, passed=status.passed, event_time_lag_s=self._health.event_time_lag())


def status_of(loop: Loop, source: Live) -> Status:
    """How a loop and its source stand."""
    numbers, learners = loop.numbers, {}
    for learner, judged in zip(loop.learners, loop.validation.judged, strict=True):
        settled, weights = judged.metrics.summary(), learner.trainer.report.weights()
        learners[learner.name] = {
            "steps": learner.trainer.version,
            "looks": learner.trainer.report.looks,
            "settled_rows": settled["rows"],
            **{f"settled_{name}": settled[name] for name in ("log_loss", "auc", "pcoc")},
            **{f"weight_{name}": weights[name] for name in ("mean", "ess_share")},
        }
    return Status(
        ready=source.reachable,
        counts=numbers.counts,
        passed=numbers.passed if numbers.passed > 0 else None,
        waiting=numbers.waiting,
        lag={f"{place.topic}/{place.partition}": behind for place, behind in source.lag.items()},
        gone=sum(source.gone.values()),
        commit=numbers.commit,
        committed=round(numbers.committed_at * 1000) or None,
        learners=learners,
        graph=_graph_of(loop) if loop.graph.every is not None else None,
    )


def _graph_of(loop: Loop) -> dict[str, float | None]:
    """How the product graph stands."""
    served = loop.graph.served
    return {
        "version": served.bundle.version if served else None,
        "age_seconds": max(0, loop.passed - served.bundle.until) / 1000 if served else None,
        "refused": loop.graph.refusals,
    }
