"""Taobao UserBehavior into a log: real rows from the folder that BELATED_DATA names, and rows written by hand."""

import csv
import gzip
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from labelstore.events import ADAPTER, Conversion, Event, Impression, Signal, identity
from stream.convert.counts import Counts
from stream.convert.log import Summary
from stream.convert.taobao import convert

KINDS = {"cart": "cart", "fav": "favourite", "buy": "purchase"}
DEV = "taobao_dev_timesorted.csv.gz"
SLICE = "taobao_slice_20171126_0100_0255utc_raw.csv.gz"


def source(name: str) -> Path:
    """A file of the data folder, or a skip that says how to get it."""
    folder = os.environ.get("BELATED_DATA")
    if folder is None or not (file := Path(folder) / "events" / name).is_file():
        pytest.skip(f"set BELATED_DATA to the folder that holds events/{name}")
    return file


def run(src: Path, dst: Path) -> tuple[Summary, list[Event]]:
    """Convert; every line of the log is a valid event without unknown fields, and no id comes twice."""
    summary = convert(src, dst, advance=lambda done, total: None)
    events = [ADAPTER.validate_json(line) for line in (dst / "events/0.jsonl").read_bytes().splitlines()]
    assert not any(event.model_extra for event in events)
    assert len({identity(event) for event in events}) == len(events)
    return summary, events


def by_hand(folder: Path, rows: Sequence[str]) -> tuple[Summary, list[Event]]:
    """Convert rows written here."""
    (folder / "rows.csv").write_text("".join(row + "\n" for row in rows))
    return run(folder / "rows.csv", folder / "log")


def test_every_row_of_the_real_file_is_one_event_in_its_place(tmp_path: Path) -> None:
    """59,084 rows, 53,052 views, 3,253 carts, 1,541 favourites, 1,238 purchases: same order, times, users and items."""
    src = source(DEV)
    summary, events = run(src, tmp_path)
    with gzip.open(src, "rt") as file:
        rows = list(csv.DictReader(file))
    assert summary.rows == len(rows) == len(events) == 59_084
    assert summary.events == {"impression": 53_052, "signal": 3_253 + 1_541, "conversion": 1_238}
    assert not summary.refused
    for row, event in zip(rows, events, strict=True):
        assert event.at == int(row["ts"]) * 1000
        assert isinstance(event, Impression | Signal | Conversion)
        assert (event.user_id, event.item_id) == (row["user_id"], row["item_id"])
        assert getattr(event, "kind", None) == KINDS.get(row["behavior"])
    assert Counter(getattr(event, "kind", "view") for event in events)["favourite"] == 1_541


def test_the_counts_in_the_features_are_of_rows_before(tmp_path: Path) -> None:
    """For every 500th view of the real file, a count over the rows before it gives the same features."""
    src = source(DEV)
    _, events = run(src, tmp_path)
    with gzip.open(src, "rt") as file:
        rows = list(csv.DictReader(file))
    views = [place for place, event in enumerate(events) if isinstance(event, Impression)]
    for place in views[::500]:
        row, event = rows[place], events[place]
        assert isinstance(event, Impression)
        mine = [r for r in rows[:place] if r["user_id"] == row["user_id"]]
        seen = [r for r in mine if r["behavior"] == "pv"]
        assert event.features == {
            "user": row["user_id"],
            "item": row["item_id"],
            "category": row["category_id"],
            "hour": event.features["hour"],
            "weekday": event.features["weekday"],
            "views": len(seen),
            "views_item": sum(r["item_id"] == row["item_id"] for r in seen),
            "views_category": sum(r["category_id"] == row["category_id"] for r in seen),
            "carts": sum(r["behavior"] == "cart" for r in mine),
            "buys": sum(r["behavior"] == "buy" for r in mine),
        }


def test_the_raw_slice_has_no_header_and_a_last_line_that_is_cut_off(tmp_path: Path) -> None:
    """All rows of the raw slice are written in file order but the last, whose time is the beginning of a number."""
    summary, events = run(source(SLICE), tmp_path)
    assert summary.refused == {"ts is not in the years 2000 to 2099": 1}
    assert summary.rows == len(events) + 1 == 96_169
    assert "301780,543546,4181361,pv,15" in summary.notes[0]


def test_the_kinds_of_behaviour(tmp_path: Path) -> None:
    """pv is an impression; cart and fav are signals, buy is a conversion, by user and item and no impression."""
    summary, events = by_hand(tmp_path, [f"1,2,3,{kind},1511658000" for kind in ("pv", "cart", "fav", "buy")])
    view, cart, favourite, buy = events
    assert isinstance(view, Impression)
    assert view.impression_id == "1.2.1"
    assert isinstance(cart, Signal)
    assert isinstance(favourite, Signal)
    assert isinstance(buy, Conversion)
    assert [cart.kind, favourite.kind, buy.kind] == ["cart", "favourite", "purchase"]
    assert {cart.impression_id, favourite.impression_id, buy.impression_id} == {None}
    assert summary.events == {"impression": 1, "signal": 2, "conversion": 1}


def test_hour_and_weekday_are_of_china(tmp_path: Path) -> None:
    """2017-11-26 01:00 UTC, a Sunday, is 09:00 in China; 17:00 UTC is Monday there."""
    _, [morning, night] = by_hand(tmp_path, ["1,2,3,pv,1511658000", "1,2,3,pv,1511715600"])
    assert isinstance(morning, Impression)
    assert isinstance(night, Impression)
    assert (morning.features["hour"], morning.features["weekday"]) == ("9", "sun")
    assert (night.features["hour"], night.features["weekday"]) == ("1", "mon")


def test_malformed_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    """What is not an event is counted by what is wrong with it; rows = events + refused; a header is no row."""
    good = "1,2,3,pv,1511658000"
    bad = [
        "1,2,3,pv",
        good + ",x",
        "",
        "1,2,3,look,1511658000",
        "1,2,3,pv,soon",
        "1,2,3,pv,-5",
        "1,2,3,pv,5",
        "1,2,3,pv,1511658000000",
        ",2,3,pv,1511658000",
    ]
    summary, events = by_hand(tmp_path, ["user_id,item_id,category_id,behavior,ts", *bad, good])
    assert summary.refused == {
        "4 columns instead of 5": 1,
        "6 columns instead of 5": 1,
        "1 columns instead of 5": 1,
        "the behaviour is none of pv, cart, fav, buy": 1,
        "ts is not a whole number of seconds": 2,
        "ts is not in the years 2000 to 2099": 2,
        "an id is empty or longer than 60 characters": 1,
    }
    assert summary.rows == len(bad) + len(events) == 10
    assert len(summary.notes) == len(summary.refused)


def test_rows_that_go_back_in_time_are_written_and_noted(tmp_path: Path) -> None:
    """The order of the file is kept; the notes say how many rows are earlier than one before them."""
    summary, events = by_hand(tmp_path, ["1,2,3,pv,1511658000", "1,2,3,pv,1511657999"])
    assert [event.at for event in events] == [1_511_658_000_000, 1_511_657_999_000]
    assert summary.notes == ["1 rows are earlier than a row before them; sort the file by ts if many are"]


def test_counts_forget_what_came_longest_ago() -> None:
    """Memory is bounded: beyond the limit the key that came longest ago starts at 0 again."""
    counts = Counts(limit=2)
    assert [counts.add(key) for key in "ababcab"] == [0, 0, 1, 1, 0, 0, 0]
