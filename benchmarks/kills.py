"""Kills a replay with SIGKILL, at random moments and at each step of a commit, lets it go on, and compares the end.

    python benchmarks/kills.py [--records 1000000] [--runs 5] [--kills 10] [--seed 0]

Each run replays one log into a store of its own. It is killed ``--kills`` times at a random moment and once at every step
of `stream.checkpoint`, started again each time, and at last left to finish. Then the tables (a digest of their ordered
rows) and the checkpoint (the sha256 of its file: weights, optimizer, auxiliary models, unfinished batches) must equal
those of a replay nobody disturbed. Prints runs, kills, divergences; ends with status 1 if there is any divergence.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asking import Parser
from replay import write
from rich.progress import track

from labelstore import ledger
from labelstore.stats import digest
from labelstore.store import LabelStore, existing
from learner.names import DEFAULT
from stream import checkpoint
from stream.backtest import backtest
from stream.files import FileSource
from stream.settings import Settings

METHODS = ("esdfm", DEFAULT)
STEPS: dict[str, tuple[Any, str, bool]] = {  # name -> (where, function, killed before it is called, or after)
    "before the file": (checkpoint, "write", False),
    "before its rename": (Path, "rename", False),
    "after its rename": (checkpoint, "write", True),
    "before the row": (ledger, "record", False),
    "before the SQL commit": (LabelStore, "commit", False),
    "after the SQL commit": (LabelStore, "commit", True),
    "after the source's commit": (FileSource, "commit", True),
}


def replay(log: Path, store: Path, every: int, step: str | None, count: int) -> None:
    """In a process of its own: replay, and die at the given step of the commit with this count."""
    if step:
        where, name, after = STEPS[step]
        setattr(where, name, _deadly(getattr(where, name), after, count))
    settings = Settings(methods=METHODS, window="3h", wait="10m")  # type: ignore[arg-type]  # durations as people write them
    backtest("log", FileSource(log), settings, f"sqlite:///{store}", poll=max(1, every // 4), every=every)


def _deadly(function: Callable[..., Any], after: bool, count: int) -> Callable[..., Any]:
    calls = 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*given, **named)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def start(context: Any, *given: Any) -> Any:
    process = context.Process(target=replay, args=given)
    process.start()
    return process


def finish(process: Any) -> bool:
    """True if it was killed, False if it came to its end."""
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the replay ended with status {process.exitcode}")
    return bool(process.exitcode)


def state(store: Path) -> tuple[str, str]:
    """(digest of the tables, sha256 of the checkpoint's file)."""
    with existing(f"sqlite:///{store}") as connection:
        newest = ledger.newest(connection)
        assert newest is not None
        return digest(connection), newest.sha256


def disturb(context: Any, log: Path, store: Path, every: int, kills: int, length: float, seed: int) -> int:
    """One run. Returns how often it was killed."""
    chance = random.Random(seed)  # noqa: S311  # moments, not secrets
    steps = [*STEPS, *[None] * kills]
    chance.shuffle(steps)
    killed = 0
    for step in steps:
        process = start(context, log, store, every, step, chance.randint(1, 2))
        if step is None:
            time.sleep(chance.uniform(0, 2 * length / len(steps)))
            process.kill()
        killed += finish(process)
    finish(start(context, log, store, every, None, 0))
    return killed


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10, help="at random moments, in each run")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stream.backtest", "stream.files"])
    every = max(200, asked.records // 40)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        write(log, asked.records, asked.seed)
        finish(start(context, log, Path(folder) / "warm.db", every, next(iter(STEPS)), 1))
        begun = time.perf_counter()
        finish(start(context, log, Path(folder) / "whole.db", every, None, 0))
        length = time.perf_counter() - begun
        expected = state(Path(folder) / "whole.db")
        kills = divergences = 0
        for run in track(range(asked.runs), description="runs", disable=not sys.stderr.isatty()):
            store = Path(folder) / f"{run}.db"
            kills += disturb(context, log, store, every, asked.kills, length, asked.seed + run)
            divergences += state(store) != expected
    print(f"{asked.records:,} records, {asked.runs} runs, {kills} kills, {divergences} divergences")
    raise SystemExit(1 if divergences else 0)


if __name__ == "__main__":
    main()
