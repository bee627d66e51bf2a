"""Every method on the simulator's scenarios and on real logs, in the protocol of the papers, with intervals.

    python benchmarks/methods.py [--scenarios calm,both,...] [--seeds 5] [--methods fnw,hybrid,...] [--cache DIR] [--jobs 2]
    python benchmarks/methods.py --log LOG --window 30d --wait 1d      # a converted log: Taobao, Complete Journey, Criteo

Each run is a `belated backtest` after a pre-training of one window and a gap of one window (real logs: none), all methods
in one pass. A simulated run is judged on the rows shown in the week after the drift has set in, by the EXPECTED log loss
under the true p: its excess over `oracle`, which learns final labels at once. Runs are kept in the cache by scenario, seed
and methods, so that it can be stopped and started again. Prints and writes a table with 95 % intervals of the paired block
bootstrap (blocks and seeds drawn together), PCOC in the day one window after the drift, CPU-seconds, and a plot.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from learner.methods import METHODS
from stream.backtest import backtest
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import SCENARIOS, Scenario
from stream.simulate.write import write
from stream.truth import beside

HOUR = 3_600_000
DRIFTS = ("conversion-drift", "delay-drift", "both", "new-campaigns")
DRAWS = 2000
Floats = NDArray[np.float64]


def scenario(name: str, seed: int, impressions: int, knobs: dict[str, Any]) -> Scenario:
    return Scenario(seed=seed, impressions=impressions, **(SCENARIOS[name] | knobs))


def one(name: str, seed: int, methods: tuple[str, ...], impressions: int, knobs: dict[str, Any]) -> dict[str, Any]:
    """A run: sums by the hour, CPU-seconds, events."""
    told = scenario(name, seed, impressions, knobs)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        write(told, log)
        settings = Settings(methods=methods, window="7d", wait="1h", pretrain="7d", seed=seed)  # type: ignore[arg-type]
        begun = time.process_time()
        result = backtest(name, FileSource(log), settings, truth=beside(log))
        seconds = time.process_time() - begun
    return {
        "changes_at": told.changes_at,
        "seconds": seconds,
        "events": result.summary["events"]["read"],
        "methods": result.summary["methods"],
        "deciles": result.deciles,
        "hours": {m: {str(h): list(sums) for h, sums in found.items()} for m, found in result.hours.items()},
    }


def cached(cache: Path, name: str, seed: int, methods: tuple[str, ...], impressions: int, knobs: dict[str, Any]) -> Any:
    """A run, from the cache where it is there."""
    key = "-".join([name, str(seed), str(impressions), *(f"{k}={v}" for k, v in sorted(knobs.items())), *methods])
    file = cache / f"{key}.json"
    if not file.exists():
        found = one(name, seed, methods, impressions, knobs)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(file)
    return json.loads(file.read_text())


def week(run: dict[str, Any], method: str, day: int = 0, days: int = 7) -> Floats:
    """[days, columns of `Hour`]: sums of the days after the change, from ``day`` on."""
    start = run["changes_at"] // HOUR + 24 * day
    found = np.zeros((days, 6))
    for hour, sums in run["hours"].get(method, {}).items():
        place = (int(hour) - start) // 24
        if 0 <= place < days:
            found[place] += sums
    return found


def drawn(runs: list[dict[str, Any]], methods: list[str], day: int = 0, days: int = 7) -> Floats:
    """[draws + 1, methods, columns]: sums, the first of all, the others of seeds and days drawn with replacement."""
    sums = np.stack([np.stack([week(run, m, day, days) for m in methods]) for run in runs])  # [seeds, methods, days, 6]
    generator = np.random.default_rng(0)
    seeds, blocks = len(runs), days
    of_seeds = np.vstack([np.ones(seeds), generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)])
    of_blocks = np.vstack([np.ones(blocks), generator.multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS)])
    sums_: Floats = np.einsum("ds,db,smbk->dmk", of_seeds, of_blocks, sums, optimize=True)
    return sums_


def excess(sums: Floats, methods: list[str]) -> Floats:
    """[draws + 1, methods]: expected log loss above oracle's, 1e-4."""
    mean = sums[..., 5] / sums[..., 0]
    over: Floats = (mean - mean[:, [methods.index("oracle")]]) * 1e4
    return over


def table(scenarios: list[str], runs: dict[str, list[dict[str, Any]]], methods: list[str]) -> dict[str, Any]:
    """Print and return what the runs say."""
    told: dict[str, Any] = {}
    for name in scenarios:
        sums = drawn(runs[name], methods)
        later = drawn(runs[name], methods, day=7, days=1)
        over = excess(sums, methods)
        print(f"\n{name}: {len(runs[name])} seeds, {int(sums[0, 0, 0]):,} rows in the week after the change")
        print(f"  {'method':12} {'excess over oracle, 1e-4':>28} {'PCOC to p':>10} {'PCOC, one window later':>26}")
        told[name] = {}
        for m, method in enumerate(methods):
            low, high = np.quantile(over[1:, m], [0.025, 0.975])
            pcoc = sums[..., m, 2] / sums[..., m, 4]
            after = later[..., m, 2] / np.maximum(later[..., m, 4], 1e-9)
            span = np.quantile(after[1:], [0.025, 0.975])
            told[name][method] = {
                "excess": over[0, m], "interval": [low, high], "pcoc": pcoc[0], "after": after[0],
                "after_interval": list(span),
            }  # fmt: skip
            print(
                f"  {method:12} {f'{over[0, m]:.2f} [{low:.2f}, {high:.2f}]':>28} {pcoc[0]:10.4f} "
                f"{f'{after[0]:.3f} [{span[0]:.3f}, {span[1]:.3f}]':>26}"
            )
    return told


def verdict(told: dict[str, Any], methods: list[str]) -> None:
    """What the default, or the method of ours that is asked for, gains over the best published method."""
    published = [m for m in methods if m not in ("oracle", "pq", "pq_signals", "hybrid", "pretrained")]
    there = [name for name in DRIFTS if name in told]
    if not there or not published:
        return
    means = {m: float(np.mean([told[name][m]["excess"] for name in there])) for m in methods}
    best = min(published, key=lambda m: means[m])
    print(f"\nmean excess over {', '.join(there)}:")
    for m, mean in sorted(means.items(), key=lambda pair: pair[1]):
        print(f"  {m:12} {mean:8.2f}   removes {100 * (1 - mean / means[best]):5.1f} % of what {best} leaves")


def audit(runs: dict[str, list[dict[str, Any]]], methods: list[str]) -> None:
    """Weights of observed negatives against the share of real ones, by decile: the largest gap."""
    print("\nlargest gap between predicted and true share of real negatives by decile, over all runs:")
    for method in methods:
        tables = [run["deciles"][method] for found in runs.values() for run in found if method in run["deciles"]]
        gaps = [abs(weight - share) for rows in tables for count, weight, share in rows if count >= 500]
        if gaps:
            print(f"  {method:12} {100 * max(gaps):.2f} points")


def plot(told: dict[str, Any], file: Path) -> None:
    """Excess by scenario and method, with intervals."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    methods = [m for m in next(iter(told.values())) if m not in ("oracle", "pretrained")]
    for method in methods:
        rows = [told[name][method] for name in told]
        figure.add_bar(
            name=method, x=list(told), y=[row["excess"] for row in rows],
            error_y={
                "symmetric": False,
                "array": [row["interval"][1] - row["excess"] for row in rows],
                "arrayminus": [row["excess"] - row["interval"][0] for row in rows],
            },
        )  # fmt: skip
    figure.update_layout(yaxis_title="excess expected log loss over oracle, 1e-4", template="plotly_white")
    figure.write_html(file, include_plotlyjs=True)


def real(asked: argparse.Namespace, methods: tuple[str, ...]) -> None:
    """A converted log, by the command's own table."""
    what = ["--window", asked.window, "--wait", asked.wait, "--seeds", str(asked.seeds), "--methods", ",".join(methods)]
    subprocess.run([sys.executable, "-m", "stream.cli", "backtest", asked.log, *what], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--impressions", type=int, default=140_000, help="about 200,000 events")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--knobs", default="{}", help="further knobs of the scenarios, as JSON")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--log", help="a converted log instead")
    parser.add_argument("--window", default="30d")
    parser.add_argument("--wait", default="1d")
    asked = parser.parse_args()
    methods = tuple(dict.fromkeys(["oracle", *asked.methods.split(",")]))
    if asked.log:
        return real(asked, methods)
    scenarios, knobs = asked.scenarios.split(","), json.loads(asked.knobs)
    asked.cache.mkdir(parents=True, exist_ok=True)
    jobs = [(name, asked.first_seed + n) for n in range(asked.seeds) for name in scenarios]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in scenarios}
    with ProcessPoolExecutor(asked.jobs) as pool, Progress(disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("runs", total=len(jobs))
        given = {
            pool.submit(cached, asked.cache, name, seed, methods, asked.impressions, knobs): name for name, seed in jobs
        }
        for done in as_completed(given):
            runs[given[done]].append(done.result())
            progress.advance(bar)
    for found in runs.values():
        found.sort(key=lambda run: json.dumps(run["methods"], sort_keys=True))
    names = list(methods)
    told = table(scenarios, runs, names)
    verdict(told, names)
    audit(runs, names)
    everything = [run for found in runs.values() for run in found]
    seconds, events = (sum(run[part] for run in everything) for part in ("seconds", "events"))
    print(
        f"\n{events:,} events, {len(names) + 1} learners: {seconds / events * 1e6:.0f} CPU-seconds per million events"
    )
    if asked.plot:
        plot(told, asked.plot)


if __name__ == "__main__":
    main()
