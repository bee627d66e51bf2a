"""Events per CPU-second and per second through `belated replay`, and its memory, at several lengths of the log.

    python benchmarks/replay.py [--rows 100000,1000000] [--runs 3] [--store sqlite,postgres] [--method pq_signals]

Writes logs of its own (impressions with six features, carts, purchases; one day of events per 100,000), runs the
command line in a process of its own, and prints the medians: records / (user + system time of the whole process, imports
and checkpoints included), records / wall time, and the peak of its resident memory. With two stores their runs take turns.

A server's own CPU time is not in it. PostgreSQL: the database that BELATED_POSTGRES names, in a schema of its own which is
dropped in the end; without it a server is started as for the tests, which commits without waiting for the disk.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import Process
from pathlib import Path
from typing import NamedTuple

import numpy as np
from asking import Parser

from labelstore.address import shown
from learner.names import DEFAULT, LIVE
from stream.upkeep import sizes

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from postgres_server import schema, serving

T0 = 1_700_006_400_000
DAY = 86_400_000
DENSITY = 100_000  # records of one day


def write(path: Path, records: int, seed: int = 0) -> None:
    """A log in order of time: 85 % impressions, 10 % carts, 5 % purchases."""
    generator = np.random.default_rng(seed)
    shown = int(records * 0.85)
    at = np.sort(generator.integers(0, int(records / DENSITY * DAY), shown))
    price, user, item = (
        generator.lognormal(3, 1, shown),
        generator.integers(0, 50_000, shown),
        generator.zipf(1.3, shown),
    )
    events = []
    for n in range(shown):
        features = {
            "price": round(float(price[n]), 2),
            "hour": int(at[n] // 3_600_000 % 24),
            "user": f"u{user[n]}",
            "item": f"i{item[n] % 100_000}",
            "category": f"c{item[n] % 97}",
            "device": ("phone", "tablet", "desktop")[n % 3],
        }
        impression = {"type": "impression", "impression_id": f"{n:08d}", "at": T0 + int(at[n]), "features": features}
        events.append((T0 + int(at[n]), json.dumps(impression)))
    for kind, type_, share in (("cart", "signal", 0.10), ("purchase", "conversion", 0.05)):
        chosen = generator.choice(shown, int(records * share), replace=False)
        when = at[chosen] + generator.exponential(DAY / 12, len(chosen)).astype(np.int64)
        for n, back in zip(chosen.tolist(), when.tolist(), strict=True):
            event = {
                "type": type_,
                "event_id": f"{kind}-{n}",
                "kind": kind,
                "at": T0 + back,
                "impression_id": f"{n:08d}",
            }
            events.append((T0 + back, json.dumps(event)))
    events.sort(key=lambda event: event[0])
    path.write_text("".join(line + "\n" for _, line in events))


class Figures(NamedTuple):
    """Of one run: CPU seconds of the client, seconds, peak MB of memory, MB of the store."""

    cpu: float
    wall: float
    peak: float
    store: float


def replay(log: Path, folder: Path, url: str, method: str) -> Figures:
    """One run into a new store."""
    command = [sys.executable, "-m", "stream.cli", "replay", str(log), "--window", "1d", "--wait", "1h"]
    command += ["--method", method]
    command += ["--store", url, "--checkpoints", str(folder / "checkpoints"), "--json", str(folder / "out.json")]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{shown(' '.join(command))} ended with status {process.returncode}")
    return Figures(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, sizes(url).database / 1e6)


@contextmanager
def new_store(kind: str, server: str | None, folder: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if server is None or kind == "sqlite":
        yield f"sqlite:///{folder}/store.db"
    else:
        with schema(server) as url:
            yield url


def measure(
    log: Path, place: Path, kinds: list[str], runs: int, server: str | None, method: str
) -> dict[str, list[Figures]]:
    """Runs of each kind of store, in turn."""
    found: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    for run in range(runs):
        for kind in kinds:
            folder = place / f"{kind}{run}"
            folder.mkdir()
            with new_store(kind, server, folder) as url:
                found[kind].append(replay(log, folder, url, method))
    return found


def main() -> None:
    arguments = Parser(__doc__)
    arguments.add_argument("--rows", default="100000,1000000", help="records of each log")
    arguments.add_argument("--runs", type=int, default=3, help="runs of each; the median counts")
    arguments.add_argument("--store", default="sqlite", help="sqlite, postgres, or both: sqlite,postgres")
    arguments.add_argument("--method", default=DEFAULT, choices=LIVE)
    given = arguments.parse_args()
    kinds = given.store.split(",")
    if unknown := set(kinds) - {"sqlite", "postgres"}:
        arguments.error(f"--store {', '.join(unknown)}: expected sqlite, postgres, or sqlite,postgres")
    print(f"{given.method}; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{'records':>10} {'store':>9} {'events/CPU-s':>13} {'events/s':>9} {'CPU s':>8} {'peak MB':>8} {'store MB':>9}"
    )
    with serving() if "postgres" in kinds else nullcontext() as server:
        for records in map(int, given.rows.split(",")):
            with tempfile.TemporaryDirectory() as place:
                log = Path(place) / "log.jsonl"
                writer = Process(target=write, args=(log, records))  # its memory would be counted as the child's
                writer.start()
                writer.join()
                for kind, figures in measure(log, Path(place), kinds, given.runs, server, given.method).items():
                    cpu, wall, peak, size = (statistics.median(column) for column in zip(*figures, strict=True))
                    rates = f"{records / cpu:>13,.0f} {records / wall:>9,.0f} {cpu:>8.1f} {peak:>8,.0f} {size:>9,.0f}"
                    print(f"{records:>10,} {kind:>9} {rates}", flush=True)


if __name__ == "__main__":
    main()
