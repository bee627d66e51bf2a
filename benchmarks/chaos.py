"""Disturbs a daemon on Kafka in every way it promises to survive, and compares its end to an undisturbed replay.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/chaos.py [--runs 100] [--kills 3] [--restarts 1] [--store URL]

Each run produces a simulated log into topics of its own, part by part, while `belated run` is killed with SIGKILL once at
every step of `stream.checkpoint` and ``--kills`` times at a random moment, stopped with SIGTERM, and the broker is killed
and started again ``--restarts`` times under it. At last it is left to finish. Then what the broker holds is replayed with
the journal of the run: tables (a digest of their ordered rows), weights and watermark must be the same. With --store
postgresql+psycopg://... each run has a schema of its own there. Prints runs, kills, divergences; status 1 if there is any.
"""

import argparse
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from kills import STEPS, _deadly
from rich.progress import track

from labelstore import ledger
from labelstore.stats import digest
from stream import checkpoint, fetch
from stream.config import Config, Http, Kafka, Store
from stream.daemon import run as daemon
from stream.files import FileSource
from stream.kafka_source import KafkaSource
from stream.loop import Loop
from stream.settings import Settings
from stream.simulate.scenario import Scenario
from stream.simulate.write import write
from stream.sources import Partition
from stream.workspace import opened

SETTINGS = Settings(window="1d", wait="1h")  # type: ignore[arg-type]  # durations as people write them
TOPICS = {"impression": "impressions", "signal": "signals"}  # all else goes to conversions
PARTITIONS, PARTS, LAST = 2, 16, 4
LIVE_STEPS = {name: step for name, step in STEPS.items() if name != "after the source's commit"} | {
    "after the source's commit": (KafkaSource, "commit", True)
}
assert checkpoint  # STEPS patches it


class End(NamedTuple):
    """What must be the same: rows, weights, event time."""

    facts: str
    weights: list[str]
    watermark: int


def live(kafka: str, store: str, folder: str, step: str | None, count: int) -> None:
    """In a process of its own: the daemon, which dies at the given step of the commit with this count."""
    if step:
        where, name, after = LIVE_STEPS[step]
        setattr(where, name, _deadly(getattr(where, name), after, count))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    told = Store(url=store, checkpoints=Path(folder), every="1s", records=300)  # type: ignore[arg-type]  # as people write it
    config = Config(kafka=Kafka.model_validate_json(kafka), store=told, learner=SETTINGS, http=Http(port=0))
    daemon(config, lambda: KafkaSource(config.kafka))


def finish(source: Any, store: str | None, folder: Path | None, more: Callable[[], bool], total: int) -> End:
    """In this process: until all has been read and has passed."""
    done = False
    with opened(store, SETTINGS, folder) as (facts, checkpoints):
        loop = Loop(source, SETTINGS, facts, checkpoints, every_s=1)

        def told(read: int) -> None:
            nonlocal done
            done = not more() and read == total and loop.passed == loop.reading.clocks.value > 0

        loop.run(told, lambda: done)
        weights = [learner.trainer.digest() for learner in loop.learners]
        return End(digest(facts.connection), weights, loop.reading.clocks.value)


class Unfinished(FileSource):
    """A log on disk that is not taken for finished: the broker's was not, either."""

    def exhausted(self) -> frozenset[Partition]:
        return frozenset()


class Broker:
    """A broker of our own, that can be killed and started again."""

    def __init__(self, script: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._script, self._where = script, ["--port", str(port), "--dir", str(folder)]
        self.server = f"127.0.0.1:{port}"

    def call(self, verb: str) -> None:
        """start or kill."""
        heap = ["--heap", "256m"] if verb == "start" else []
        subprocess.run([self._script, verb, *self._where, *heap], check=True, capture_output=True)


class Feed:
    """A simulated log, sent part by part: users by partition, each kind of event in its topic."""

    def __init__(self, config: Kafka, folder: Path, impressions: int, seed: int) -> None:
        write(
            Scenario(impressions=impressions, partitions=PARTITIONS, days=5, seed=seed, broken=0.002, late=0.03), folder
        )
        found: list[tuple[float, str, int, bytes]] = []
        for file in sorted((folder / "events").glob("*.jsonl")):
            lines = file.read_bytes().splitlines()
            for n, line in enumerate(lines):
                kind = line.split(b'"', 4)[3].decode(errors="replace") if line.count(b'"') > 3 else "impression"
                found.append((n / len(lines), getattr(config, TOPICS.get(kind, "conversions")), int(file.stem), line))
        self._records, self._server, self._sent = sorted(found), config.servers[0], 0
        self.total, self._at = len(found), 0.0

    def more(self, keep: int = 0, apart: float = 0.0) -> bool:
        """Send the next part; False if there is none. ``keep``: parts for later. ``apart``: seconds between two parts."""
        size = -(-self.total // PARTS)
        left = self._sent < self.total
        part = self._records[self._sent : self._sent + size] if self._sent < self.total - keep * size else []
        if part and time.monotonic() - self._at >= apart:
            producer = KafkaProducer(bootstrap_servers=self._server, linger_ms=5)
            for _, topic, partition, line in part:
                producer.send(topic, line, partition=partition)
            producer.flush()
            producer.close()
            self._sent, self._at = self._sent + len(part), time.monotonic()
        return left


def topics(server: str, run: int) -> Kafka:
    names = {kind: f"{kind}-{os.getpid()}-{run}" for kind in ("impressions", "signals", "conversions", "items")}
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names.values()])
    admin.close()
    return Kafka(servers=(server,), idle_after="1s", timeout="30s", **names)  # type: ignore[arg-type]  # as people write it


def disturb(context: Any, broker: Broker, given: tuple[str, str, str], feed: Feed, asked: Any, seed: int) -> int:
    """Start and end the daemon again and again. Returns how often it was killed."""
    chance = random.Random(seed)  # noqa: S311  # moments, not secrets
    plan = [*LIVE_STEPS, *["kill"] * asked.kills, "term", *["broker"] * asked.restarts]
    chance.shuffle(plan)
    killed = 0
    for what in plan:
        step = what if what in LIVE_STEPS else None
        process = context.Process(target=live, args=(*given, step, chance.randint(1, 2)))
        process.start()
        feed.more(keep=LAST)
        if what == "broker":
            time.sleep(chance.uniform(1, 3))
            broker.call("kill")
            broker.call("start")
        if step is None:
            time.sleep(chance.uniform(1, 5))
            process.terminate() if what == "term" else process.kill()  # gone already, where it met no broker: it said so
        else:
            feed.more(keep=LAST)  # so that there is something to commit
            process.join(8)
            process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    return killed


@contextmanager
def stored(url: str | None, folder: Path, run: int) -> Iterator[str]:
    """A store of its own for a run: a file, or a schema of the database."""
    if url is None:
        yield f"sqlite:///{folder}/{run}.db"
        return
    from sqlalchemy import create_engine
    from sqlalchemy.schema import CreateSchema, DropSchema

    engine, name = create_engine(url), f"chaos_{os.getpid()}_{run}"
    with engine.begin() as connection:
        connection.execute(CreateSchema(name))
    try:
        yield f"{url}?options=-csearch_path%3D{name}"
    finally:
        with engine.begin() as connection:
            connection.execute(DropSchema(name, cascade=True))
        engine.dispose()


def one(context: Any, broker: Broker, folder: Path, asked: Any, run: int) -> tuple[int, bool]:
    """One run: (kills, whether its end differs)."""
    config = topics(broker.server, run)
    feed = Feed(config, folder / f"simulated{run}", asked.impressions, asked.seed + run)
    checkpoints = folder / f"{run}.checkpoints"
    with stored(asked.store, folder, run) as url:
        killed = disturb(
            context, broker, (config.model_dump_json(), url, str(checkpoints)), feed, asked, asked.seed + run
        )
        source = KafkaSource(config)
        found = finish(source, url, checkpoints, lambda: feed.more(apart=1.5), feed.total)
        source.close()
        with opened(url, SETTINGS, checkpoints) as (facts, _):
            advances = ledger.load_journal(facts.connection)
    fetch.fetch(config, folder / f"log{run}", "earliest", "end", advances)
    expected = finish(Unfinished(folder / f"log{run}"), None, None, lambda: False, feed.total)
    return killed, found != expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=3, help="at random moments, in each run")
    parser.add_argument("--restarts", type=int, default=1, help="of the broker, in each run")
    parser.add_argument("--impressions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", help="URL of a PostgreSQL database; by default SQLite files")
    asked = parser.parse_args()
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        raise SystemExit("needs a broker of its own: set BELATED_KAFKA_SCRIPT to a script that starts one")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stream.daemon", "stream.kafka_source"])
    kills = divergences = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = Broker(script, folder / "kafka")
        broker.call("start")
        stack.callback(broker.call, "kill")
        for run in track(range(asked.runs), description="runs", disable=not sys.stderr.isatty()):
            killed, differs = one(context, broker, folder, asked, run)
            kills, divergences = kills + killed, divergences + differs
            if differs:
                print(f"seed {asked.seed + run}: another end", file=sys.stderr)
    print(f"{asked.runs} runs, {kills} kills, {divergences} divergences")
    raise SystemExit(1 if divergences else 0)


if __name__ == "__main__":
    main()
