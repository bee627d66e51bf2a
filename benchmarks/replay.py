"""Events per CPU-second through `belated replay` on SQLite, and its memory, at several lengths of the log.

    python benchmarks/replay.py [--rows 100000,1000000] [--runs 3]

Writes logs of its own (impressions with six features, carts, purchases; one day of events per 100,000), runs the
command line in a process of its own, and prints the medians: records / (user + system time of the whole process, imports
and checkpoints included), and the peak of its resident memory.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from multiprocessing import Process
from pathlib import Path

import numpy as np

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
        for n, time in zip(chosen.tolist(), when.tolist(), strict=True):
            event = {
                "type": type_,
                "event_id": f"{kind}-{n}",
                "kind": kind,
                "at": T0 + time,
                "impression_id": f"{n:08d}",
            }
            events.append((T0 + time, json.dumps(event)))
    events.sort(key=lambda event: event[0])
    path.write_text("".join(line + "\n" for _, line in events))


def replay(log: Path, folder: Path) -> tuple[float, float]:
    """(CPU seconds, peak MB) of one run."""
    command = [sys.executable, "-m", "stream.cli", "replay", str(log), "--window", "1d", "--wait", "1h"]
    command += ["--store", f"sqlite:///{folder}/store.db", "--json", str(folder / "out.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", default="100000,1000000", help="records of each log")
    arguments.add_argument("--runs", type=int, default=3, help="runs of each; the median counts")
    given = arguments.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'records':>10} {'events/CPU-s':>13} {'CPU s':>8} {'peak MB':>8} {'store MB':>9}")
    for records in map(int, given.rows.split(",")):
        with tempfile.TemporaryDirectory() as place:
            log = Path(place) / "log.jsonl"
            writer = Process(target=write, args=(log, records))  # its memory would be counted as the child's
            writer.start()
            writer.join()
            figures = []
            for run in range(given.runs):
                folder = Path(place) / str(run)
                folder.mkdir()
                seconds, peak = replay(log, folder)
                figures.append((seconds, peak, (folder / "store.db").stat().st_size / 1e6))
            seconds, peak, size = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{records:>10,} {records / seconds:>13,.0f} {seconds:>8.1f} {peak:>8,.0f} {size:>9,.0f}")


if __name__ == "__main__":
    main()
