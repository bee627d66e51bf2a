"""What the daemon pays while a version of the product graph is learned beside it.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/refresh.py LOG [--every 20d] [--nth 3] [--runs 3]

LOG is a log whose conversions name user and item, such as that of `belated convert online_retail`. It is sent to a broker
of its own, and `belated run` reads it as fast as it can, anew in each run, until its n-th refresh has ended. Every second
run the process of that refresh is halted as soon as it is seen (SIGSTOP), so that the same records pass, with the same
version served, and nothing is learned beside them. Twice a second are read: records that have passed (/status) and the
CPU time of the daemon's own process, without its children. Printed for each pair of runs: the records of the refresh, from
before it is seen until after its version is served, their CPU-seconds with the refresh and without, and the ratio; and the
longest time in which none passed. Taking the snapshot is part of both; it is in the line of CPU-seconds around the begin.
"""

import os
import signal
import statistics
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from asking import Parser
from service import PARTS, TOPICS, Daemon, belated, broker, configure

APART = 0.5  # seconds between two samples
AFTER = 4  # samples after the refresh
HERTZ = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """At a moment: seconds, records that have passed, CPU seconds of the daemon, and whether the n-th refresh runs."""

    at: float
    passed: int
    cpu: float
    busy: bool


def watch(daemon: Daemon, nth: int, total: int, halt: int) -> list[Sample]:
    """Samples until `AFTER` the n-th refresh or, if that is halted, until ``halt`` records have passed."""
    found: list[Sample] = []
    seen: list[int] = []
    while len(found) <= AFTER or not seen[nth - 1 :] or (found[-1].passed < halt if halt else _busy(found)):
        status = daemon.status()
        if status is None or daemon.process.poll() is not None:
            raise SystemExit("the daemon ended by itself")
        cpu, worker = used(daemon.process.pid)
        if worker and worker not in seen:
            seen.append(worker)
            if halt and len(seen) == nth:
                os.kill(worker, signal.SIGSTOP)
        passed = sum(status["counts"].get(name, 0) for name in PARTS)
        found.append(Sample(time.perf_counter(), passed, cpu, len(seen) == nth and worker == seen[-1]))
        if passed >= total:
            raise SystemExit(f"the log ended before refresh {nth} did: ask for an earlier one, or give a longer log")
        time.sleep(APART)
    if halt:
        os.kill(seen[-1], signal.SIGKILL)
    return found


def _busy(found: list[Sample]) -> bool:
    return any(sample.busy for sample in found[-AFTER:])


def used(pid: int) -> tuple[float, int]:
    """CPU seconds of a process without its children, and its first child, 0 for none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / HERTZ, int(children[0]) if children else 0


def run(file: Path, folder: Path, nth: int, total: int, halt: int = 0) -> list[Sample]:
    """One run on an empty store."""
    folder.mkdir()
    daemon = Daemon(file, folder / "said", BELATED_STORE__URL=f"sqlite:///{folder}/store.db")
    try:
        daemon.ready()
        return watch(daemon, nth, total, halt)
    finally:
        daemon.end(signal.SIGKILL)


def cost(samples: list[Sample], first: int, last: int) -> float:
    """CPU seconds between two numbers of records, where those lie between samples in proportion."""
    passed, cpu = ([s[k] for s in samples] for k in (1, 2))
    low, high = np.interp([first, last], passed, cpu)
    return float(high - low)


def pair(file: Path, folder: Path, nth: int, total: int) -> float:
    """Two runs; the ratio."""
    learned = run(file, folder / "learned", nth, total)
    busy = [n for n, s in enumerate(learned) if s.busy]
    begin, end = learned[busy[0] - 1], learned[min(busy[-1] + 2, len(learned) - 1)]
    halted = run(file, folder / "halted", nth, total, halt=end.passed)
    held = [n for n, s in enumerate(halted) if s.busy]
    first = max(begin.passed, halted[held[0] - 1].passed)
    with_it, without = cost(learned, first, end.passed), cost(halted, first, end.passed)
    wall = learned[busy[-1]].at - learned[busy[0]].at
    print(
        f"{wall:.1f} s of wall time, {end.passed - first:,} records: {with_it:.2f} CPU s "
        f"with the refresh, {without:.2f} without, ratio {with_it / without:.3f}; at most {longest(learned):.1f} s without "
        f"a record passing ({longest(halted):.1f} s); around the begin {learned[busy[0]].cpu - begin.cpu:.2f} CPU s",
        flush=True,
    )
    return with_it / without


def longest(samples: list[Sample]) -> float:
    """The longest time in which nothing passed, from the n-th refresh on."""
    most, begun = 0.0, samples[0]
    for a, b in pairwise(samples):
        begun = begun if b.passed == a.passed and b.busy else b
        most = max(most, b.at - begun.at)
    return most


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("log", type=Path)
    for name, value in (("every", "20d"), ("window", "60d"), ("wait", "7d")):
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--nth", type=int, default=3, help="which refresh; 2 or later")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs")
    asked = parser.parse_args()
    total = sum(file.read_bytes().count(b"\n") for file in (asked.log / "events").iterdir())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(broker(folder / "kafka"))
        learner: dict[str, Any] = {"window": asked.window, "wait": asked.wait, "graph_every": asked.every}
        kafka = {"servers": [server], "idle_after": "2s", **{name: f"{name}-{os.getpid()}" for name in TOPICS}}
        file = configure(folder / "belated.toml", kafka=kafka, learner=learner)
        belated("produce", asked.log, "-c", file, "--create", "--partitions", 1)
        print(f"{total:,} records in Kafka", flush=True)
        ratios = []
        for number in range(asked.runs):
            (folder / str(number)).mkdir()
            ratios.append(pair(file, folder / str(number), asked.nth, total))
    print(f"median ratio of CPU per record {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
