"""Criteo Conversion Logs into a log. No real rows are at hand: these are written from the published format.

click time, conversion time, 8 integers, 9 hashed categories; tab separated, no header.
"""

from pathlib import Path

import numpy as np

from labelstore.events import ADAPTER, Conversion, Event, Impression, identity
from stream.convert.criteo import ORIGIN, convert
from stream.convert.log import Summary


def row(clicked: object, converted: object = "", numbers: str = "1 2 3 4 5 6 7 8", categories: str = "") -> str:
    """A row as published; `-` is an empty field."""
    fields = [str(clicked), str(converted), *numbers.split(), *(categories or "a b c d e f g h i").split()]
    return "\t".join("" if field == "-" else field for field in fields)


def run(folder: Path, lines: list[str]) -> tuple[Summary, list[Event]]:
    """Convert these rows; every line of the log is a valid event without unknown fields."""
    (folder / "data.txt").write_text("".join(line + "\n" for line in lines))
    summary = convert(folder / "data.txt", folder / "log", advance=lambda done, total: None)
    events = [ADAPTER.validate_json(line) for line in (folder / "log/events/0.jsonl").read_bytes().splitlines()]
    assert not any(event.model_extra for event in events)
    return summary, events


def test_a_click_is_an_impression_with_its_features(tmp_path: Path) -> None:
    """Numbers are n1 to n8, categories c1 to c9; negative numbers stay, empty features are left out."""
    _, [event] = run(tmp_path, [row(5, "", "-1 - 3 4 5 6 7 8", "a - c d e f g h i")])
    assert isinstance(event, Impression)
    assert event.impression_id == "click.1"
    assert event.at == ORIGIN + 5_000
    expected = {"n1": -1, "n3": 3, "n4": 4, "n5": 5, "n6": 6, "n7": 7, "n8": 8}
    assert event.features == expected | {f"c{i}": "abcdefghi"[i - 1] for i in (1, 3, 4, 5, 6, 7, 8, 9)}


def test_a_conversion_names_its_click_and_comes_in_its_own_time(tmp_path: Path) -> None:
    """A conversion waits until the clicks have reached its time, and follows a click of the same time."""
    summary, events = run(tmp_path, [row(0, 100), row(10, 20), row(20), row(30, 30), row(200, 900)])
    order = [identity(event) for event in events]
    assert order == [
        *("click.1", "click.2", "click.3", "conversion.2", "click.4", "conversion.4"),
        *("conversion.1", "click.5", "conversion.5"),
    ]
    assert all(c.kind == "purchase" for c in events if isinstance(c, Conversion))
    assert [(c.impression_id, c.at - ORIGIN) for c in events if isinstance(c, Conversion)] == [
        *(("click.2", 20_000), ("click.4", 30_000), ("click.1", 100_000), ("click.5", 900_000)),
    ]
    assert summary.events == {"impression": 5, "conversion": 4}


def test_a_long_log_is_in_order_of_time(tmp_path: Path) -> None:
    """With clicks sorted as published, no event of the log is earlier than one before it, and none is lost."""
    draw = np.random.default_rng(1)
    clicks = sorted(draw.integers(60 * 86_400, size=2_000).tolist())
    delays = [int(draw.exponential(86_400)) if draw.random() < 0.227 else None for _ in clicks]
    summary, events = run(tmp_path, [row(c, "" if d is None else c + d) for c, d in zip(clicks, delays, strict=True)])
    times = [event.at for event in events]
    assert times == sorted(times)
    assert summary.events == {"impression": 2_000, "conversion": sum(d is not None for d in delays)}
    assert not summary.notes


def test_a_click_that_goes_back_in_time_is_written_and_noted(tmp_path: Path) -> None:
    """A click earlier than one before it stays where it stands in the file; the notes count it."""
    summary, events = run(tmp_path, [row(10), row(5), row(10)])
    assert [event.at - ORIGIN for event in events] == [10_000, 5_000, 10_000]
    assert summary.notes == ["1 clicks are earlier than a click before them; they are written as they come"]


def test_malformed_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    """A row that cannot be a click is counted by what is wrong with it; the others are written."""
    bad = [row("x"), row(9, 5), row(-1), row(10**10), row(1, "", "1.5 2 3 4 5 6 7 8"), row(1) + "\tmore", ""]
    bad += [row(1, "", f"1 2 3 4 5 6 7 {10**30}"), row(1, "", categories="a b c d e f g h " + "i" * 1001)]
    summary, events = run(tmp_path, [*bad, row(7)])
    assert summary.refused == {
        "a time is not a whole number of seconds": 1,
        "the conversion is before the click": 1,
        "a time is not within a year of the first click": 2,
        "a number is not an integer": 1,
        "a number has more than 64 bits": 1,
        "a category is longer than 1,000 characters": 1,
        "20 columns instead of 19": 1,
        "1 columns instead of 19": 1,
    }
    assert summary.rows == len(bad) + len(events) == 10
    assert len(summary.notes) == len(summary.refused)
