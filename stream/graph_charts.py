"""The charts of the product graph in the report: who follows whom, how far versions move, how well they foretell."""

from datetime import UTC, datetime
from html import escape
from math import cos, pi, sin
from typing import Any, NamedTuple

import torch

from learner.graph.edges import Edges, degrees, edges, linked
from learner.graph.evaluation import BUCKETS
from stream.charts import COLOURS, Chart, blank, short
from stream.snapshot import Snapshot
from stream.versions import Versions

ONE_WAY, BOTH_WAYS = COLOURS[4], COLOURS[0]
AROUND = 12  # products around the one in the middle
MARGIN = 14  # between an arrow and its product, px
NAMES = tuple(f"in-degree {some}" for some in ("0-1", "2-10", "11-100", f"above {BUCKETS[-1]}"))


class Arrow(NamedTuple):
    """From product u to v, by their numbers; both ways or one way only."""

    u: int
    v: int
    weight: float
    both: bool


def neighbourhood(told: Versions) -> Chart:
    """The product with the most co-purchases, those it is bought with most, and all arrows between them."""
    reading = (
        "An arrow leads from what was bought first to what was bought after; the wider, the more often and the more "
        "lately. On the right is what follows the product in the middle, on the left what leads to it."
    )
    taken = told.newest
    if taken is None or not taken.bought.shape[1]:
        return Chart("What is bought after what", reading, None, "no version was learned from pairs of products")
    given = edges(len(taken.ids), taken.bought, taken.weight)
    out, into = degrees(given)
    middle = int((out + into).argmax())
    around = _around(given, middle)
    figure = blank("", "")
    places = {middle: (0.0, 0.0)} | {item: _on_circle(n, len(around)) for n, item in enumerate(around)}
    arrows = _arrows(given, list(places))
    heaviest = max(arrow.weight for arrow in arrows)
    drawn = [_drawn(arrow, places, middle, 1 + 4 * arrow.weight / heaviest) for arrow in arrows]
    name = escape(short(taken.ids[middle]))
    label = {"x": 0, "y": 0, "yshift": 24, "text": name, "showarrow": False, "bgcolor": "rgba(255,255,255,0.8)"}
    figure.update_layout(annotations=[*drawn, label], height=480, margin={"b": 10})
    for name, colour in (("one way only", ONE_WAY), ("both ways", BOTH_WAYS)):
        figure.add_scatter(x=[None], y=[None], mode="lines", name=name, line={"color": colour, "width": 3})
    figure.add_scatter(**_products(taken, places, out.tolist(), into.tolist()))
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(visible=False, range=[-1.3, 1.3])
    follow, lead = int(given.ptr.diff()[middle]), int(given.in_ptr.diff()[middle])
    title = f"{taken.ids[middle]} has the most co-purchases: {follow} products follow it, {lead} lead to it"
    return Chart(title, reading, figure)


def _around(given: Edges, middle: int) -> list[int]:
    """The heaviest neighbours, those that follow it most first and those that lead to it most last."""
    weights: dict[int, list[float]] = {}
    sides = (given.source == middle, given.target), (given.target == middle, given.source)
    for n, (some, ends) in enumerate(sides):
        for item, weight in zip(ends[some].tolist(), given.weight[some].tolist(), strict=True):
            weights.setdefault(item, [0.0, 0.0])[n] += weight
    heaviest = sorted(weights, key=lambda item: (-sum(weights[item]), item))[:AROUND]
    return sorted(heaviest, key=lambda item: ((weights[item][1] - weights[item][0]) / sum(weights[item]), item))


def _on_circle(n: int, count: int) -> tuple[float, float]:
    """The first is on the right, and then up and down in turn, to the last on the left."""
    angle = (n + 1) // 2 * (1 if n % 2 else -1) * 2 * pi / count
    return cos(angle), sin(angle)


def _arrows(given: Edges, shown: list[int]) -> list[Arrow]:
    """The edges between these products; of two that are each other's reversal the sum, once."""
    there = torch.zeros(given.nodes, dtype=torch.bool).index_fill_(0, torch.tensor(shown), True)
    some = there[given.source] & there[given.target]
    u, v, weight = given.source[some], given.target[some], given.weight[some]
    both = linked(given, v, u).tolist()
    ends = list(zip(u.tolist(), v.tolist(), strict=True))
    mass = dict(zip(ends, weight.tolist(), strict=True))
    return [
        Arrow(a, b, mass[a, b] + (mass[b, a] if two else 0.0), two)
        for (a, b), two in zip(ends, both, strict=True)
        if not two or a < b
    ]


def _drawn(arrow: Arrow, places: dict[int, tuple[float, float]], middle: int, width: float) -> dict[str, Any]:
    """As plotly's annotation; those that do not touch the middle are paler."""
    (ax, ay), (x, y) = places[arrow.u], places[arrow.v]
    return {
        "x": x, "y": y, "ax": ax, "ay": ay, "xref": "x", "yref": "y", "axref": "x", "ayref": "y", "text": "",
        "showarrow": True, "arrowhead": 2, "startarrowhead": 2, "arrowside": "end+start" if arrow.both else "end",
        "arrowsize": 0.8, "startarrowsize": 0.8, "arrowwidth": width, "standoff": MARGIN, "startstandoff": MARGIN,
        "arrowcolor": BOTH_WAYS if arrow.both else ONE_WAY, "opacity": 0.9 if middle in (arrow.u, arrow.v) else 0.3,
    }  # fmt: skip


def _products(
    taken: Snapshot, places: dict[int, tuple[float, float]], out: list[float], into: list[float]
) -> dict[str, Any]:
    names = [escape(short(taken.ids[item])) for item in places]
    return {
        "x": [x for x, _ in places.values()],
        "y": [y for _, y in places.values()],
        "text": ["", *names[1:]],
        "hovertext": [f"{escape(taken.ids[n])}: leads {out[n]:.1f}, is led to {into[n]:.1f}" for n in places],
        "hoverinfo": "text",
        "mode": "markers+text",
        "textposition": ["bottom center" if y < 0 else "top center" for _, y in places.values()],
        "marker": {"size": [22, *[14] * (len(places) - 1)], "color": "#1b1f24"},
        "showlegend": False,
    }


def movement(told: Versions) -> Chart:
    """How far places moved from version to version, and how much of the top 10 stayed."""
    reading = (
        "Each version is turned to where the one before was; the residual is what then is left between them, as a share of "
        "their length. The overlap is the share of a product's top 10 that was there before. A cross begins a new space."
    )
    moved = [one for one in told.served if one.metrics.get("residual") is not None]
    if not moved:
        return Chart("How far versions move", reading, None, "no version came after another")
    figure = blank("midnight of the version", "share")
    at, text = [_day(one.until) for one in moved], [f"version {one.number}" for one in moved]
    for place, (name, key) in enumerate((("residual", "residual"), ("overlap of the top 10", "overlap"))):
        marks = ["x" if one.space == one.number else "circle" for one in moved]
        line = {"mode": "lines+markers", "line_color": COLOURS[place], "marker_symbol": marks, "marker_size": 9}
        figure.add_scatter(x=at, y=[one.metrics[key] for one in moved], name=name, text=text, **line)
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%")
    kept = [one.metrics["overlap"] for one in moved if one.metrics["overlap"] is not None]
    title = (
        f"From version to version {sum(kept) / len(kept):.0%} of the top 10 stays" if kept else "How far versions move"
    )
    return Chart(title, reading, figure)


def foresight(told: Versions) -> Chart:
    """HR@10 of each version at the edges that came after it, by the in-degree of the query, beside popularity."""
    reading = (
        "Pairs that were new when the next version was learned: is the second among the ten that the version names first, "
        "of all products? By how many lead to the first. Dashed: the ten products that are bought with most."
    )
    known = [one for one in told.intervals if one.warm]
    if not known:
        return Chart(
            "How well a version foretells what comes after it", reading, None, "no new pair came after a version"
        )
    figure = blank("midnight up to which pairs are new", "HR@10")
    at = [_day(one.until) for one in known]
    for bucket, name in enumerate(NAMES):
        if not any(one.asked[bucket] for one in known):
            continue
        for way, dash in (("", "solid"), ("popularity", "dash")):
            hits = [one.by_degree[way or f"version {one.version}"][bucket] for one in known]
            text = [f"version {one.version}, {one.asked[bucket]:,} pairs" for one in known]
            line = {
                "mode": "lines+markers",
                "line": {"dash": dash, "color": COLOURS[bucket]},
                "legendgroup": name,
                "showlegend": not way,
            }
            figure.add_scatter(x=at, y=hits, name=f"{name}, {way}" if way else name, text=text, **line)
    figure.update_yaxes(rangemode="tozero")
    pairs = sum(one.warm for one in known)
    own, popular = (
        sum(one.warm * one.figures[way or f"version {one.version}"].hits for one in known) / pairs
        for way in ("", "popularity")
    )
    return Chart(f"Of new pairs {own:.1%} were foretold, by popularity {popular:.1%}", reading, figure)


def _day(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
