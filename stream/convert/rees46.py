"""REES46 behaviour data of a shop with many categories into a log: one row, one event, in the order of the file.

    event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session

    view               impression, id ``user.product.row``, where it is the session's first view of the product;
                       signal `view` where the session has seen it before
    cart               signal `cart`
    remove_from_cart   signal `remove_from_cart`
    purchase           conversion `purchase`, its value the price

Why the first view of a session: whoever compares comes back to a page several times in minutes. Were each view an
impression, the last one would take the purchase, and the earlier ones of the same visit would be learned as refusals.
Looking again is what a buyer does, so it is evidence: a signal. A visit on another day is a new impression.

Signals and conversions name user and product, not the impression: a purchase may come in a later session, and whose
it is is for the label store to say. Whenever a product's category, brand or price is new or has changed, an `item` goes
before the row. There is no basket id: purchases are rows of their own, and a session is a visit, not a basket.

Features of an impression: ids, category (and ``department``, the first part of its code), brand, price, hour and
weekday in UTC (the shop's zone is not published), and what the user did in the rows before: ``views``,
``views_item``, ``views_category``, ``carts``, ``buys``. These counts, and what a session has seen, are kept for the
latest million each.

Source: https://rees46.com/en/datasets and https://www.kaggle.com/mkechinov
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from stream.convert.catalogue import Catalogue
from stream.convert.counts import Counts, history
from stream.convert.log import Advance, Log, Summary, writing
from stream.convert.table import table
from stream.convert.times import WRONG, clock, moment

COLUMNS = (
    *("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price"),
    *("user_id", "user_session"),
)
ABOUT = "the REES46 behaviour data (https://rees46.com/en/datasets)"
SIGNALS = ("cart", "remove_from_cart")
LONGEST = 60  # characters of an id

Features = dict[str, str | float]


class Shop:
    """What the rows before have said: counts of users and sessions, and what is known of each product."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.seen = Counts()
        self.catalogue = Catalogue()


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (.csv or .csv.gz) to the new folder ``dst``.

    Rows = impressions + signals + conversions + refused; items come on top.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
        SourceError: it has other columns.
    """
    summary, shop = Summary(), Shop()
    with writing(dst, summary) as log:
        for text, row in table(src, COLUMNS, summary, advance, about=ABOUT):
            at = moment(row["event_time"])
            if wrong := _wrong(row, at):
                summary.refuse(wrong, text)
            elif at is not None:
                _write(log, row, at, summary.rows, shop)
                summary.passes(at)
    if summary.backwards:
        summary.notes.append(
            f"{summary.backwards:,} rows are earlier than a row before them; sort the file by event_time if many are"
        )
    return summary


def _wrong(row: Mapping[str, str], at: int | None) -> str | None:
    """What is wrong with a row."""
    if at is None:
        return f"event_time {WRONG}"
    if row["event_type"] not in ("view", "purchase", *SIGNALS):
        return "the event_type is none of view, cart, remove_from_cart, purchase"
    if (
        not all(1 <= len(row[name]) <= LONGEST for name in ("user_id", "product_id"))
        or len(row["user_session"]) > LONGEST
    ):
        return f"an id is empty or longer than {LONGEST} characters"
    try:
        return None if isfinite(float(row["price"] or 0)) else "the price is not a number"
    except ValueError:
        return "the price is not a number"


def _write(log: Log, row: Mapping[str, str], at: int, number: int, shop: Shop) -> None:
    user, product, session = row["user_id"], row["product_id"], row["user_session"]
    metadata = _metadata(row)
    if shop.catalogue.news(product, at, metadata):
        log.write({"type": "item", "item_id": product, "at": at, "features": metadata})
    identity = f"{user}.{product}.{number}"
    kind = row["event_type"]
    features = _features(row, at, metadata, shop.counts) if kind == "view" else {}
    if kind == "view" and not shop.seen.add(f"{user} {session} {product}"):
        shown: dict[str, object] = {"type": "impression", "impression_id": identity, "at": at, "user_id": user}
        log.write(shown | {"item_id": product, "features": features})
        return
    shop.counts.add(f"{user} {kind}")
    event: dict[str, object] = {
        "type": "conversion" if kind == "purchase" else "signal",
        "event_id": identity,
        "kind": kind,
        "at": at,
        "user_id": user,
        "item_id": product,
    }
    if session:
        event["session_id"] = session
    if kind == "purchase" and row["price"]:
        event["value"] = float(row["price"])
    log.write(event)


def _metadata(row: Mapping[str, str]) -> Features:
    """Category, brand and price, as far as the row knows them."""
    code = row["category_code"]
    texts = {"category": row["category_id"], "code": code, "department": code.partition(".")[0], "brand": row["brand"]}
    known: Features = {name: text[:200] for name, text in texts.items() if text}
    return known | ({"price": float(row["price"])} if row["price"] else {})


def _features(row: Mapping[str, str], at: int, metadata: Features, counts: Counts) -> Features:
    """Of a view; counts it."""
    user, product = row["user_id"], row["product_id"]
    return {
        "user": user,
        "item": product,
        **metadata,
        **clock(at),
        **history(counts, user, product, row["category_id"]),
    }
