"""The charts of the report, one function each; every one says in a sentence what it shows.

Colours are those of Okabe and Ito, told apart by colour-blind eyes, the two lightest darkened to stand out from white; each
method has one, and a mark of its own, throughout the page.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from learner.names import ORACLES
from stream.backtest import Result
from stream.settings import spell
from stream.terminal import aside, converted, counted

COLOURS = ("#0072B2", "#B87A00", "#009E73", "#CC79A7", "#D55E00", "#3A9AD9", "#000000", "#8C6D1F")
MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
HOUR = 3_600_000
POINTS = 60  # of a line over time, at most
LETTERS = 24  # of a name in a picture
UNSETTLED, UNCONVERTED = "no label has settled", "no settled row has converted"
TICKS = {"1m": 60, "10m": 600, "1h": 3600, "6h": 21_600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000}


class Chart(NamedTuple):
    """A headline, a sentence on how to read it, and the figure; None if there is nothing to draw: ``lacking`` says why."""

    title: str
    reading: str
    figure: Any
    lacking: str = UNSETTLED


def stroke(result: Result, name: str) -> dict[str, str]:
    """How the lines of a method are drawn: one colour for each, and beyond those another dash."""
    round_, n = divmod(list(result.summary["methods"]).index(name), len(COLOURS))
    return {"color": COLOURS[n], "dash": DASHES[round_ % len(DASHES)]}


def drawn_as(result: Result, name: str) -> dict[str, Any]:
    """A method's line, with marks for who does not see its colour."""
    symbol = MARKS[list(result.summary["methods"]).index(name) % len(MARKS)]
    marker = {"symbol": symbol, "size": 7}
    return {"name": name, "mode": "lines+markers", "line": stroke(result, name), "marker": marker}


def _lacking(result: Result) -> str:
    """Why there is nothing to draw of conversions."""
    return UNCONVERTED if any(result.hours.values()) else UNSETTLED


def _spans(result: Result) -> tuple[int, dict[str, Any]] | None:
    """Hours in a point, and learner -> (times, sums [points, columns of Hour])."""
    hours = sorted({hour for found in result.hours.values() for hour in found})
    if not hours:
        return None
    span = max(1, -(-(hours[-1] - hours[0] + 1) // POINTS))
    span = next((n for n in (1, 6, 24, 168, 672) if n >= span), span)
    drawn: dict[str, Any] = {}
    for name in result.summary["methods"]:
        rows = np.array([(hour, *told) for hour, told in result.hours.get(name, {}).items()], dtype=float)
        groups, place = np.unique(rows.reshape(-1, 7)[:, 0] // span, return_inverse=True)
        sums = np.zeros((len(groups), 6))
        np.add.at(sums, place, rows.reshape(-1, 7)[:, 1:])
        drawn[name] = [_day(float(g * span)) for g in groups], sums
    return span, drawn


def _day(hour: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def over_time(result: Result) -> Chart:
    """Settled log loss by the time the impressions were shown."""
    reading = "Each point is the mean over the impressions shown in that span; lower is better."
    if (found := _spans(result)) is None:
        return Chart("Log loss over time", reading, None)
    span, drawn = found
    figure = blank("shown", "settled log loss")
    for name, (x, sums) in drawn.items():
        text = [f"{n:,.0f} rows" for n in sums[:, 0]]
        figure.add_scatter(x=x, y=sums[:, 3] / sums[:, 0], text=text, **drawn_as(result, name))
    methods = result.summary["methods"]
    losses = {n: told["settled"]["log_loss"] or 9 for n, told in methods.items() if n not in ORACLES}
    best = min(losses, key=lambda name: losses[name], default=ORACLES[0])
    heading = f"Log loss of {best} over time" if len(losses) < 2 else "Log loss over time"
    if len(losses) > 1 and converted(methods):
        heading = f"Over the whole log {best} has the lowest log loss{aside(methods)}"
    return Chart(heading, f"{reading} One point is {spell(span * HOUR)}.", figure)


def level_over_time(result: Result) -> Chart:
    """PCOC by the time the impressions were shown, with the drifts that ADWIN found."""
    reading = "Mean score over share converted; 1 is calibrated. A cross is where ADWIN sees a drift begin."
    found = _spans(result)
    if found is None or not any(sums[:, 1].any() for _, sums in found[1].values()):
        return Chart("Calibration over time", reading, None, _lacking(result))
    figure = blank("shown", "PCOC")
    times = 0
    for name, (x, sums) in found[1].items():
        seen = sums[:, 1] > 0
        y, x = sums[seen, 2] / sums[seen, 1], [at for at, there in zip(x, seen, strict=True) if there]
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line=stroke(result, name))
        drifts = result.summary["methods"][name]["drifts"]
        times += len(drifts)
        marks = {"symbol": "x", "size": 10, "color": stroke(result, name)["color"]}
        at = [_day(drift["hour"]) for drift in drifts]
        level = [drift["after"] or drift["before"] or 1 for drift in drifts]
        figure.add_scatter(x=at, y=level, name=f"{name} drifts", mode="markers", marker=marks, showlegend=False)
    figure.add_hline(y=1, line={"dash": "dash", "color": "#8c959f"})
    often = "once" if times == 1 else counted(times, "times")
    told = f"Calibration drifted {often}" if times else "No drift of calibration was found"
    return Chart(told, reading, figure)


def calibration(result: Result) -> Chart:
    """Mean score against the share that converted."""
    reading = (
        "On the dashed line, what is said is what happens; above it conversions are underestimated. Logarithmic axes: "
        "groups in which nothing converted are left out."
    )
    figure = blank("mean score", "share converted")
    seen: list[float] = []
    for name, groups in result.calibration.items():
        kept = [(p, y, n) for n, p, y in groups if y > 0]
        seen += [value for p, y, _ in kept for value in (p, y)]
        text = [f"{n:,} rows" for _, _, n in kept]
        xs, ys = [p for p, _, _ in kept], [y for _, y, _ in kept]
        figure.add_scatter(x=xs, y=ys, text=text, **drawn_as(result, name))
    if not seen:
        return Chart("Calibration", reading, None, _lacking(result))
    _diagonal(figure, min(seen), max(seen))
    ticks = {
        "type": "log",
        "tickformat": "~%",
        "tickvals": [b * 10.0**e for e in range(-5, 0) for b in (1, 2, 5)] + [1.0],
    }
    figure.update_xaxes(**ticks)
    figure.update_yaxes(**ticks)
    return Chart("Does a score of 5 % mean 5 %?", reading, figure)


def delays(result: Result) -> Chart:
    """The learned delay curve beside the delays of settled conversions."""
    window, wait = result.settings.window / 1000, result.settings.wait / 1000
    figure = blank("time since the impression", "share of conversions known")
    known = result.delays.sum()
    if known:
        edges = window * 10 ** (4 * (np.arange(1, len(result.delays) + 1) / len(result.delays) - 1))
        figure.add_scatter(x=edges, y=result.delays.cumsum() / known, name="settled conversions", line_color="#999999")
    if result.curve:
        ages, share = zip(*((a, f) for a, f in result.curve if a > 0), strict=True)
        figure.add_scatter(x=ages, y=share, name="delay curve, as learned", mode="lines+markers", line_color=COLOURS[0])
    learned = "The curve begins as a belief, and is learned from conversions as they arrive. " if result.curve else ""
    reading = f"{learned}The dotted line is the first look: what is right of it comes late."
    if not known and not result.curve:
        return Chart("How late conversions come", reading, None, _lacking(result))
    figure.add_vline(x=wait or window / 10_000, line_dash="dot", line_color="#555555")
    ticks: dict[str, float] = {name: at for name, at in TICKS.items() if window / 10_000 <= at <= window / 1.5}
    ticks[spell(result.settings.window)] = window
    figure.update_xaxes(type="log", tickvals=list(ticks.values()), ticktext=list(ticks))
    figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    return Chart(_lateness(result, wait, window), reading, figure)


def _lateness(result: Result, wait: float, window: float) -> str:
    if not (known := result.delays.sum()):
        return "How late conversions come"
    bins = len(result.delays)
    place = int(np.clip(bins * (1 + np.log10(max(wait, 1e-3) / window) / 4), 0, bins))
    late = result.delays[place:].sum() / known
    return f"{late:.0%} of the conversions come after the first look at {spell(result.settings.wait)}"


def funnel(result: Result) -> Chart:
    """Settled rows, rows with each signal, converted."""
    rows, converted = result.funnel.get("", [0, 0])
    reading = "Settled impressions; of those with a signal inside the window, the share that converts, beside all rows."
    if not rows:
        return Chart("From impression to conversion", reading, None)
    names, shares, texts = ["all impressions"], [converted / rows], [f"{converted:,} of {rows:,}"]
    for kind, (some, bought) in sorted(result.funnel.items()):
        if kind and some:
            names += [f"with {short(kind)}", f"without {short(kind)}"]
            shares += [bought / some, (converted - bought) / max(rows - some, 1)]
            texts += [f"{bought:,} of {some:,}", f"{converted - bought:,} of {rows - some:,}"]
    figure = blank("share converted", "")
    places = ["auto" if share else "outside" for share in shares[::-1]]  # plotly writes nothing into a bar of no length
    told = {"text": texts[::-1], "textposition": places, "marker_color": COLOURS[0]}
    figure.add_bar(x=shares[::-1], y=names[::-1], orientation="h", **told)
    figure.update_xaxes(tickformat=".1%", rangemode="tozero")
    figure.update_layout(showlegend=False, height=140 + 44 * len(names))
    return Chart(f"{converted / rows:.2%} of the impressions convert", reading, figure)


def weights(result: Result) -> Chart:
    """Importance weights of observed negatives against what became of them."""
    reading = (
        "Rows without a conversion at the first look, in ten groups by the weight they were learned with. "
        "On the dashed line the weight is the share that really never converted."
    )
    figure = blank("mean weight", "share that never converted")
    seen: list[float] = []
    for name, groups in result.deciles.items():
        seen += [value for _, w, y in groups for value in (w, y)]
        text = [f"{n:,} rows" for n, _, _ in groups]
        xs, ys = [w for _, w, _ in groups], [y for _, _, y in groups]
        figure.add_scatter(x=xs, y=ys, text=text, **drawn_as(result, name))
    if not seen:
        weighed = "no row without a conversion at the first look has settled"
        lacking = weighed if result.deciles else "no method here weighs such rows"
        return Chart("Were the weights right?", reading, None, lacking)
    _diagonal(figure, min(seen), max(seen))
    return Chart("Were the weights right?", reading, figure)


def blank(x: str, y: str) -> Any:
    """A figure without anything in it, as all charts of the page look; titles of its axes."""
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=420,
        showlegend=True,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="closest",
        xaxis_title=x,
        yaxis_title=y,
    )
    return figure


def _diagonal(figure: Any, low: float, high: float) -> None:
    line = {"dash": "dash", "color": "#777777", "width": 1}
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="right", hoverinfo="skip")


def short(name: str) -> str:
    """Names of one family differ at their ends: what is left out is in the middle.

    >>> short("Outdoor-Trekking-Jacket-Size-XXL-7"), short("p1")
    ('Outdoor-Tre…t-Size-XXL-7', 'p1')
    """
    half = LETTERS // 2
    return name if len(name) <= LETTERS else f"{name[: LETTERS - half - 1]}…{name[-half:]}"
