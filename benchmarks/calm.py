"""Nothing drifts and the truth is known: how near each method comes to it, over several seeds, with intervals.

    python benchmarks/calm.py [--seeds 5] [--impressions 250000] [--methods settled,fnw,pq_signals]

Each seed is a log of its own (`belated simulate --scenario calm`), read twice by `belated backtest`: from nothing, judged
in the first two attribution windows, and after a pre-training of 7 days (see `stream.pretraining`), on all that follows.
The default method is always among them, and the others are held against it.
Prints means over the seeds and 95 % intervals of the paired block bootstrap, blocks and seeds drawn together.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asking import Parser, among
from rich.progress import track

from labelstore.ledger import Hour
from learner.names import DEFAULT, NAMES, USUAL
from stream.backtest import Result, backtest
from stream.comparison import compare
from stream.files import FileSource
from stream.settings import Settings
from stream.simulate.scenario import START, Scenario
from stream.simulate.write import write
from stream.truth import beside

HOUR, WINDOW = 3_600_000, 7 * 24  # ms, hours
Hours = Mapping[str, Mapping[int, Hour]]


def run(log: Path, methods: tuple[str, ...], pretrain: str | None) -> Result:
    settings = Settings(methods=methods, window="7d", wait="1h", pretrain=pretrain)  # type: ignore[arg-type]  # as people write it
    return backtest(str(log), FileSource(log), settings, truth=beside(log))


def first_windows(hours: Hours) -> Hours:
    end = START // HOUR + 2 * WINDOW
    return {name: {hour: sums for hour, sums in found.items() if hour < end} for name, found in hours.items()}


def table(what: str, seeds: list[Hours]) -> None:
    """Mean log loss, its gap to the default's with interval, PCOC against labels and against the true p."""
    names = list(seeds[0])
    total = {name: sum_of([found[name] for found in seeds]) for name in names}
    methods: dict[str, Any] = {
        name: {"settled": {"rows": t.rows, "log_loss": t.loss_sum / t.rows}} for name, t in total.items()
    }
    print(f"{what}: {total[DEFAULT].rows:,} rows, {total[DEFAULT].positives:,} conversions, {len(seeds)} seeds")
    print(
        f"{'method':12} {'log loss':>9} {'above ' + DEFAULT + ', 1e-4':>32} {'PCOC to true p':>15} {'over truth, 1e-4':>17}"
    )
    for name, t in total.items():
        pair = {n: methods[n] | {} for n in (name, DEFAULT)}
        pair[DEFAULT] = {
            "settled": {"rows": 1, "log_loss": -1.0}
        }  # as if it were the best: the others are held against it
        compare(pair, seeds)
        low, high = (bound * 1e4 for bound in pair[name]["interval"]["behind_best"] or (0.0, 0.0))
        gap = (methods[name]["settled"]["log_loss"] - methods[DEFAULT]["settled"]["log_loss"]) * 1e4
        print(
            f"{name:12} {t.loss_sum / t.rows:9.5f} {f'{gap:+.2f} [{low:+.2f}, {high:+.2f}]':>32} "
            f"{t.score_sum / t.p_sum:15.4f} {t.excess_sum / t.rows * 1e4:17.1f}"
        )


def sum_of(seeds: list[Mapping[int, Hour]]) -> Hour:
    total = Hour(0, 0, 0.0, 0.0)
    for found in seeds:
        for sums in found.values():
            total = total.plus(sums)
    return total


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--impressions", type=int, default=250_000)
    parser.add_argument("--methods", type=among(NAMES), default=",".join(USUAL))
    asked = parser.parse_args()
    methods = tuple(dict.fromkeys([*asked.methods, DEFAULT]))
    cold: list[Hours] = []
    warm: list[Hours] = []
    for seed in track(range(asked.seeds), description="seeds", disable=not sys.stderr.isatty()):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            write(Scenario(impressions=asked.impressions, seed=asked.first_seed + seed), log)
            cold.append(run(log, methods, None).hours)
            warm.append(run(log, methods, "7d").hours)
    table("from nothing, the first two attribution windows", [first_windows(found) for found in cold])
    table("\nfrom nothing, the whole log", cold)
    table("\nafter a pre-training of 7 days and a gap of one window", warm)


if __name__ == "__main__":
    main()
