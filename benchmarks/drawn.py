"""Small logs whose scenario is drawn at random, each read from nothing: the default where nobody has chosen anything.

    python benchmarks/drawn.py --logs 16 --impressions 30000

Drawn are days, attribution window, first look, share that converts (.5 to 30 %) and, wrong by a factor, the base rate that
is told; drifts of conversions, delays, signals and campaigns, each absent in about half of the logs; and what signals say.
Printed is the divergence from the true p of each method over that of the default: geometric mean, and in how many logs the
default is ahead; in the first and in the second window, in the one after the change, in the rest, and in all.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from asking import Parser, among
from calm import sum_of
from rich.progress import track

from learner.names import DEFAULT, NAMES, USUAL
from stream.backtest import backtest
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import DAY, HOUR, MINUTE, START, Scenario
from stream.simulate.write import write
from stream.truth import beside

PARTS = ("first", "second", "after", "rest", "all")
Found = dict[str, list[float]]


def drawn(seed: int, impressions: int) -> tuple[Scenario, int, float]:
    """A scenario, the age of the first look, ms, and the base rate that is told."""
    chance = np.random.default_rng(seed)
    days = int(chance.choice([10, 30, 60]))
    window = min(int(chance.choice([1, 3, 7, 14])), days // 3) * DAY
    wait = int(chance.choice([10 * MINUTE, HOUR, 6 * HOUR]))
    rate = float(np.exp(chance.uniform(np.log(0.005), np.log(0.3))))

    def perhaps(value: float, share: float, otherwise: float) -> float:
        return value if chance.random() < share else otherwise

    scenario = Scenario(
        seed=seed,
        impressions=impressions,
        days=days,
        window=window,
        rate=rate,
        conversion_drift=perhaps(float(chance.normal(0, 0.6)), 0.6, 0.0),
        delay_drift=perhaps(float(chance.normal(0, 0.8)), 0.6, 0.0),
        signal_drift=perhaps(float(np.exp(chance.normal(0, 0.5))), 0.4, 1.0),
        new_campaigns=perhaps(0.3, 0.3, 0.0),
        cart_buyer=float(chance.uniform(0.2, 0.8)),
        cart_other=float(np.exp(chance.uniform(np.log(0.01), np.log(0.2)))),
        click_buyer=float(chance.uniform(0.4, 0.95)),
        click_other=float(chance.uniform(0.05, 0.4)),
    )
    return scenario, wait, float(min(0.5, rate * np.exp(chance.normal(0, 0.7))))


def one(seed: int, impressions: int, methods: tuple[str, ...]) -> Found:
    """Of each method the divergence from the truth, 1e-4, by part; NaN where nothing was shown."""
    scenario, wait, base_rate = drawn(seed, impressions)
    window = scenario.window // HOUR
    begin, change = START // HOUR, scenario.changes_at // HOUR
    settings = Settings(methods=methods, window=scenario.window, wait=wait, base_rate=base_rate, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        write(scenario, log)
        hours = backtest(str(log), FileSource(log), settings, truth=beside(log)).hours
    bounds = (
        (begin, begin + window),
        (begin + window, begin + 2 * window),
        (change, change + window),
        (change + window, sys.maxsize),
        (0, sys.maxsize),
    )
    found: Found = {}
    for method in methods:
        sums = [sum_of([{n: told for n, told in hours[method].items() if low <= n < high}]) for low, high in bounds]
        found[method] = [1e4 * part.excess_sum / part.rows if part.rows else float("nan") for part in sums]
    return found


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--logs", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--impressions", type=int, default=30_000)
    parser.add_argument("--methods", type=among(NAMES), default=",".join(USUAL))
    asked = parser.parse_args()
    methods = tuple(dict.fromkeys([*asked.methods, DEFAULT]))
    seeds = track(range(asked.first_seed, asked.first_seed + asked.logs), "logs", disable=not sys.stderr.isatty())
    runs = [one(seed, asked.impressions, methods) for seed in seeds]
    print(f"divergence from the truth over that of {DEFAULT}, {asked.logs} logs; logs in which {DEFAULT} is ahead")
    print(f"{'method':12}" + "".join(f"{part:>16}" for part in PARTS))
    for method in (m for m in methods if m != DEFAULT):
        ratios = np.array([np.array(run[method]) / np.array(run[DEFAULT]) for run in runs])
        cells = [
            f"{np.exp(np.nanmean(np.log(column))):.2f} {int((column > 1).sum())}/{int(np.isfinite(column).sum())}"
            for column in ratios.T
        ]
        print(f"{method:12}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
