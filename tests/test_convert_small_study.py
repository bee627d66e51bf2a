"""Complete Journey study data into a log: a study of three households and six products, with every result by hand."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelstore.events import ADAPTER, Conversion, Impression, Item, Signal

pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'belated[demo]'")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'belated[demo]'")

from stream.convert.completejourney import Target, convert  # noqa: E402  # it needs pandas
from stream.convert.log import Summary  # noqa: E402

DAY = 86_400_000
RANK = {"item": 0, "impression": 1, "signal": 2, "conversion": 3}
MARCH = pd.Timestamp("2017-03-01")
LINES = [  # household, basket, product, sales, days after the start
    (1, 100, 11, 2.0, -5.0),
    (1, 101, 13, 1.0, 3.0),  # another milk
    (1, 102, 11, 1.5, 4.0),
    (1, 102, 12, 2.5, 4.0),  # the same basket: one conversion of 4.00
    (1, 103, 11, 9.0, 5.0),  # not the first
    (2, 104, 13, 1.0, 9.5),
    (2, 104, 12, 3.0, 9.5),  # the last day counts; milk in the same basket is no signal
    (3, 105, 11, 1.0, 10.0),  # the campaign is over
    (3, 106, 16, 1.0, 2.0),  # has no type
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study of three households and six products. Campaign 1 lasts from March 1 to March 10, both included."""
    bought = pd.DataFrame(LINES, columns=["household_id", "basket_id", "product_id", "sales_value", "days"])
    bought["transaction_timestamp"] = MARCH + pd.to_timedelta(bought.pop("days"), unit="D")
    tables = {
        "transactions": bought,
        "campaigns": pd.DataFrame({"campaign_id": [1, 1, 1], "household_id": [3, 1, 2]}),
        "campaign_descriptions": pd.DataFrame(
            {"campaign_id": [1], "campaign_type": ["Type B"], "start_date": [MARCH], "end_date": ["2017-03-10"]}
        ).astype({"end_date": "datetime64[ns]"}),
        "coupons": pd.DataFrame(
            [(7, 11, 1), (7, 12, 1), (7, 12, 1), (8, 16, 1), *((9, n, 1) for n in range(1_000, 1_201))],
            columns=["coupon_upc", "product_id", "campaign_id"],
        ),
        "coupon_redemptions": pd.DataFrame(
            {"household_id": [1, 2], "coupon_upc": [7, 9], "campaign_id": 1, "redemption_date": "2017-03-04"}
        ).astype({"redemption_date": "datetime64[ns]"}),
        "products": pd.DataFrame(
            [(n, 5, "GROCERY", "National", "DAIRY", None if n == 16 else "MILK") for n in range(11, 17)],
            columns=["product_id", "manufacturer_id", "department", "brand", "product_category", "product_type"],
        ),
        "demographics": pd.DataFrame({"household_id": [2], "age": ["65+"], "home_ownership": [None]}),
    }
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def log_of(src: Path, target: Target = "purchase", baskets: bool = False) -> tuple[Summary, list[Any]]:
    """Convert; every line is a valid event without unknown fields."""
    dst = src.parent / "log"
    summary = convert(src, dst, target=target, baskets=baskets, advance=lambda done, total: None)
    events = [ADAPTER.validate_json(line) for line in (dst / "events/0.jsonl").read_bytes().splitlines()]
    assert not any(event.model_extra for event in events)
    return summary, events


def days(events: list[Any]) -> Iterator[tuple[str, str, float]]:
    """(impression, item, days after the start) of signals or conversions."""
    for event in events:
        yield event.impression_id, event.item_id, (event.at - 1_488_326_400_000) / DAY


def test_first_purchases_by_hand(small: Path) -> None:
    """The first basket converts, with its products of the coupon summed; the last day is in, the day after is not."""
    summary, events = log_of(small)
    conversions = [event for event in events if isinstance(event, Conversion)]
    assert list(days(conversions)) == [("1.8.3", "16", 2.0), ("1.7.1", "12", 4.0), ("1.7.2", "12", 9.5)]
    assert [(event.value, event.basket_id) for event in conversions] == [(1.0, "106"), (4.0, "102"), (3.0, "104")]
    signals = [event for event in events if isinstance(event, Signal)]
    assert list(days(signals)) == [("1.7.1", "13", 3.0)]
    assert summary.events == {"impression": 6, "signal": 1, "conversion": 3}
    assert summary.refused == {
        "product of a coupon of more than 200 products": 201,
        "product of a coupon, listed twice": 1,
    }


def test_features_by_hand(small: Path) -> None:
    """What household 1 bought five days before the start is in its features, and nothing of what came after."""
    _, events = log_of(small)
    offers = {event.impression_id: event for event in events if isinstance(event, Impression)}
    offer = offers["1.7.1"]
    assert (offer.user_id, offer.item_id, offer.context_item_id) == ("1", "11", "11")
    assert offer.features == {
        "coupon": "7",
        "campaign": "1",
        "campaign_type": "B",
        "campaign_days": 10,
        "products": 2,
        "departments": ["GROCERY"],
        "type": "MILK",
        "national": 1.0,
        "sold_28": 1,
        "household": "1",
        "spend_28": 2.0,
        "trips_28": 1,
        "redeemed": 0,
        **{"bought": 1, "bought_type": 1, "bought_dept": 1, "days_bought": 5.0, "days_type": 5.0},
    }
    other = offers["1.8.2"]
    assert other.context_item_id is None
    assert other.features["age"] == "65+"
    assert not {"home_ownership", "type", "days_bought", "days_type"} & set(other.features)


def test_redemptions_by_hand(small: Path) -> None:
    """A redemption is at the end of its day and takes no signal from that day; one of a large coupon is refused."""
    summary, events = log_of(small, target="redemption")
    [redeemed] = [event for event in events if isinstance(event, Conversion)]
    assert (redeemed.kind, redeemed.impression_id, redeemed.item_id) == ("redemption", "1.7.1", "11")
    assert redeemed.at == 1_488_326_400_000 + 4 * DAY - 1
    assert list(days([event for event in events if isinstance(event, Signal)])) == [("1.7.2", "13", 9.5)]
    assert summary.refused["redemption of a coupon of more than 200 products"] == 1


def test_baskets_by_hand(small: Path) -> None:
    """With baskets every line is a conversion of kind `basket`, and every product an item before everything else."""
    summary, events = log_of(small, baskets=True)
    items, lines = events[:6], [event for event in events if getattr(event, "kind", "") == "basket"]
    assert all(isinstance(item, Item) for item in items)
    assert items[5].features == {
        **{"department": "GROCERY", "brand": "National", "product_category": "DAIRY", "manufacturer": "5"}
    }
    assert len(lines) == 9
    assert (lines[0].event_id, lines[0].user_id, lines[0].value, lines[0].basket_id) == ("100.11", "1", 2.0, "100")
    assert summary.events == {"item": 6, "impression": 6, "signal": 1, "conversion": 12}
    rest = [(event.at, RANK[event.type]) for event in events]
    assert rest == sorted(rest), "a basket line before the first offer is before its items"


def test_without_pandas_the_remedy_is_named() -> None:
    """Where pandas is not installed, importing the converter says what to install."""
    code = "import sys; sys.modules['pandas'] = None; import stream.convert.completejourney"
    home = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: pandas, which reads the Complete Journey study data, is not installed")
    assert last.endswith("pip install 'belated[demo]'")
