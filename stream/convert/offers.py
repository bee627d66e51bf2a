"""The offers of a campaign of the Complete Journey study data, with features known strictly before its start.

    household  household, spend_28, trips_28 (last 28 days), redeemed (coupons so far), demographics of one in three
    coupon     coupon, campaign, campaign_type, campaign_days, type (main product type), departments, products (how
               many), national (share of national brands), sold_28 (lines of its products in 28 days, all households)
    both       bought, bought_type, bought_dept: the household's lines so far of the coupon's products, of their
               types (and the products), of their departments; days_bought, days_type: days since the last of them

Lines and redemptions count when at < start. What is not known is left out: days since a purchase that never was, types
that the products table lacks, and all of the history for the campaigns that started before the data.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stream.convert.journey import DAY, UNKNOWN, Campaign, Journey

RECENT = 28 * DAY
NEVER = -1
Features = dict[str, str | int | float | list[str]]


class Party(NamedTuple):
    """A household at the campaign's start: the product of its last purchase, and its features."""

    id: int
    context: int | None
    features: Features


class Coupon(NamedTuple):
    """A coupon at the campaign's start: its best seller, its features, and what it is about, as sorted codes."""

    id: int
    item: int
    features: Features
    products: NDArray[np.int64]
    types: NDArray[np.int64]
    departments: NDArray[np.int64]


class Tally(NamedTuple):
    """Lines of each household and code before the start. ``codes`` [C] sorted; ``number``, ``last`` (ms) [H, C]."""

    codes: NDArray[np.int64]
    number: NDArray[np.int32]
    last: NDArray[np.int64]

    def of(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lines of the wanted codes together, and the time of the last one or NEVER; both [H]."""
        columns = np.searchsorted(self.codes, wanted)
        return self.number[:, columns].sum(axis=1), self.last[:, columns].max(axis=1, initial=NEVER)


def history(journey: Journey, campaign: Campaign) -> pd.DataFrame:
    """All basket lines before the campaign's start."""
    return journey.between(0, campaign.start)


def coupons(journey: Journey, campaign: Campaign) -> list[Coupon]:
    """The campaign's coupons. The best seller is the product with most lines, of several the one of smallest id."""
    past = history(journey, campaign)
    sold = past["product_id"].value_counts()
    recent = past.loc[past["at"] >= campaign.start - RECENT, "product_id"].value_counts()
    own = journey.coupons[journey.coupons["campaign_id"] == campaign.id]
    found = []
    for upc, products in own.groupby("coupon_upc")["product_id"]:
        ids = np.sort(products.to_numpy(np.int64))
        known = journey.products.reindex(ids)
        features: Features = {
            "coupon": str(upc),
            "campaign": str(campaign.id),
            "campaign_type": campaign.type,
            "campaign_days": (campaign.end - campaign.start) // DAY,
            "products": len(ids),
            "departments": sorted(known["department"].dropna().unique().tolist()),
        }
        if known["product_type"].notna().any():
            features["type"] = str(known["product_type"].mode()[0])
        if known["brand"].notna().any():
            features["national"] = round(float((known["brand"].dropna() == "National").mean()), 2)
        if len(past):
            features["sold_28"] = int(recent.reindex(ids, fill_value=0).sum())
        item = int(ids[sold.reindex(ids, fill_value=0).to_numpy().argmax()])
        found.append(Coupon(int(str(upc)), item, features, ids, _codes(known["type"]), _codes(known["dept"])))
    return found


def parties(journey: Journey, campaign: Campaign) -> list[Party]:
    """The campaign's households. The context is the last basket's dearest line, of several the one of smallest id."""
    past = history(journey, campaign)
    order = past.sort_values(["at", "basket_id", "sales_value", "product_id"], ascending=[True, True, True, False])
    context = order.drop_duplicates("household_id", keep="last").set_index("household_id")["product_id"].to_dict()
    recent = past[past["at"] >= campaign.start - RECENT].groupby("household_id")
    spend, trips = recent["sales_value"].sum().to_dict(), recent["basket_id"].nunique().to_dict()
    before = journey.redemptions["at"] < campaign.start
    redeemed = journey.redemptions.loc[before, "household_id"].value_counts().to_dict()
    about = _demographics(journey)
    found = []
    for household in journey.households(campaign.id).tolist():
        features: Features = {"household": str(household)}
        if len(past):
            features["spend_28"] = round(float(spend.get(household, 0.0)), 2)
            features["trips_28"] = int(trips.get(household, 0))
            features["redeemed"] = int(redeemed.get(household, 0))
        found.append(Party(household, context.get(household), features | about.get(household, {})))
    return found


def interests(journey: Journey, campaign: Campaign, wanted: list[Coupon]) -> Iterator[list[Features]]:
    """For each coupon the features of both, one dict per household in the order of `parties`."""
    past, households = history(journey, campaign), journey.households(campaign.id)
    past = past[past["household_id"].isin(households)]
    by_product = _tally(past, "product_id", households, [c.products for c in wanted])
    by_type = _tally(past, "type", households, [c.types for c in wanted])
    by_department = _tally(past, "dept", households, [c.departments for c in wanted])
    known = len(history(journey, campaign)) > 0
    for coupon in wanted:
        if not known:
            yield [{} for _ in households]
            continue
        bought, last = by_product.of(coupon.products)
        bought_type, last_type = by_type.of(coupon.types)
        columns = {"bought": bought, "bought_type": bought_type, "bought_dept": by_department.of(coupon.departments)[0]}
        rows = [dict(zip(columns, row, strict=True)) for row in np.stack(list(columns.values()), axis=1).tolist()]
        for name, times in (("days_bought", last), ("days_type", last_type)):
            days = np.round((campaign.start - times) / DAY, 1)
            for place in np.flatnonzero(times > NEVER).tolist():
                rows[place][name] = float(days[place])
        yield rows


def _tally(past: pd.DataFrame, column: str, households: NDArray[np.int64], wanted: list[NDArray[np.int64]]) -> Tally:
    codes = np.unique(np.concatenate(wanted))
    lines = past[past[column].isin(codes)]
    row = np.searchsorted(households, lines["household_id"].to_numpy())
    place = np.searchsorted(codes, lines[column].to_numpy())
    count = np.zeros((len(households), len(codes)), dtype=np.int32)
    last = np.full(count.shape, NEVER, dtype=np.int64)
    np.add.at(count, (row, place), 1)
    np.maximum.at(last, (row, place), lines["at"].to_numpy())
    return Tally(codes, count, last)


def _codes(column: pd.Series) -> NDArray[np.int64]:
    codes = np.unique(column.dropna().to_numpy(np.int64))
    return codes[codes > UNKNOWN]


def _demographics(journey: Journey) -> dict[int, Features]:
    table = journey.demographics
    records = table.to_dict(orient="index")
    return {
        int(str(household)): {str(name): str(value) for name, value in row.items() if isinstance(value, str)}
        for household, row in records.items()
    }
