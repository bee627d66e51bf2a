"""A simulated world as a log, with the truth beside it.

    DST/events/0.jsonl ...    partitions, each in the order of arrival
    DST/truth.csv.gz          impression_id, p (the known P(label = 1 | x)), label, delay_ms (empty without a purchase)
    DST/scenario.json         every knob

Arrival is apart from event time: a late record stands further down its partition, behind records that are younger. The log
appears under its names only when it is complete.
"""

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.drafts import Place, drafts
from stream.simulate.scenario import DAY, START, Scenario
from stream.simulate.world import DEVICES, SEGMENTS, Ints, World, simulate

TRUTH, SCENARIO = "truth.csv.gz", "scenario.json"


class Records(NamedTuple):
    """Lines of one type of event, with event time and the number of their impression."""

    at: Ints
    row: Ints
    lines: list[str]


def write(s: Scenario, dst: Path, told: Callable[[int, int], None] = lambda done, total: None) -> Counter[str]:
    """Write the log. Returns how many records of each kind it has.

    Args:
        told: hears of how many steps how many are done.

    Raises:
        FileExistsError: ``dst`` holds something already.
    """
    with drafts(dst) as place:
        return _write(s, place, told)


def _write(s: Scenario, place: Place, told: Callable[[int, int], None]) -> Counter[str]:
    steps = 4 + s.partitions
    told(0, steps)
    world = simulate(s)
    told(1, steps)
    records = _records(s, world)
    told(2, steps)
    lines = [line for kind in records.values() for line in kind.lines]
    counts = Counter({name: len(kind.lines) for name, kind in records.items()})
    at = np.concatenate([kind.at for kind in records.values()])
    row = np.concatenate([kind.row for kind in records.values()])
    mess = np.random.default_rng([s.seed, 4])
    arrival, chosen = _arrive(s, mess, at)
    counts["duplicates"] = len(chosen) - len(at)
    home = world.user[row[chosen]] % s.partitions
    order = np.lexsort((chosen, arrival))
    torn = mess.random(len(chosen)) < s.broken
    counts["broken"] = int(torn.sum())
    told(3, steps)
    knobs = s.model_dump(mode="json") | {"changes_at": s.changes_at}
    place(SCENARIO).write_text(json.dumps(knobs, indent=2) + "\n")
    _truth(place(TRUTH), world)
    for partition in range(s.partitions):
        mine = order[home[order] == partition]
        _partition(place(f"events/{partition}.jsonl"), lines, chosen[mine], torn[mine])
        told(4 + partition, steps)
    told(steps, steps)
    return counts


def _records(s: Scenario, w: World) -> dict[str, Records]:
    """What happened, as events by type; times within a partition need no order yet."""
    rows = np.arange(len(w.at))
    mess = np.random.default_rng([s.seed, 5])
    worth = np.round(w.price * mess.lognormal(0, 0.2, len(rows)), 2)
    bought, bought_at = np.flatnonzero(w.converts), w.at + w.delay
    again = bought[(mess.random(len(bought)) < s.again) & (w.retracted[bought] < 0)]
    again_at = bought_at[again] + mess.exponential(DAY, len(again)).astype(np.int64)
    back = np.flatnonzero(w.retracted >= 0)
    other = bought[mess.random(len(bought)) < s.restatements]
    conversions = _conversions(bought, bought_at[bought], worth[bought], "c") + _conversions(
        again, again_at, worth[again], "d"
    )
    retracted = (
        f'{{"type":"adjustment","event_id":"r{n}","at":{at},"conversion_id":"c{n}","action":"retract"}}'
        for n, at in zip(back.tolist(), (bought_at + w.retracted)[back].tolist(), strict=True)
    )
    restated = (
        f'{{"type":"adjustment","event_id":"s{n}","at":{at},"conversion_id":"c{n}","action":"restate","value":{value}}}'
        for n, at, value in zip(
            other.tolist(), (bought_at[other] + DAY).tolist(), np.round(worth[other] * 0.9, 2).tolist(), strict=True
        )
    )
    signals = {name: np.flatnonzero(ages >= 0) for name, ages in (("click", w.click), ("cart", w.cart))}
    return {
        "impressions": Records(w.at, rows, list(_impressions(w))),
        "signals": Records(
            np.concatenate([(w.at + w.click)[signals["click"]], (w.at + w.cart)[signals["cart"]]]),
            np.concatenate([signals["click"], signals["cart"]]),
            [*_signals("click", signals["click"], w.at + w.click), *_signals("cart", signals["cart"], w.at + w.cart)],
        ),
        "conversions": Records(
            np.concatenate([bought_at[bought], again_at]), np.concatenate([bought, again]), conversions
        ),
        "adjustments": Records(
            np.concatenate([(bought_at + w.retracted)[back], bought_at[other] + DAY]),
            np.concatenate([back, other]),
            [*retracted, *restated],
        ),
    }


def _impressions(w: World) -> Iterable[str]:
    hour = (w.at - START) // 3_600_000 % 24
    columns = (w.at, w.user, w.item, w.category, w.campaign, w.device, w.segment, np.round(w.price, 2), hour)
    for n, (at, user, item, category, campaign, device, segment, price, h) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        yield (
            f'{{"type":"impression","impression_id":"i{n}","at":{at},"user_id":"u{user}","item_id":"p{item}","features":'
            f'{{"campaign":"k{campaign}","category":"g{category}","device":"{DEVICES[device]}","segment":"{SEGMENTS[segment]}",'
            f'"item":"p{item}","price":{price},"hour":"{h}"}}}}'
        )


def _signals(kind: str, rows: Ints, at: Ints) -> list[str]:
    return [
        f'{{"type":"signal","event_id":"{kind}{n}","kind":"{kind}","at":{time},"impression_id":"i{n}"}}'
        for n, time in zip(rows.tolist(), at[rows].tolist(), strict=True)
    ]


def _conversions(rows: Ints, at: Ints, worth: NDArray[np.float64], letter: str) -> list[str]:
    return [
        f'{{"type":"conversion","event_id":"{letter}{n}","kind":"purchase","at":{time},"impression_id":"i{n}","value":{value}}}'
        for n, time, value in zip(rows.tolist(), at.tolist(), worth.tolist(), strict=True)
    ]


def _arrive(s: Scenario, mess: np.random.Generator, at: Ints) -> tuple[Ints, Ints]:
    """When records arrive, and which: late ones later, some twice, those of an outage when it ends."""
    late = mess.random(len(at)) < s.late
    arrival = at + np.where(late, mess.exponential(s.late_by, len(at)), 0).astype(np.int64)
    twice = np.flatnonzero(mess.random(len(at)) < s.duplicates)
    chosen = np.concatenate([np.arange(len(at)), twice])
    arrival = np.concatenate([arrival, arrival[twice] + mess.integers(0, DAY // 24, len(twice))])
    out = (arrival >= s.changes_at - DAY - s.gap) & (arrival < s.changes_at - DAY)
    return np.where(out, s.changes_at - DAY, arrival), chosen


def _partition(file: Path, lines: list[str], chosen: Ints, torn: NDArray[np.bool_]) -> None:
    with file.open("w", encoding="utf-8", buffering=1 << 20) as out:
        for n, cut in zip(chosen.tolist(), torn.tolist(), strict=True):
            if cut:
                out.write(lines[n][:40] + "\n")
            out.write(lines[n] + "\n")


def _truth(file: Path, w: World) -> None:
    """Compressed without a time stamp: same world, same bytes."""
    delay = np.where(w.converts, w.delay, -1)
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as out,
    ):
        out.write("impression_id,p,label,delay_ms\n")
        out.writelines(
            f"i{n},{p:.9g},{int(label)},{h if h >= 0 else ''}\n"
            for n, (p, label, h) in enumerate(zip(w.p.tolist(), w.label.tolist(), delay.tolist(), strict=True))
        )
