"""What came of an offer in the Complete Journey study data: first purchases, redemptions, and the signal before them.

An offer is a household and a coupon of one of the household's campaigns. It is open from 00:00 of the campaign's first
day to the end of its last day, but at most WINDOW: start <= at < min(end, start + WINDOW).

    purchase    the household's first line of one of the coupon's products while open; lines of a quantity or value of 0
                count, as in the published counts. Its product is the dearest of the coupon's in that basket, its value
                the sum over them.
    redemption  as the data lists it, also a second one of the same coupon. Only its date is known: it is stamped
                with the last millisecond of its day.
    same_type   the household's first line, while open, of ANOTHER product of one of the coupon's product types. It
                counts if it is before the conversion, strictly: a basket has one time. For redemptions it must be
                before the redemption's DAY, as most are of the basket the purchase is in. Products without a type are
                left out.
"""

import pandas as pd

from stream.convert.journey import COUPON, DAY, UNKNOWN, Campaign, Journey

WINDOW = 60 * DAY
OFFER = [*COUPON, "household_id"]


def purchases(journey: Journey) -> pd.DataFrame:
    """First purchases, one row each: OFFER, at, product_id, basket_id, value."""
    found = []
    for campaign in journey.campaigns:
        coupons = journey.coupons[journey.coupons["campaign_id"] == campaign.id]
        lines = _dearest_first(_open(journey, campaign).merge(coupons, on="product_id"))
        first = lines.drop_duplicates(OFFER)
        value = lines.groupby([*OFFER, "basket_id"], as_index=False).agg(value=("sales_value", "sum"))
        found.append(first.merge(value, on=[*OFFER, "basket_id"]))
    return _in_order(found)[[*OFFER, "at", "product_id", "basket_id", "value"]]


def redemptions(journey: Journey) -> pd.DataFrame:
    """Redemptions of the coupons that are offers, one row each: OFFER, at."""
    offers = journey.coupons[COUPON].drop_duplicates().merge(journey.members, on="campaign_id")
    return _in_order([journey.redemptions.merge(offers, on=OFFER)])[[*OFFER, "at"]]


def same_type(journey: Journey, conversions: pd.DataFrame, *, by_day: bool = False) -> pd.DataFrame:
    """First purchases of another product of the coupon's types before the offer's conversion: OFFER, at, product_id.

    Args:
        conversions: OFFER and at; of several conversions of an offer the first counts.
        by_day: signals must be before the day of the conversion, not only before its time.
    """
    found = []
    limits = conversions.groupby(OFFER, as_index=False).agg(limit=("at", "min"))
    if by_day:
        limits["limit"] -= limits["limit"] % DAY
    for campaign in journey.campaigns:
        coupons = journey.coupons[journey.coupons["campaign_id"] == campaign.id]
        types = coupons.assign(type=journey.products["type"].reindex(coupons["product_id"]).to_numpy())
        types = types.loc[types["type"] > UNKNOWN, [*COUPON, "type"]].drop_duplicates()
        lines = _open(journey, campaign).merge(types, on="type")
        lines = lines.merge(coupons, on=[*COUPON, "product_id"], how="left", indicator="own")
        first = _dearest_first(lines[lines["own"] == "left_only"]).drop_duplicates(OFFER)
        first = first.merge(limits, on=OFFER, how="left")
        found.append(first[first["limit"].isna() | (first["at"] < first["limit"])])
    return _in_order(found)[[*OFFER, "at", "product_id"]]


def _open(journey: Journey, campaign: Campaign) -> pd.DataFrame:
    lines = journey.between(campaign.start, min(campaign.end, campaign.start + WINDOW))
    return lines[lines["household_id"].isin(journey.households(campaign.id))]


def _dearest_first(lines: pd.DataFrame) -> pd.DataFrame:
    order = ["at", "basket_id", "sales_value", "product_id"]
    return lines.sort_values(order, ascending=[True, True, False, True])


def _in_order(found: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(found, ignore_index=True).sort_values(["at", *OFFER], ignore_index=True)
