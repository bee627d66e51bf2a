"""OTTO sessions into a log: real sessions from the folder that BELATED_DATA names, and sessions written by hand."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from command_line import belated
from converting import events, found, none
from labelstore.events import Conversion, Event, Impression, Signal
from stream.convert.log import Summary
from stream.convert.otto import convert
from stream.sources import SourceError

T0 = 1_659_304_800_000  # ms; midnight in Germany, a Monday


def session(number: int, *steps: tuple[int, int, str]) -> dict[str, Any]:
    """A session of (product, ms after T0, type)."""
    return {"session": number, "events": [{"aid": aid, "ts": T0 + at, "type": kind} for aid, at, kind in steps]}


def by_hand(folder: Path, *lines: object) -> tuple[Summary, list[Event]]:
    """Convert these lines: texts as they are, others as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "rows.jsonl").write_text("".join(text + "\n" for text in texts))
    return convert(folder / "rows.jsonl", folder / "log", advance=none), events(folder / "log")


def test_every_event_of_the_real_sessions_is_one_of_the_log(data: Path, tmp_path: Path) -> None:
    """862 events of 20 sessions: 525 first clicks, 275 clicks again, 52 carts, 10 orders; in order of time."""
    src = found(data, "otto_20sessions.jsonl")
    summary = convert(src, tmp_path, advance=none)
    log = events(tmp_path)
    sessions = [json.loads(line) for line in src.read_text().splitlines()]
    told = sorted((e["ts"], str(s["session"]), str(e["aid"])) for s in sessions for e in s["events"])
    assert sorted((e.at, e.user_id, e.item_id) for e in log if isinstance(e, Impression | Signal | Conversion)) == told
    assert [event.at for event in log] == [at for at, _, _ in told]
    assert Counter(getattr(e, "kind", "first") for e in log) == {"first": 525, "click": 275, "cart": 52, "purchase": 10}
    assert summary.rows == len(log) == 862
    assert not summary.refused


def test_the_real_sessions_are_learned_from_the_command_line(data: Path, tmp_path: Path) -> None:
    """convert, then backtest: all 862 events are read, nothing is late, and rows are judged."""
    assert belated("convert", "otto", found(data, "otto_20sessions.jsonl"), tmp_path / "log").returncode == 0
    done = belated("backtest", tmp_path / "log", "--window", "7d", "--wait", "1h", "--methods", "settled,pq")
    assert done.returncode == 0, done.stderr
    assert "settled: 389 rows, 5 of them converted" in done.stdout
    assert "read: 862 records = 525 impressions, 327 signals, 10 conversions" in done.stdout


def test_the_first_click_of_a_session_is_the_impression(tmp_path: Path) -> None:
    """A second click on it is a signal; another session's first click is an impression of its own."""
    one = session(1, (5, 0, "clicks"), (6, 10, "clicks"), (5, 20, "clicks"), (5, 30, "carts"))
    _, log = by_hand(tmp_path, one, session(2, (5, 15, "clicks")))
    assert [(e.type, e.at - T0) for e in log] == [
        *(("impression", 0), ("impression", 10), ("impression", 15), ("signal", 20), ("signal", 30)),
    ]
    assert isinstance(log[1], Impression)
    assert (log[1].user_id, log[1].context_item_id) == ("1", "5")


def test_orders_of_one_moment_are_a_basket(tmp_path: Path) -> None:
    """They share the basket id; a later order has another."""
    _, log = by_hand(tmp_path, session(3, (5, 0, "orders"), (6, 0, "orders"), (7, 1, "orders")))
    baskets = [e.basket_id for e in log if isinstance(e, Conversion) and e.kind == "purchase"]
    assert baskets == [f"3.{T0}", f"3.{T0}", f"3.{T0 + 1}"]


def test_features_are_of_the_events_before(tmp_path: Path) -> None:
    """What the session did before the click, and the hour in Germany."""
    steps = (5, 0, "clicks"), (5, 1, "clicks"), (5, 2, "carts"), (5, 3, "orders"), (6, 90_003, "clicks")
    _, log = by_hand(tmp_path, session(1, *steps))
    assert isinstance(log[-1], Impression)
    assert log[-1].features == {
        **{"item": "6", "hour": "0", "weekday": "mon", "clicks": 2, "products": 1, "carts": 1, "buys": 1},
        "minutes": 1.5,
    }


def test_what_is_no_event_is_refused_with_a_reason(tmp_path: Path) -> None:
    """Rows are events of sessions and lines without any: those of the log + refused."""
    bad = session(1, (5, 0, "clicks"), (5, 1, "looks"), (5, -T0, "clicks"), (-1, 1, "clicks"))
    bad["events"] += [{"aid": 5}, {"aid": 5, "ts": T0, "type": ["clicks"]}]
    summary, log = by_hand(tmp_path, bad, "{", session(2), {"session": True, "events": [1]})
    assert summary.refused == {
        "the type is none of clicks, carts, orders": 2,
        "ts is not a time in ms in the years 2000 to 2099": 1,
        "aid is not a whole number": 1,
        "an event without aid, ts and type": 1,
        "a line without a session and its events": 3,
    }
    assert summary.rows == len(log) + summary.refused.total() == 9


def test_a_session_that_comes_twice_is_written_twice(tmp_path: Path) -> None:
    """Two lines of one session with an event at one moment and place: nothing is compared that cannot be."""
    summary, log = by_hand(tmp_path, session(1, (5, 0, "clicks")), session(1, (6, 0, "clicks")))
    assert (summary.events["impression"], len(log)) == (2, 2)


def test_sessions_that_start_too_early_are_noted(tmp_path: Path) -> None:
    """Nothing is lost; the note says how many and what to do."""
    summary, log = by_hand(tmp_path, session(1, (5, 9, "clicks")), session(2, (5, 0, "clicks"), (5, 1, "carts")))
    assert len(log) == 3
    assert summary.notes == ["1 sessions start before one before them; sort the lines by first ts"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    """The error names the file and what to give."""
    with pytest.raises(SourceError, match=r"rows\.jsonl: its first line is no session.*OTTO.*give its \.jsonl"):
        by_hand(tmp_path, "user_id,item_id")
