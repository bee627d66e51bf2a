"""What runs of many methods on simulated logs say together: tables with intervals, the audit of weights, a plot.

A run is what `benchmarks/methods.py` keeps of one: sums by the hour of each method, settled metrics, audited weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.ledger import Hour
from stream.comparison import interval, resampled

HOUR = 3_600_000
DRIFTS = ("conversion-drift", "delay-drift", "both", "new-campaigns")
OURS = ("pq", "pq_signals", "hybrid")
FEWEST = 500  # rows of a decile whose weights are audited
Floats = NDArray[np.float64]
Runs = dict[str, list[dict[str, Any]]]


def week(run: dict[str, Any], method: str, day: int = 0, days: int = 7) -> Floats:
    """[days, columns of `Hour`]: sums of the days after the change, from ``day`` on."""
    start = run["changes_at"] // HOUR + 24 * day
    found = np.zeros((days, len(Hour._fields)))
    for hour, sums in run["hours"].get(method, {}).items():
        place = (int(hour) - start) // 24
        if 0 <= place < days:
            found[place] += sums
    return found


def drawn(runs: list[dict[str, Any]], methods: Sequence[str], day: int = 0, days: int = 7) -> Floats:
    """[draws + 1, methods, columns]: sums, the first of all, the others of seeds and days drawn with replacement."""
    sums = np.stack([np.stack([week(run, m, day, days) for m in methods]) for run in runs])  # [seeds, methods, days, 6]
    return np.concatenate([sums.sum((0, 2))[None], resampled(sums)])


def excess(sums: Floats, methods: Sequence[str]) -> Floats:
    """[draws + 1, methods]: expected log loss above oracle's, 1e-4."""
    mean = sums[..., 5] / sums[..., 0]
    over: Floats = (mean - mean[:, [methods.index("oracle")]]) * 1e4
    return over


def drift_week(runs: Runs, methods: Sequence[str]) -> dict[str, Any]:
    """Print and return the excess in the week after the change, and PCOC to the true p then and one window later."""
    told: dict[str, Any] = {}
    for name, found in runs.items():
        sums, later = drawn(found, methods), drawn(found, methods, day=7, days=1)
        over = excess(sums, methods)
        print(f"\n{name}: {len(found)} seeds, {int(sums[0, 0, 0]):,} rows in the week after the change")
        print(f"  {'method':12} {'excess over oracle, 1e-4':>28} {'PCOC to p':>10} {'PCOC, one window later':>26}")
        told[name] = {}
        for m, method in enumerate(methods):
            pcoc, after = (part[..., m, 2] / np.maximum(part[..., m, 4], 1e-9) for part in (sums, later))
            row = {"excess": over[0, m], "interval": interval(over[1:, m]), "pcoc": pcoc[0]}
            told[name][method] = row | {"after": after[0], "after_interval": interval(after[1:])}
            low, high = row["interval"]
            first, last = told[name][method]["after_interval"]
            print(
                f"  {method:12} {f'{over[0, m]:.2f} [{low:.2f}, {high:.2f}]':>28} {pcoc[0]:10.4f} "
                f"{f'{after[0]:.3f} [{first:.3f}, {last:.3f}]':>26}"
            )
    return told


def verdict(runs: Runs, methods: Sequence[str]) -> None:
    """The mean excess over the drifts, and what of the best published method's is removed, with intervals."""
    published = [m for m in methods if m not in ("oracle", "pretrained", *OURS)]
    there = [name for name in DRIFTS if name in runs]
    if not there or not published:
        return
    means = np.mean([excess(drawn(runs[name], methods), methods) for name in there], 0)
    best = min(published, key=lambda m: float(means[0, methods.index(m)]))
    theirs = means[:, methods.index(best)]
    print(f"\nmean excess over {', '.join(there)}:")
    for m in sorted(range(len(methods)), key=lambda m: float(means[0, m])):
        removed = 100 * (1 - means[:, m] / theirs)
        (low, high), (least, most) = interval(means[1:, m]), interval(removed[1:])
        print(
            f"  {methods[m]:12} {f'{means[0, m]:.2f} [{low:.2f}, {high:.2f}]':>28}   removes "
            f"{f'{removed[0]:.1f} [{least:.1f}, {most:.1f}]':>24} % of what {best} leaves"
        )


def settled(runs: Runs, methods: Sequence[str]) -> None:
    """Metrics of the whole stream on final labels, means over seeds with their standard error, and RI."""
    columns = ("auc", "pr_auc", "log_loss", "pcoc", "ece")
    for name, found in runs.items():
        print(f"\n{name}: final labels, the whole stream; mean of {len(found)} seeds +- standard error")
        print(f"  {'method':12}" + "".join(f"{column:>18}" for column in columns) + f"{'RI AUC':>9}{'RI loss':>9}")
        for method in methods:
            values = np.array([[run["methods"][method]["settled"][c] for c in columns] for run in found])
            error = values.std(0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else [None] * len(columns)
            gains = [run["methods"][method].get("ri") or {} for run in found]
            parts = [[g[c] for g in gains if g.get(c) is not None] for c in ("auc", "log_loss")]
            shares = "".join(
                f"{100 * np.mean(part):8.1f}%" if len(part) == len(found) else f"{'-':>9}" for part in parts
            )
            figures = zip(values.mean(0), error, strict=True)
            cells = "".join(
                f"{f'{mean:.5f}' if apart is None else f'{mean:.5f} +-{apart:.5f}':>18}" for mean, apart in figures
            )
            print(f"  {method:12}{cells}{shares}")


def audit(runs: Runs, methods: Sequence[str]) -> None:
    """Weights of observed negatives against the share of real ones, by decile: the largest gap of each scenario."""
    print("\nlargest gap between predicted and true share of real negatives, in points, by decile of all seeds:")
    print(f"  {'method':12}" + "".join(f"{name:>18}" for name in runs))
    for method in methods:
        gaps = [
            _gap([run["deciles"][method] for run in found if run["deciles"].get(method)]) for found in runs.values()
        ]
        if not all(gap is None for gap in gaps):
            print(f"  {method:12}" + "".join(f"{'-' if gap is None else f'{gap:.2f}':>18}" for gap in gaps))


def _gap(tables: list[list[tuple[int, float, float]]]) -> float | None:
    """Deciles of several seeds taken together, place by place; None where none has rows enough."""
    if not tables:
        return None
    places = [np.array([table[d] for table in tables if d < len(table)]) for d in range(max(map(len, tables)))]
    sums = [(rows[:, 0].sum(), rows[:, 0] @ rows[:, 1], rows[:, 0] @ rows[:, 2]) for rows in places]
    return max((100 * abs(w - s) / n for n, w, s in sums if n >= FEWEST), default=None)


def plot(told: dict[str, Any], file: Path) -> None:
    """Excess by scenario and method, with intervals."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for method in (m for m in next(iter(told.values())) if m not in ("oracle", "pretrained")):
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
