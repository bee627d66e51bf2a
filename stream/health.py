"""What the daemon tells over HTTP: is it alive, is it ready, how far is it, in numbers for Prometheus.

    /healthz   200 while the loop turns, 503 when it has not for a minute
    /readyz    200 once the broker was reached and the last commit was loaded, 503 before and when it leaves
    /metrics   Prometheus' text format
    /status    all of it as JSON

The loop publishes a `Status` now and then; a thread of its own answers from the last one, and touches nothing else.
"""

import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.progress import KINDS

ALIVE = 60.0  # seconds without a turn of the loop after which it counts as stuck
TIMEOUT = 5.0  # seconds a client may take for each part of what it asks
CLIENTS = 64  # at once

Learners = Mapping[str, Mapping[str, float | None]]  # name -> figures


class Status(NamedTuple):
    """How the daemon stands. Times in ms since 1970; ``None`` where nothing is known yet.

    ``counts``: records by what became of them. ``passed``: event time that has passed. ``waiting``: records
    read and not passed. ``lag``: partition -> records between our position and its end. ``gone``: records that retention
    had deleted before we came. ``commit``: number of the last one, and when it was made. ``learners``: name -> figures.
    ``graph``: of the product graph, if there is one.
    """

    ready: bool
    counts: Mapping[str, int]
    passed: int | None
    waiting: int
    lag: Mapping[str, int]
    gone: int
    commit: int
    committed: int | None
    learners: Learners
    graph: Mapping[str, float | None] | None = None


NOTHING = Status(False, {}, None, 0, {}, 0, 0, None, {})  # before the loop has turned


class Health(Collector):
    """The last status, for whoever asks."""

    def __init__(self) -> None:
        self.status, self._turned, self._leaving = NOTHING, time.monotonic(), False
        self._before: Status | None = None  # how it stood when this process began: its counters begin at 0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def turn(self) -> None:
        """The loop has turned."""
        self._turned = time.monotonic()

    def publish(self, status: Status) -> None:
        """The loop has turned, and stands so."""
        self.turn()
        self.status, self._before = status, self._before or status

    def leave(self) -> None:
        """The daemon finishes: it is not ready any more."""
        self._leaving = True

    @property
    def alive(self) -> bool:
        """Whether the loop has turned within the last minute."""
        return time.monotonic() - self._turned < ALIVE

    @property
    def ready(self) -> bool:
        """Whether the daemon does its work."""
        return self.status.ready and self.alive and not self._leaving

    def told(self) -> dict[str, Any]:
        """What /status says."""
        return self.status._asdict() | {
            "ready": self.ready,
            "alive": self.alive,
            "event_time_lag_s": self.event_time_lag(),
        }

    def event_time_lag(self) -> float | None:
        """Seconds from the event time that has passed to now; negative where it is ahead of this machine's clock."""
        passed = self.status.passed
        return None if passed is None else time.time() - passed / 1000

    def collect(self) -> list[Metric]:
        """The status as Prometheus' metrics."""
        s, before = self.status, self._before or NOTHING
        about = "Records by what became of them since this process began; /status has those of the store."
        records = CounterMetricFamily("belated_records", about, labels=["kind"])
        for kind in sorted({*KINDS, *s.counts}):
            records.add_metric([kind], s.counts.get(kind, 0) - before.counts.get(kind, 0))
        lag = GaugeMetricFamily("belated_consumer_lag_records", "Records not read yet.", labels=["partition"])
        for partition, behind in sorted(s.lag.items()):
            lag.add_metric([partition], behind)
        lost = "Records that retention had deleted before this process read them."
        gone = CounterMetricFamily("belated_retention_lost_records", lost, value=s.gone)
        found: list[Metric] = [records, lag, gone]
        for name, about, value in (
            ("ready", "1 if the daemon does its work.", float(self.ready)),
            ("waiting_records", "Records read that have not passed.", s.waiting),
            ("event_time_lag_seconds", "From the event time that has passed to now.", self.event_time_lag()),
            ("checkpoint_number", "Of the last commit.", s.commit),
            ("checkpoint_timestamp_seconds", "When the last commit was made.", s.committed and s.committed / 1000),
        ):
            if value is not None:
                found.append(GaugeMetricFamily(f"belated_{name}", about, value=value))
        graph = _of_graph(s.graph or {}, (before.graph or {}).get("refused") or 0)
        return found + graph + _of_learners(s.learners, before.learners)


def _of_learners(told: Learners, before: Learners) -> list[Metric]:
    """``before``: how they stood when this process began."""
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for learner, figures in sorted(told.items()):
        for figure, value in figures.items():
            counts = figure in COUNTS
            kind = CounterMetricFamily if counts else GaugeMetricFamily
            family = found.setdefault(figure, kind(f"belated_{figure}", ABOUT.get(figure, figure), labels=["learner"]))
            if value is not None:
                began = before.get(learner, {}).get(figure) if counts else None
                family.add_metric([learner], value - (began or 0))
    return list(found.values())


def _of_graph(told: Mapping[str, float | None], refused: float) -> list[Metric]:
    """``refused``: how many had been when this process began."""
    return [
        CounterMetricFamily(f"belated_graph_{name}", ABOUT_GRAPH[name], value=value - refused)
        if name == "refused"
        else GaugeMetricFamily(f"belated_graph_{name}", ABOUT_GRAPH[name], value=value)
        for name, value in told.items()
        if value is not None
    ]


ABOUT_GRAPH = {
    "version": "Of the product graph, that is served.",
    "age_seconds": "Event time since the midnight up to which that version knows.",
    "refused": "Versions that were learned since this process began and must not be served.",
}
COUNTS = ("steps", "looks")
ABOUT = {
    "steps": "Steps learned since this process began.",
    "looks": "Looks learned from since this process began.",
    "settled_rows": "Rows judged on their final labels.",
    "settled_log_loss": "Log loss of settled rows; every row was scored before it was learned.",
    "settled_auc": "AUC of settled rows.",
    "settled_pcoc": "Mean score over share converted of settled rows; 1 is calibrated.",
    "weight_mean": "Mean importance weight.",
    "weight_ess_share": "Effective sample size as a share of the looks.",
}


class Server:
    """Answers in a thread of its own; ``port`` is the one it got."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._http = _Http(host, port, _handler(health))
        self.port = int(self._http.server_address[1])
        Thread(target=self._http.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    """At most `CLIENTS` at once: for one more the oldest has to go. An answer takes milliseconds, so that is who dawdles."""

    request_queue_size = 128  # who scrapes at once must not wait for a second try

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._clients: dict[Any, None] = {}  # in the order in which they came
        self._lock = Lock()
        super().__init__((host, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients[request] = None
            oldest = next(iter(self._clients))
            if len(self._clients) > CLIENTS:
                del self._clients[oldest]
                with suppress(OSError):  # it has left by itself
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing of who has left before the answer, wherever that was noticed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT
        server_version, sys_version = "belated", ""

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/healthz":
                self._say(200 if health.alive else 503, b"alive\n" if health.alive else b"the loop has not turned\n")
            elif path == "/readyz":
                self._say(200 if health.ready else 503, b"ready\n" if health.ready else b"not ready\n")
            elif path == "/metrics":
                self._say(200, generate_latest(health.registry), CONTENT_TYPE_LATEST)
            elif path == "/status":
                self._say(200, json.dumps(health.told(), indent=2).encode() + b"\n", "application/json")
            else:
                self._say(404, b"there are /healthz, /readyz, /metrics and /status\n")

        do_HEAD = do_GET

        def _say(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: every scrape would be a line."""

    return Handler
