"""Disturbs a daemon on Kafka in every way it promises to survive, and compares its end to an undisturbed replay.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/chaos.py [--runs 100] [--jobs 3] [--postgres] [--seed 0]

Each run sends a simulated log into topics of its own, bit by bit, while `belated run` is killed with SIGKILL at every
step of `stream.checkpoint` and ``--kills`` times at a random moment, stopped with SIGTERM, and the broker is killed and
started again ``--restarts`` times under it. With --postgres a database server crashes and comes back as often at a random
moment, and as often around an SQL commit; the daemon may end with status 2 then, and is started again; so it is if it met
no broker when it began. At last it is left to finish. Then what the broker holds is replayed with the journal of the run:
facts (a digest of all rows), weights (sha256 of the checkpoint), watermark and the number of forwarded dead letters must
be the same.

Runs go side by side, each with servers of its own. Prints runs, kills, divergences and restarts; status 1 if a run diverged
or failed: its seed, what differs, and the folder in which it lies.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from asking import Parser
from ending import Unended, finished, replayed
from feed import Feed, topics
from rich.progress import track
from servers import Broker, Database, binaries, schema
from sqlalchemy import make_url
from supervisor import STEPS_LIVE, Daemon, Failed

from stream.config import Kafka
from stream.environment import variable
from stream.settings import Settings

WINDOW, WAIT = "1d", "1h"
SETTINGS = Settings(window=WINDOW, wait=WAIT)  # type: ignore[arg-type]  # durations as people write them
RESTARTS = ("broker", "database", "database at a commit")
MOMENT = 3.0  # seconds within which something happens, from the start of a daemon or of a server on
REACHED = 60.0  # seconds within which a daemon comes to a step of its commit


class Diverged(Exception):
    """The end of a run is not that of its replay."""


class Servers(NamedTuple):
    """What a run has for itself."""

    broker: Broker
    database: Database | None


def environment(config: Kafka, url: str, checkpoints: Path) -> dict[str, str]:
    """What a daemon is told."""
    address = make_url(url)
    plain = address._replace(password=None).render_as_string(hide_password=False)
    told = {
        **{f"kafka.{name}": value for name, value in config.model_dump(mode="json", exclude_defaults=True).items()},
        **{
            "kafka.servers": f'["{config.servers[0]}"]',
            "kafka.idle_after": f"{config.idle_after}ms",
            "kafka.timeout": "30s",
        },
        **{"store.url": plain, "store.checkpoints": checkpoints, "store.every": "500ms", "store.records": 300},
        **{"learner.window": WINDOW, "learner.wait": WAIT, "http.port": 0},
    }
    secret = {"store.password": address.password} if address.password else {}
    return {variable(key): str(value) for key, value in (told | secret).items()}


def one(context: Any, servers: Servers, folder: Path, asked: Any, seed: int) -> Counter[str]:
    """One run, and what happened in it.

    Raises:
        Diverged: its end is not that of the replay. Exception: it could not be brought to its end.
    """
    folder.mkdir()
    chance = random.Random(seed)  # noqa: S311  # moments, not secrets
    plan = [*STEPS_LIVE, "stop", *["kill"] * asked.kills, *["broker"] * asked.restarts]
    plan += ["database", "database at a commit"] * (asked.restarts if servers.database else 0)
    chance.shuffle(plan)
    config, url = topics(servers.broker.server, str(seed)), f"sqlite:///{folder}/store.db"
    feed = Feed(config, folder / "simulated", asked.impressions, seed, len(plan))
    with ExitStack() as stack:
        if servers.database:
            url = stack.enter_context(schema(servers.database.url, f"chaos_{seed}"))
        checkpoints = folder / "checkpoints"
        told = environment(config, url, checkpoints)
        daemon = Daemon(context, told, folder / "said", feed)
        for what in plan:
            feed.next_stage()
            try:
                disturb(daemon, servers, what, chance)
            finally:
                daemon.leave()
        found = finished(config, url, checkpoints, feed, SETTINGS)
        expected = replayed(config, url, folder, feed.total, SETTINGS)
        differs = [name for name in found._fields if getattr(found, name) != getattr(expected, name)]
        if differs:
            raise Diverged(f"another end: {', '.join(differs)}; found {found}, expected {expected}")
    return daemon.happened + Counter(runs=1)


def disturb(daemon: Daemon, servers: Servers, what: str, chance: random.Random) -> None:
    """Start the daemon, do this to it, and end it."""
    if what in STEPS_LIVE:
        at_step(daemon, what, 1 if what == "after dead letters were sent" else chance.randint(1, 3))
    elif what in RESTARTS:
        restart(daemon, servers, what, chance)
    else:
        daemon.start()
        daemon.hold(chance.uniform(0, MOMENT))
        daemon.end(signal.SIGTERM if what == "stop" else signal.SIGKILL)


def at_step(daemon: Daemon, step: str, count: int) -> None:
    """It dies at a step of its commit, if need be of one after a further start."""
    daemon.start(step, count)
    if not daemon.hold(REACHED):
        daemon.end(signal.SIGKILL)
        raise Failed(f"the daemon did not come to the step {step!r} within {REACHED:g} s")
    daemon.happened[f"step {step}"] += 1


def restart(daemon: Daemon, servers: Servers, what: str, chance: random.Random) -> None:
    """A server crashes and comes back under it."""
    server = servers.broker if what == "broker" else servers.database
    assert server is not None
    if what == "database at a commit":
        assert isinstance(server, Database)
        daemon.start(None, chance.randint(1, 3), server.pid)
        gone = daemon.hold(REACHED, lambda: not server.answers())
    else:
        daemon.start()
        gone = not daemon.hold(chance.uniform(0, MOMENT))
    server.kill()
    time.sleep(chance.uniform(0, 0.5))
    server.start()
    daemon.hold(chance.uniform(0, MOMENT))
    daemon.end(chance.choice((signal.SIGKILL, signal.SIGTERM)))
    if not gone:
        raise Failed(f"{what}: the daemon did not come to a commit within {REACHED:g} s, or died")
    daemon.happened["broker" if what == "broker" else "database"] += 1


def serving(stack: ExitStack, folder: Path, postgres: bool) -> Servers:
    """Servers for the runs of one job, which end with the stack."""
    script, found = os.environ.get("BELATED_KAFKA_SCRIPT"), binaries() if postgres else None
    if not script:
        raise SystemExit("needs a broker of its own: set BELATED_KAFKA_SCRIPT to a script that starts one")
    if postgres and not found:
        raise SystemExit("--postgres needs a server: initdb and pg_ctl on PATH or in /usr/lib/postgresql/*/bin")
    broker, database = Broker(script, folder / "kafka"), Database(found, folder / "postgres") if found else None
    for server in (broker, database):
        if server:
            server.start()
            stack.callback(server.kill)
    return Servers(broker, database)


def arguments() -> Any:
    parser = Parser(__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=3, help="runs side by side; they wait more than they compute")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after so many no further run begins")
    parser.add_argument("--kills", type=int, default=3, help="at random moments, in each run")
    parser.add_argument("--restarts", type=int, default=1, help="of each server, in each run")
    parser.add_argument("--impressions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next has the next")
    parser.add_argument(
        "--postgres", action="store_true", help="stores on a PostgreSQL server; by default SQLite files"
    )
    return parser.parse_args()


def preloaded() -> Any:
    """How processes are started: from one that has imported what they need."""
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["supervisor", "ending", "stream.commands.daemon", "stream.daemon", "stream.health"])
    return context


def main() -> None:
    asked, context = arguments(), preloaded()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="belated-chaos-"))
    folder.chmod(0o755)  # the database runs as another user
    happened, until = Counter[str](), time.monotonic() + asked.minutes * 60
    with ExitStack() as stack:
        free: SimpleQueue[Servers] = SimpleQueue()
        for n in range(min(asked.jobs, asked.runs)):
            free.put(serving(stack, folder / f"servers{n}", asked.postgres))
        pool = stack.enter_context(ThreadPoolExecutor(asked.jobs))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

        def run(seed: int) -> Counter[str]:
            servers = free.get()
            try:
                over = time.monotonic() > until
                return Counter() if over else one(context, servers, folder / f"seed{seed}", asked, seed)
            finally:
                free.put(servers)

        runs = {pool.submit(run, seed): seed for seed in range(asked.seed, asked.seed + asked.runs)}
        for done in track(as_completed(runs), total=len(runs), description="runs", disable=not sys.stderr.isatty()):
            happened += outcome(done, folder / f"seed{runs[done]}")
    conclude(happened, folder)


def outcome(done: Future[Counter[str]], folder: Path) -> Counter[str]:
    """What happened in a run that is over; its folder stays if it went wrong."""
    error = done.exception()
    if error is None:
        shutil.rmtree(folder, ignore_errors=True)
        return done.result()
    if isinstance(error, Diverged | Failed | Unended):
        print(f"{folder.name}: {error}; see {folder}", file=sys.stderr)
    else:
        traceback.print_exception(error)
        print(f"{folder.name}: failed; see {folder}", file=sys.stderr)
    return Counter({"runs": 1, "divergences" if isinstance(error, Diverged) else "failures": 1})


def conclude(happened: Counter[str], folder: Path) -> None:
    steps = [happened[f"step {step}"] for step in STEPS_LIVE]
    print(f"at the {len(steps)} steps of a commit: {', '.join(map(str, steps))} kills", end="; ")
    print(f"ends with status 2 and starts after them: {happened['ends with status 2']}")
    print(f"restarts: {happened['broker']} of the broker, {happened['database']} of the database")
    failures = f" ({happened['failures']} runs failed)" if happened["failures"] else ""
    print(f"{happened['runs']} runs, {happened['kills']} kills, {happened['divergences']} divergences{failures}")
    if happened["divergences"] or happened["failures"]:
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
