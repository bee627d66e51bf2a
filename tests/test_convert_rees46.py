"""REES46 behaviour data into a log: real rows from the folder that BELATED_DATA names, and rows written by hand."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from converting import events, found, none
from labelstore.events import Conversion, Event, Impression, Item, Signal
from stream.convert.log import Summary
from stream.convert.rees46 import convert
from stream.sources import SourceError

HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
NOON = "2019-10-01 12:00:0{} UTC"


def row(second: int, kind: str, product: str = "7", session: str = "s", price: str = "9.50") -> str:
    """A row of user 1, at 12:00:0second."""
    return f"{NOON.format(second)},{kind},{product},20,shoes.kids,acme,{price},1,{session}"


def by_hand(folder: Path, rows: Sequence[str], header: str = HEADER) -> tuple[Summary, list[Event]]:
    """Convert rows written here."""
    (folder / "rows.csv").write_text("".join(line + "\n" for line in (header, *rows)))
    return convert(folder / "rows.csv", folder / "log", advance=none), events(folder / "log")


def test_every_row_of_the_real_file_is_accounted_for(data: Path, tmp_path: Path) -> None:
    """17,434 whole rows: first views of a session, views again, carts and purchases as plain counting finds them."""
    src = found(data, "rees46_2019oct01_slice_raw.csv.gz")
    summary = convert(src, tmp_path, advance=none)
    log = [event for event in events(tmp_path) if not isinstance(event, Item)]
    rows = [line.split(",") for line in gzip.decompress(src.read_bytes()).decode().split("\n")[1:-1]]
    views = [r for r in rows if r[1] == "view"]
    first = len({(r[7], r[8], r[2]) for r in views})
    assert [(event.user_id, event.item_id) for event in log] == [(r[7], r[2]) for r in rows]  # type: ignore[union-attr]
    assert (len(rows), len(views), first) == (17_434, 17_055, 12_294)
    assert summary.events == {
        "impression": first,
        "signal": len(views) - first + 165,
        "conversion": 214,
        "item": 6_493,
    }
    assert [event.at for event in log] == sorted(event.at for event in log)


def test_the_last_line_of_the_real_file_is_cut_off(data: Path, tmp_path: Path) -> None:
    """It is refused with a reason; rows are events but items, and refused."""
    summary = convert(found(data, "rees46_2019oct01_slice_raw.csv.gz"), tmp_path, advance=none)
    assert summary.refused == {"8 columns instead of 9": 1}
    assert summary.rows == summary.events.total() - summary.events["item"] + 1


def test_the_first_view_of_a_session_is_the_impression(tmp_path: Path) -> None:
    """The second view in a session is a signal; in another session it is an impression again."""
    _, log = by_hand(tmp_path, [row(0, "view"), row(1, "view"), row(2, "view", session="t"), row(3, "view", "8")])
    shown = [event for event in log if not isinstance(event, Item)]
    assert [event.type for event in shown] == ["impression", "signal", "impression", "impression"]
    again = shown[1]
    assert isinstance(again, Signal)
    assert (again.kind, again.session_id, again.impression_id) == ("view", "s", None)


def test_carts_are_signals_and_purchases_conversions(tmp_path: Path) -> None:
    """The value of a purchase is its price; a row without a session has none."""
    kinds = ("cart", "remove_from_cart", "purchase")
    _, [_, *log] = by_hand(tmp_path, [row(n, kind, session="") for n, kind in enumerate(kinds)])
    assert [event.kind for event in log if isinstance(event, Signal | Conversion)] == list(kinds)
    assert isinstance(log[2], Conversion)
    assert (log[2].value, log[2].session_id, log[2].basket_id) == (9.5, None, None)


def test_an_impression_has_the_metadata_and_the_counts_of_the_rows_before(tmp_path: Path) -> None:
    """Counts are of rows before; the department is the first part of the category's code."""
    _, log = by_hand(tmp_path, [row(0, "view"), row(1, "cart"), row(2, "view", session="t")])
    last = log[-1]
    assert isinstance(last, Impression)
    assert last.features == {
        **{"user": "1", "item": "7", "category": "20", "code": "shoes.kids", "department": "shoes", "brand": "acme"},
        **{"price": 9.5, "hour": "12", "weekday": "tue"},
        **{"views": 1, "views_item": 1, "views_category": 1, "carts": 1, "buys": 0},
    }


def test_an_item_is_written_where_there_is_news(tmp_path: Path) -> None:
    """A new price is metadata from its row on; a second change in the same second waits for the next row."""
    prices = [(0, "9"), (1, "9"), (2, "8"), (2, "7"), (3, "7")]
    _, log = by_hand(tmp_path, [row(second, "cart", price=price) for second, price in prices])
    assert [(e.at % 10_000, e.features["price"]) for e in log if isinstance(e, Item)] == [
        (0, 9),
        (2_000, 8),
        (3_000, 7),
    ]


def test_malformed_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    """Rows = events + refused."""
    bad = [
        "",
        "a,b",
        row(0, "look"),
        row(0, "view", price="x"),
        row(0, "view", ""),
        row(0, "view").replace("2019", "19"),
        row(0, "view") + '"a\rb"',
        row(0, "view").replace("view", "vi\0ew"),
    ]
    summary, log = by_hand(tmp_path, [*bad, row(0, "cart")])
    assert set(summary.refused) == {
        "an empty line",
        "cannot be read as CSV",
        "holds the character NUL, which no database keeps",
        "2 columns instead of 9",
        "the event_type is none of view, cart, remove_from_cart, purchase",
        "the price is not a number",
        "an id is empty or longer than 60 characters",
        "event_time is not a time of the years 2000 to 2099, such as 2019-10-01 00:00:00",
    }
    assert summary.rows == len(bad) + 1
    assert len(log) == 2


def test_another_file_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    """The error names the file, the columns that are missing and what to give; no log is left."""
    with pytest.raises(SourceError, match=r"rows\.csv: .* no column event_type, brand, .*REES46.*with its header"):
        by_hand(tmp_path, [], HEADER.replace("event_type", "kind").replace("brand", "make"))
    assert not list(tmp_path.rglob("*.jsonl*"))
