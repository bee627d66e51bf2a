"""Every method on the simulator's scenarios and on real logs, in the protocol of the papers, with intervals.

    python benchmarks/methods.py [--scenarios calm,both,...] [--seeds 5] [--methods fnw,hybrid,...] [--cache DIR] [--jobs 2]
    python benchmarks/methods.py --costs [--methods ...]
    python benchmarks/methods.py --log LOG --window 30d --wait 1d      # a converted log: Taobao, Complete Journey, Criteo

Each run is a `belated backtest` after a pre-training of one window and a gap of one window (real logs: none), all methods
in one pass. A simulated run is judged on the rows shown in the week after the drift has set in, by the EXPECTED log loss
under the true p: its excess over `oracle`, which learns final labels at once. Runs are kept in the cache by code, scenario
and seed, so that it can be stopped, started again, and given further methods. Prints the week after the drift with 95 %
intervals of the paired block bootstrap (blocks and seeds drawn together) and PCOC in the day one window later, what is left
of the best published method's excess, metrics of the whole stream, and the audit of the weights; ``--write`` keeps table
and plot, ``--costs`` gives the CPU-seconds that each method alone takes for a million events.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import contest
from asking import Parser, among
from contest import Runs
from rich.progress import Progress

from learner.methods import METHODS
from learner.names import LIVE
from stream.backtest import backtest
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import SCENARIOS, Scenario
from stream.simulate.write import write
from stream.truth import beside

ROOT = Path(__file__).resolve().parent.parent


def scenario(name: str, seed: int, impressions: int, knobs: dict[str, Any]) -> Scenario:
    return Scenario(seed=seed, impressions=impressions, **(SCENARIOS[name] | knobs))


def one(name: str, seed: int, methods: tuple[str, ...], impressions: int, knobs: dict[str, Any]) -> dict[str, Any]:
    """A run: settled metrics, audited weights and sums by the hour of each method."""
    told = scenario(name, seed, impressions, knobs)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        write(told, log)
        settings = Settings(methods=methods, window="7d", wait="1h", pretrain="7d", seed=seed)  # type: ignore[arg-type]
        result = backtest(name, FileSource(log), settings, truth=beside(log))
    return {
        "changes_at": told.changes_at,
        "methods": result.summary["methods"],
        "deciles": result.deciles,
        "hours": {m: {str(h): list(sums) for h, sums in found.items()} for m, found in result.hours.items()},
    }


def code() -> str:
    """Which state of the code: of its sources, in the order of their names."""
    told = hashlib.sha256()
    for room in ("labelstore", "learner", "stream"):
        for file in sorted((ROOT / room).rglob("*.py")):
            told.update(file.read_bytes())
    return told.hexdigest()[:12]


def cached(cache: Path, name: str, seed: int, methods: tuple[str, ...], impressions: int, knobs: dict[str, Any]) -> Any:
    """A run, as far as it is in the cache from there: a learner learns the same alone and among others. The cache is of one
    state of the code: what another one has reached is not shown as today's."""
    key = "-".join([name, str(seed), str(impressions), *(f"{k}={v}" for k, v in sorted(knobs.items()))])
    file = cache / f"{key}.json"
    known = json.loads(file.read_text()) if file.exists() else {"methods": {}, "deciles": {}, "hours": {}}
    if missing := [m for m in methods if m not in known["methods"]]:
        found = one(name, seed, tuple(dict.fromkeys(["oracle", *missing])), impressions, knobs)
        known = found | {part: known[part] | found[part] for part in ("methods", "deciles", "hours")}
        part = file.with_suffix(".part")
        part.write_text(json.dumps(known))
        part.replace(file)
    return known


def costs(methods: tuple[str, ...], impressions: int) -> None:
    """Each method alone on one calm log: CPU-seconds of the pass, for a million events."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        write(scenario("calm", 0, impressions, {}), log)
        print(f"{'method':12} CPU-seconds per million events")
        for method in methods:
            begun = time.process_time()
            settings = Settings(methods=(method,), window="7d", wait="1h")  # type: ignore[arg-type]
            result = backtest(method, FileSource(log), settings)
            spent = time.process_time() - begun
            print(f"{method:12} {spent / result.summary['events']['read'] * 1e6:10.0f}", flush=True)


def real(asked: argparse.Namespace, methods: tuple[str, ...]) -> None:
    """A converted log, by the command's own table."""
    what = ["--window", asked.window, "--wait", asked.wait, "--seeds", str(asked.seeds), "--methods", ",".join(methods)]
    subprocess.run([sys.executable, "-m", "stream.cli", "backtest", asked.log, *what], check=True)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--scenarios", type=among(SCENARIOS), default=",".join(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--impressions", type=int, default=140_000, help="about 200,000 events")
    parser.add_argument("--methods", type=among(METHODS), default=",".join(METHODS))
    parser.add_argument("--knobs", default="{}", help="further knobs of the scenarios, as JSON")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, help="folder for methods.json and methods.html")
    parser.add_argument(
        "--costs",
        action="store_true",
        help="what each method costs, instead; asks for --methods and --impressions only",
    )
    parser.add_argument("--log", help="a converted log instead; asks for --window, --wait, --seeds and --methods only")
    parser.add_argument("--window", default="30d")
    parser.add_argument("--wait", default="1d")
    asked = parser.parse_args()
    methods = tuple(dict.fromkeys(["oracle", *asked.methods]))
    if asked.log:
        return real(asked, methods)
    if asked.costs:
        return costs(tuple(m for m in methods if m in LIVE), asked.impressions)
    runs = gathered(asked, methods)
    told = contest.drift_week(runs, methods)
    contest.verdict(runs, methods)
    contest.settled(runs, methods)
    contest.audit(runs, methods)
    if asked.write:
        asked.write.mkdir(parents=True, exist_ok=True)
        (asked.write / "methods.json").write_text(json.dumps(told, indent=1))
        contest.plot(told, asked.write / "methods.html")


def gathered(asked: argparse.Namespace, methods: tuple[str, ...]) -> Runs:
    """The runs of every scenario, in the order of their seeds."""
    scenarios, knobs = asked.scenarios, json.loads(asked.knobs)
    cache = asked.cache / code()
    cache.mkdir(parents=True, exist_ok=True)
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    with ProcessPoolExecutor(asked.jobs) as pool, Progress(disable=not sys.stderr.isatty()) as progress:
        given = {
            (name, seed): pool.submit(cached, cache, name, seed, methods, asked.impressions, knobs)
            for seed in seeds
            for name in scenarios
        }
        bar = progress.add_task("runs", total=len(given))
        for _ in as_completed(given.values()):
            progress.advance(bar)
    return {name: [given[name, seed].result() for seed in seeds] for name in scenarios}


if __name__ == "__main__":
    main()
