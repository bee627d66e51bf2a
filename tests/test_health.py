"""The health endpoints, asked over a real socket."""

import json
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra `daemon`: pip install 'belated[daemon]'")

from prometheus_client.parser import text_string_to_metric_families

from learner.graph import training
from learner.graph.methods import GRAPH_METHODS, GraphMethod
from strategies import DAY
from stream.config import Config, ConfigError, Http
from stream.daemon import run, status_of
from stream.health import ABOUT, ABOUT_GRAPH, ALIVE, CLIENTS, COUNTS, NOTHING, Health, Server, Status
from stream.loop import Loop
from stream.progress import KINDS
from stream.sources import ListSource, Partition
from stream.workspace import opened
from test_refresh import SETTINGS, parts, shop, small

STATUS = Status(
    True,
    {"read": 12, "impressions": 10, "dead_letters": 2},
    1_700_000_000_000,
    3,
    {"signals/0": 4, "signals/1": 0},
    5,
    7,
    1_700_000_100_000,
    {"pq_signals": dict.fromkeys(ABOUT, 0.5) | {"settled_auc": None}},
    {"version": 3, "age_seconds": 60.5, "refused": 2},
)


class Still(ListSource):
    """A broker that has no more."""

    reachable = True

    @property
    def lag(self) -> dict[Partition, int]:
        return {}

    @property
    def gone(self) -> Mapping[Partition, int]:
        return {}


@pytest.fixture
def health() -> Iterator[tuple[Health, int]]:
    found = Health()
    server = Server(found, "127.0.0.1", 0)
    yield found, server.port
    server.close()


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:  # our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_ready_only_while_it_works(health: tuple[Health, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the first status, not when it leaves, not when the loop has not turned for a minute."""
    told, port = health
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/readyz")[0] == 503
    told.publish(STATUS)
    assert ask(port, "/readyz") == (200, "ready\n")
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr("stream.health.time.monotonic", lambda: now + ALIVE + 1)
        assert not told.alive
        assert not told.ready
    told.leave()
    assert ask(port, "/readyz")[0] == 503
    assert ask(port, "/healthz")[0] == 200


def metrics(port: int) -> dict[tuple[str, ...], float]:
    code, text = ask(port, "/metrics")
    assert code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_begin_at_nought_and_all_at_once(health: tuple[Health, int]) -> None:
    """A counter that is born at 500 has no increase, and one that falls to the last commit has a wrong one."""
    told, port = health
    told.publish(STATUS._replace(committed=None))
    found = metrics(port)
    assert {name[1]: value for name, value in found.items() if name[0] == "belated_records_total"} == dict.fromkeys(
        KINDS, 0
    )
    assert ("belated_checkpoint_timestamp_seconds",) not in found
    told.publish(STATUS._replace(counts={"read": 15, "late": 1}))
    found = metrics(port)
    assert (found["belated_records_total", "read"], found["belated_records_total", "late"]) == (3, 1)


def test_steps_and_looks_are_counted_from_when_the_process_began(health: tuple[Health, int]) -> None:
    """As records are: one learner had learned before, the other is new."""
    told, port = health
    told.publish(STATUS._replace(learners={"pq": {"steps": 40, "looks": 9000, "settled_rows": 7}}))
    told.publish(STATUS._replace(learners={name: {"steps": 42, "looks": 9512} for name in ("hybrid", "pq")}))
    found = metrics(port)
    assert [found[f"belated_{name}_total", "pq"] for name in COUNTS] == [2, 512]
    assert [found[f"belated_{name}_total", "hybrid"] for name in COUNTS] == [42, 9512]


def test_the_docs_name_every_metric(health: tuple[Health, int]) -> None:
    """docs/kafka.md has all that are served, and no other."""
    told, port = health
    learners = {"pq": dict.fromkeys(ABOUT, 1.0)}
    told.publish(STATUS._replace(graph=dict.fromkeys(ABOUT_GRAPH, 1.0), learners=learners))
    page = (Path(__file__).parent.parent / "docs" / "kafka.md").read_text()
    assert set(re.findall(r"`(belated_\w+)`", page)) == {name[0] for name in metrics(port)}


def test_who_hangs_up_is_no_traceback(health: tuple[Health, int], capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is said, and the next one is answered."""
    _, port = health
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert ask(port, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_metrics_are_what_prometheus_reads(health: tuple[Health, int]) -> None:
    """Every figure of the status is there under its name, parsed by Prometheus' own reader."""
    told, port = health
    told.publish(STATUS._replace(counts={"dead_letters": 3}, graph={"version": 2, "age_seconds": 1.0, "refused": 7}))
    told.publish(STATUS._replace(counts={"dead_letters": 5}, graph={"version": 3, "age_seconds": 60.5, "refused": 9}))
    samples = metrics(port)
    assert samples["belated_records_total", "dead_letters"] == 2
    assert samples["belated_consumer_lag_records", "signals/0"] == 4
    assert samples["belated_ready",] == 1
    assert samples["belated_waiting_records",] == 3
    assert samples["belated_retention_lost_records_total",] == 5
    assert samples["belated_checkpoint_number",] == 7
    assert samples["belated_checkpoint_timestamp_seconds",] == 1_700_000_100
    assert samples["belated_event_time_lag_seconds",] > 0
    assert samples["belated_graph_version",] == 3
    assert samples["belated_graph_age_seconds",] == 60.5
    assert samples["belated_graph_refused_total",] == 2
    for figure in ABOUT.keys() - COUNTS:
        assert samples.get((f"belated_{figure}", "pq_signals")) == (None if figure == "settled_auc" else 0.5)
    for figure in COUNTS:
        assert samples[f"belated_{figure}_total", "pq_signals"] == 0


def test_event_time_that_is_ahead_is_no_lag_of_nought() -> None:
    """A producer whose clock is 20 hours ahead has moved event time: that looks like nothing that is well."""
    health = Health()
    health.publish(NOTHING._replace(passed=int((time.time() + 72_000) * 1000)))
    assert -72_001 < (health.event_time_lag() or 0) < -71_900


def test_status_is_json(health: tuple[Health, int]) -> None:
    """All of it, before anything is known and after."""
    told, port = health
    assert json.loads(ask(port, "/status")[1]) == {
        **NOTHING._asdict(), "alive": True, "ready": False, "event_time_lag_s": None,
    }  # fmt: skip
    told.publish(STATUS)
    found = json.loads(ask(port, "/status")[1])
    assert found["counts"] == STATUS.counts
    assert found["learners"] == STATUS.learners
    assert found["graph"] == STATUS.graph
    assert found["event_time_lag_s"] > 0


def test_a_graph_without_a_version_says_no_number(health: tuple[Health, int]) -> None:
    """Before the first version only refusals are counted; without a graph there is nothing of it."""
    told, port = health
    told.publish(STATUS._replace(graph={"version": None, "age_seconds": None, "refused": 0}))
    text = ask(port, "/metrics")[1]
    assert "belated_graph_refused_total 0.0" in text
    assert "belated_graph_version" not in text
    told.publish(STATUS._replace(graph=None))
    assert "belated_graph" not in ask(port, "/metrics")[1]


def test_what_is_not_there(health: tuple[Health, int]) -> None:
    """Other paths say what there is."""
    _, port = health
    code, text = ask(port, "/../etc/passwd")
    assert (code, text) == (404, "there are /healthz, /readyz, /metrics and /status\n")
    assert ask(port, "/metrics?x=1")[0] == 200
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("HEAD", "/readyz")
    answer = connection.getresponse()
    assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (503, b"", "10")
    connection.close()


def test_who_dawdles_makes_room(health: tuple[Health, int]) -> None:
    """Clients that open a connection and say nothing hold no more than so many threads, and keep nobody else out."""
    _, port = health
    with ExitStack() as open_ones:
        for _ in range(3 * CLIENTS):
            slow = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            slow.sendall(b"GET /healthz")
        assert ask(port, "/healthz")[0] == 200
        end = time.monotonic() + 30
        while (threads := sum("process_request" in thread.name for thread in threading.enumerate())) > CLIENTS:
            assert time.monotonic() < end, threads
            time.sleep(0.05)


def test_what_is_wrong_with_an_address_is_told(health: tuple[Health, int]) -> None:
    """A port that is taken, or a host that is not this machine's: each with its own remedy."""
    for http, remedy in (
        (Http(port=health[1]), r"127\.0\.0\.1:\d+ \(.*\); name another http\.port, or 0"),
        (Http(host="203.0.113.1", port=0), r"203\.0\.113\.1:0 \(.*\); correct http\.host"),
    ):
        with pytest.raises(ConfigError, match=f"http: cannot listen on {remedy}$"):
            run(Config(http=http), pytest.fail)


def test_an_address_of_the_sixth_version() -> None:
    """`http.host` may be ::1."""
    try:
        server = Server(Health(), "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with urllib.request.urlopen(f"http://[::1]:{server.port}/healthz", timeout=5) as answer:
        assert answer.status == 200
    server.close()


def test_how_a_running_graph_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The version that is served and how old it is; refusals are counted across a restart; without a graph nothing."""
    learned: list[int] = []

    def train(*given: Any) -> Any:
        learned.append(len(learned))
        places, tables = training.train(*given)
        return (places._replace(source=places.source * float("nan")) if len(learned) > 2 else places), tables

    monkeypatch.setitem(GRAPH_METHODS, "dual", GraphMethod(train, *small(3, 2)))
    source = Still(parts(shop(users=20), 1))
    with opened(f"sqlite:///{tmp_path}/store.db", SETTINGS) as (store, saved):
        loop = Loop(source, SETTINGS, store, saved)
        loop.run()
        found = status_of(loop, source).graph
        assert loop.graph.served is not None
        age = (loop.passed - loop.graph.served.bundle.until) / 1000
    assert age > 6 * DAY / 1000
    assert found == {"version": 1, "age_seconds": age, "refused": 2}
    with opened(f"sqlite:///{tmp_path}/store.db", SETTINGS) as (store, saved):
        assert status_of(Loop(source, SETTINGS, store, saved), source).graph == found
    plain = SETTINGS.model_copy(update={"graph_every": None})
    with opened(None, plain) as (store, saved):
        assert status_of(Loop(source, plain, store, saved), source).graph is None
