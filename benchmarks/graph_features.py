"""What the product graph is worth to the conversion model: the same log with its features and without, paired.

    belated convert completejourney package log/ --baskets
    python benchmarks/graph_features.py log/ --window 60d --wait 7d --every 60d [--seeds 2] [--users 0.3]

Each seed reads the log twice with the same method, settings and start weights, once with `graph_every` and once without.
Printed are settled log loss, AUC and PCOC of both and the difference of log losses with its 95 % interval (paired block
bootstrap over hours and seeds, as in every report), and CPU-seconds.
``--users`` keeps the records of a share of the users, chosen by a hash of their id, for a log that is too long.
"""

import json
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from asking import Parser
from rich.progress import track

from learner.names import DEFAULT, LIVE
from stream.backtest import Result, backtest
from stream.comparison import compare
from stream.files import FileSource
from stream.settings import Settings

NAMES = ("without", "with")


def part(log: Path, folder: Path, share: float) -> Path:
    """The records of a share of the users, and of nobody; the log itself where all are asked for."""
    if share >= 1:
        return log
    (folder / "events").mkdir()
    for file in track(sorted((log / "events").iterdir()), "records of some users", transient=True):
        with file.open("rb") as lines, (folder / "events" / file.name).open("wb") as kept:
            for line in lines:
                user = json.loads(line).get("user_id")
                if user is None or zlib.crc32(str(user).encode()) < share * 2**32:
                    kept.write(line)
    return folder


def run(log: Path, told: dict[str, Any], every: str | None) -> tuple[Result, float]:
    """A backtest, and its CPU-seconds."""
    began = time.process_time()
    settings = Settings(**told, graph_every=every)  # type: ignore[arg-type]
    return backtest(str(log), FileSource(log), settings), time.process_time() - began


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--method", default=DEFAULT, choices=LIVE)
    for name, value in (("every", "60d"), ("window", "60d"), ("wait", "7d")):
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--users", type=float, default=1.0, help="share of the users")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = part(asked.log, Path(folder), asked.users)
        hours, settled = [], []
        for seed in range(asked.seeds):
            told = {"methods": (asked.method,), "window": asked.window, "wait": asked.wait, "seed": seed}
            figures, sums = {}, {}
            for name, every in zip(NAMES, (None, asked.every), strict=True):
                found, cpu = run(log, told, every)
                if asked.method not in found.hours:
                    parser.error(f"{asked.log}: no label has settled; give a longer log, or a shorter --window")
                figures[name], sums[name] = found.summary["methods"][asked.method], found.hours[asked.method]
                say(seed, name, figures[name], cpu)
            settled.append(figures)
            hours.append(sums)
        told = compare(settled[0], hours)
    for name in NAMES:
        if gap := settled[0][name]["interval"]["behind_best"]:
            low, high = (1e4 * end for end in gap)
            print(f"{name:8} behind the better one: [{low:+.2f}, {high:+.2f}] 1e-4, {told['blocks']} blocks")


def say(seed: int, name: str, figures: dict[str, Any], cpu: float) -> None:
    """Print a run."""
    s = figures["settled"]
    print(
        f"seed {seed} {name:8} {s['rows']:9,} rows  log loss {s['log_loss']:.5f}  AUC {s['auc']:.4f}  "
        f"PCOC {s['pcoc']:.3f}  {cpu:7.1f} CPU s",
        flush=True,
    )


if __name__ == "__main__":
    main()
