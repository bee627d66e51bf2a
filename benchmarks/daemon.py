"""What the daemon does with a log in Kafka: what becomes of its records, CPU time, memory, and the time to be ready again.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/daemon.py [--events 1000000] [--store sqlite|postgres|both]

Simulates a log, sends it with `belated produce` to a broker of its own (4 topics of 4 partitions), and runs `belated run`
(default method, window 7 days, first look after 1 hour) as a process, for each database:

1. committing every 2 s, it is killed with SIGKILL when it has committed and read a tenth, and started again;
2. that process reads the rest, and gets SIGTERM when nothing passes any more: events per CPU-second are the records it read
   / its user and system time, imports and commits included; memory is the peak of its resident set;
3. it is started, and killed with SIGKILL as soon as it is ready, three times, here as after 1.

Ready: seconds from the start of the process until /readyz says 200, the least of three starts, and what is left without
the time of the imports, of which the least of three is measured beside it. Prints whether every record is accounted for;
ends with status 1 if any is not, or if being ready took 5 s after the imports. A server's own CPU time is not in the
figures; PostgreSQL is that of the tests, which commits without waiting for the disk.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from asking import Parser
from service import STILL, TOPICS, Daemon, Used, accounted, belated, broker, configure, imports

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from postgres_server import schema, serving

PER_IMPRESSION = 1.62  # records, of a simulated log
SOON = 5.0  # seconds


class Told(NamedTuple):
    """Of one database: the records of the log, what became of them, those the second process read, its figures, seconds
    until it had, seconds until ready after a tenth and at the end."""

    total: int
    status: dict[str, Any]
    read: int
    used: Used
    wall: float
    tenth: tuple[float, float]
    whole: tuple[float, float]


@contextmanager
def stored(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/store.db"
    else:
        with serving() as server, schema(server) as url:
            belated("store", "upgrade", "--create", "--store", url)
            yield url


def follow(file: Path, said: Path, url: str, total: int) -> Told:
    """Run, kill, run on, stop, run, kill, run."""
    environment = {"BELATED_STORE__URL": url} if url.startswith("sqlite") else secret(url)
    first = Daemon(file, said, BELATED_STORE__EVERY="2s", **environment)
    first.wait(lambda s: s["commit"] > 0 and s["counts"]["read"] >= total / 10, 0.05)
    first.end(signal.SIGKILL)
    tenth = again(file, said, environment)
    second = Daemon(file, said, **environment)
    second.ready()
    begun = time.perf_counter()
    before = int((second.status() or {})["counts"]["read"])
    status = second.drained(total)
    wall = time.perf_counter() - begun - STILL
    used = second.end()
    return Told(total, status, total - before, used, wall, tenth, again(file, said, environment))


def again(file: Path, said: Path, environment: dict[str, str]) -> tuple[float, float]:
    """(seconds, CPU seconds) until it is ready, the least of three starts, each of which ends with SIGKILL."""
    found = []
    for _ in range(3):
        daemon = Daemon(file, said, **environment)
        found.append((daemon.ready(), daemon.end(signal.SIGKILL).cpu))
    return min(found)


def secret(url: str) -> dict[str, str]:
    """A URL with a password, as the environment tells it."""
    from sqlalchemy.engine import make_url

    made = make_url(url)
    bare = made._replace(password=None).render_as_string(hide_password=False)
    return {"BELATED_STORE__URL": bare, "BELATED_STORE__PASSWORD": str(made.password)}


def say(kind: str, told: Told, importing: tuple[float, float]) -> bool:
    """Print it; whether all is well."""
    counts, parts = told.status["counts"], accounted(told.status)
    print(f"{kind}: {told.total:,} records produced, {counts['read']:,} read, {parts:,} accounted for")
    print("  " + ", ".join(f"{n:,} {name}" for name, n in counts.items()) + f", {told.status['waiting']:,} waiting")
    print(
        f"  {told.read / told.used.cpu:,.0f} events per CPU-second ({told.read:,} in {told.used.cpu:.1f} CPU s, "
        f"{told.wall:.0f} s), peak {told.used.peak:,.0f} MB, status {told.used.code}"
    )
    for name, (wall, cpu) in (("a tenth", told.tenth), ("the whole log", told.whole)):
        after = f"{wall - importing[0]:.2f} s and {cpu - importing[1]:.2f} CPU s after the imports"
        print(f"  ready again after SIGKILL at {name}: {wall:.2f} s, {after}", flush=True)
    late = max(told.tenth, told.whole)[0] - importing[0] > SOON
    return counts["read"] == told.total == parts and told.used.code == 0 and not late


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="records of the log, more or less")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    asked = parser.parse_args()
    well = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(broker(folder / "kafka"))
        log, topics = folder / "log", {name: f"{name}-{os.getpid()}" for name in TOPICS}
        shown = round(asked.events / PER_IMPRESSION)
        belated("simulate", log, "--scenario", "both", "--impressions", shown, "--partitions", 4)
        total = sum(file.read_bytes().count(b"\n") for file in (log / "events").iterdir())
        kafka = {"servers": [server], "idle_after": "2s", **topics}
        for kind in ("sqlite", "postgres") if asked.store == "both" else (asked.store,):
            place = folder / kind
            place.mkdir()
            store: dict[str, Any] = {"checkpoints": str(place / "checkpoints")}
            file = configure(place / "belated.toml", kafka=kafka, store=store, learner={"window": "7d", "wait": "1h"})
            if kind in ("sqlite", asked.store):
                belated("produce", log, "-c", file, "--create", "--partitions", 4)
            importing = imports()
            print(f"imports: {importing[0]:.2f} s, {importing[1]:.2f} CPU s", flush=True)
            with stored(kind, place) as url:
                well &= say(kind, follow(file, place / "said", url, total), importing)
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
