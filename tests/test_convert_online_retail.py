"""UCI Online Retail into a log: real rows from the folder that BELATED_DATA names, and rows written by hand."""

import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converting import events, found, none
from labelstore.events import Adjustment, Conversion, Event, Impression, Item
from stream.convert.cancelling import NEVER, TOO_MUCH, Correction, Purchases
from stream.convert.log import Summary
from stream.convert.online_retail import SERVICES, convert
from stream.sources import SourceError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
PART = 60_000  # rows of the real file that are converted here; the whole takes a while


def row(invoice: str, day: int, quantity: int = 6, code: str = "85123A", customer: str = "7.0") -> str:
    """A line at 2.50, at noon of a day of December 2010."""
    return f'{invoice},{code},"HOLDER, WHITE",{quantity},2010-12-{day:02} 12:00:00,2.5,{customer},France'


def by_hand(folder: Path, rows: Sequence[str], header: str = HEADER) -> tuple[Summary, list[Event]]:
    """Convert rows written here."""
    (folder / "rows.csv").write_text("".join(line + "\n" for line in (header, *rows)))
    return convert(folder / "rows.csv", folder / "log", advance=none), events(folder / "log")


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Summary, list[Event], list[dict[str, str]]]:
    """The first PART real rows: what was said, the log, the rows."""
    folder = tmp_path_factory.mktemp("retail")
    with gzip.open(found(data, "online_retail_uci_all_days.csv.gz"), "rt", newline="") as file:
        texts = list(islice(file, PART + 1))
    (folder / "rows.csv").write_text("".join(texts))
    summary = convert(folder / "rows.csv", folder / "log", advance=none)
    return summary, events(folder / "log"), list(csv.DictReader(texts))


def test_every_real_row_is_accounted_for(part: tuple[Summary, list[Event], list[dict[str, str]]]) -> None:
    """Conversions are the purchases of known customers; cancellations found their purchase or are refused."""
    summary, log, rows = part
    known = [r for r in rows if r["CustomerID"] and r["StockCode"] not in SERVICES]
    bought = [r for r in known if not r["InvoiceNo"].startswith("C")]
    lost = summary.refused[NEVER] + summary.refused[TOO_MUCH]
    cancelled = {e.event_id.rpartition(".")[0] for e in log if isinstance(e, Adjustment)}
    assert summary.refused["no customer"] == sum(not r["CustomerID"] for r in rows)
    assert summary.events["conversion"] == len(bought)
    assert len(cancelled) + lost == len(known) - len(bought)
    assert summary.rows == PART == len(bought) + len(cancelled) + summary.refused.total()
    assert len(cancelled) == 496
    assert summary.notes[-1] == f"{len(cancelled):,} cancellations found their purchase: those are the adjustments"


def test_reorders_are_the_conversions(part: tuple[Summary, list[Event], list[dict[str, str]]]) -> None:
    """A purchase names an earlier impression of its customer and product; who had never bought it, none."""
    _, log, _ = part
    shown = {e.impression_id: e for e in log if isinstance(e, Impression)}
    bought: set[tuple[str | None, str | None]] = set()
    for event in log:
        if isinstance(event, Conversion) and event.kind == "purchase":
            before = shown[event.impression_id or ""]
            assert (before.user_id, before.item_id) == (event.user_id, event.item_id) in bought
            assert before.at < event.at
        elif isinstance(event, Conversion):
            assert event.impression_id is None
            bought.add((event.user_id, event.item_id))


def test_real_cancellations_take_back_what_their_customer_bought_before(
    part: tuple[Summary, list[Event], list[dict[str, str]]],
) -> None:
    """Same customer and product, not after it, nothing twice; whole purchases only within the cancelled quantity."""
    _, log, rows = part
    bought = {e.event_id: e for e in log if isinstance(e, Conversion)}
    gone = Counter(e.conversion_id for e in log if isinstance(e, Adjustment) and e.action == "retract")
    assert set(gone.values()) == {1}
    partly: set[str] = set()
    for event in log:
        if isinstance(event, Adjustment):
            number, _, code, _ = event.event_id.split(".")
            told, purchase = rows[int(number) - 1], bought[event.conversion_id]
            assert (purchase.user_id, purchase.item_id) == (told["CustomerID"].removesuffix(".0"), code)
            assert purchase.at <= event.at
            units = int(rows[int(purchase.event_id.split(".")[2]) - 1]["Quantity"])
            if event.action == "restate":
                partly.add(event.conversion_id)
            assert event.conversion_id in partly or units <= -int(told["Quantity"])


def test_a_product_bought_again_is_a_conversion_of_the_time_before(tmp_path: Path) -> None:
    """The first purchase is nobody's label; the lines of one order and product are one impression."""
    lines = [row("1", 1), row("1", 1, 3), row("2", 5), row("2", 5, 3), row("3", 5), row("4", 9, customer="8")]
    _, log = by_hand(tmp_path, lines)
    assert [e.impression_id for e in log if isinstance(e, Impression)] == ["7.85123A.1", "7.85123A.3", "8.85123A.6"]
    told = [(e.kind, e.impression_id, e.basket_id, e.value) for e in log if isinstance(e, Conversion)]
    assert told == [
        ("first_purchase", None, "1", 15),
        ("first_purchase", None, "1", 7.5),
        *(("purchase", "7.85123A.1", *rest) for rest in (("2", 15), ("2", 7.5), ("3", 15))),
        ("first_purchase", None, "4", 15),
    ]


def test_features_are_of_the_rows_before(tmp_path: Path) -> None:
    """Counts, and the days since the customer's last order of the product; the description is an item's."""
    _, log = by_hand(tmp_path, [row("1", 1), row("2", 2, customer="8"), row("3", 4)])
    last = next(e for e in reversed(log) if isinstance(e, Impression))
    assert last.features == {
        **{"user": "7", "item": "85123A", "country": "France", "price": 2.5, "quantity": 6},
        **{"hour": "12", "weekday": "sat", "lines": 1, "bought": 1, "sold": 2, "gap": 3},
    }
    assert [e.features for e in log if isinstance(e, Item)] == [{"description": "HOLDER, WHITE"}]


def test_a_cancellation_is_an_adjustment(tmp_path: Path) -> None:
    """All of a purchase is a retraction, a part of it a restatement; what was never bought is refused."""
    lines = [row("1", 1), row("2", 2), row("C3", 3, -2), row("C4", 4, -6), row("C5", 5, -5), row("C6", 6, -1, "22")]
    summary, log = by_hand(tmp_path, lines)
    told = [(e.conversion_id, e.action, e.value) for e in log if isinstance(e, Adjustment)]
    assert told == [("2.85123A.2", "restate", 10), ("1.85123A.1", "retract", None)]
    assert summary.refused == {TOO_MUCH: 1, NEVER: 1}
    assert summary.rows == 2 + 2 + summary.refused.total()


def test_of_two_cancellations_in_one_minute_the_last_row_counts(tmp_path: Path) -> None:
    """However many digits its number has: 6 bought, 2 and then 3 taken back; 1 of them is left."""
    others = [row(str(n), 1, customer="8") for n in range(2, 9)]
    _, log = by_hand(tmp_path, [row("1", 1), *others, row("C9", 2, -2), row("C9", 2, -3)])
    told = sorted((e.at, e.event_id, e.value) for e in log if isinstance(e, Adjustment))
    assert [value for *_, value in told] == [10, 2.5]


def test_the_rule_of_cancelling() -> None:
    """The exact quantity first, the latest of them; else the latest purchases one after the other."""
    bought = Purchases()
    for name, quantity in [("a", 6), ("b", 6), ("c", 4), ("d", 2)]:
        bought.add("u", "i", name, quantity, 1.5)
    assert bought.cancel("u", "i", 6) == [Correction("b", None)]
    assert bought.cancel("u", "i", 5) == [Correction("d", None), Correction("c", 1.5)]
    assert bought.cancel("u", "i", 8) == TOO_MUCH
    assert bought.cancel("u", "i", 7) == [Correction("c", None), Correction("a", None)]
    assert bought.cancel("u", "i", 1) == bought.cancel("v", "i", 1) == NEVER


@given(st.lists(st.integers(1, 9), max_size=6), st.lists(st.integers(1, 9), max_size=6))
def test_units_are_kept(quantities: list[int], cancelled: list[int]) -> None:
    """Units bought = units left, as retractions and restatements say, + units of the cancellations that matched."""
    bought, left = Purchases(), dict(enumerate(map(float, quantities)))
    for place, quantity in enumerate(quantities):
        bought.add("u", "i", str(place), quantity, 1.0)
    matched = 0
    for quantity in cancelled:
        found = bought.cancel("u", "i", quantity)
        if not isinstance(found, str):
            matched += quantity
            left |= {int(one.conversion): one.value or 0.0 for one in found}
    assert sum(quantities) == sum(left.values()) + matched


def test_malformed_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    """Rows = conversions + matched cancellations + refused."""
    bad = [
        row("1", 1, customer=""),
        row("1", 1, code="POST"),
        row("1", 1, -2),
        row("C1", 1, 2),
        row("1", 1).replace(":00,2.5", ":00,-2.5"),
        row("1", 1).replace(":00,2.5", ":00,x"),
        row("1", 1, 10**10).replace(":00,2.5", ":00,1e308"),
        row("1", 1).replace("2010-12-01", "12/1/2010"),
        row("1", 1, code=""),
    ]
    summary, log = by_hand(tmp_path, [*bad, row("1", 1)])
    assert summary.refused == {
        "no customer": 1,
        "not a product, but postage, a fee, a discount or a manual entry": 1,
        "the quantity is 0, or its sign does not go with the kind of invoice": 2,
        "the price is below 0": 1,
        "Quantity or UnitPrice is not a number": 2,
        "InvoiceDate is not a time of the years 2000 to 2099, such as 2019-10-01 00:00:00": 1,
        "an id is empty or longer than 60 characters": 1,
    }
    assert summary.rows == len(bad) + 1
    assert summary.events == {"impression": 1, "conversion": 1, "item": 1}
    assert len(log) == 3


def test_another_file_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    """The error names the file, the column that is missing and what to give."""
    with pytest.raises(SourceError, match=r"rows\.csv: .* no column CustomerID,.*UCI Online Retail.*with its header"):
        by_hand(tmp_path, [], HEADER.replace("CustomerID", "Customer ID"))
