"""Taobao UserBehavior (Alibaba Tianchi) into a log: one row, one event, in the order of the file.

    user_id,item_id,category_id,behavior,ts       ts in seconds since 1970; with or without this header

    pv          impression, id ``user.item.row``
    cart, fav   signal `cart`, `favourite`
    buy         conversion `purchase`

Signals and conversions name user and item only: whose impression they belong to is for the label store to say. In the
published file a purchase often has no view at all. That file is sorted by user: sort it by ts first, as a log is read
in order of time.

Features of a view: the ids, hour and weekday in China (UTC+8), and what the user did in the rows before: ``views``,
``views_item``, ``views_category``, ``carts``, ``buys``. These counts need memory, so they are kept for the latest
million of (user) and (user, item or category) only; who comes back after that starts at 0.

Source: https://tianchi.aliyun.com/dataset/649
"""

from pathlib import Path

from labelstore.events import EARLIEST, LATEST
from stream.convert.counts import Counts, history
from stream.convert.log import Advance, Log, Summary, rows, writing
from stream.convert.times import clock

BEHAVIOURS = {"pv": "impression", "cart": "cart", "fav": "favourite", "buy": "purchase"}
CHINA = 8 * 3600  # seconds ahead of UTC
LONGEST = 60  # characters of an id

Row = tuple[str, str, str, str, int]


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (.csv or .csv.gz) to the new folder ``dst``. Rows = events + refused.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
    """
    summary, counts = Summary(), Counts()
    with writing(dst, summary) as log:
        for text in rows(src, summary, advance):
            row = _parse(text)
            if isinstance(row, tuple):
                _write(log, row, summary.rows, counts)
                summary.passes(row[4])
            elif summary.rows == 1 and text.startswith("user"):
                summary.rows = 0  # the header
            else:
                summary.refuse(row, text)
    if summary.backwards:
        summary.notes.append(
            f"{summary.backwards:,} rows are earlier than a row before them; sort the file by ts if many are"
        )
    return summary


def _parse(text: str) -> Row | str:
    """The row, or what is wrong with it."""
    fields = text.split(",")
    if len(fields) != 5:
        return f"{len(fields)} columns instead of 5"
    user, item, category, behaviour, ts = fields
    if not all(1 <= len(identity) <= LONGEST for identity in (user, item, category)):
        return f"an id is empty or longer than {LONGEST} characters"
    if behaviour not in BEHAVIOURS:
        return "the behaviour is none of pv, cart, fav, buy"
    if not (ts.isascii() and ts.isdigit()):
        return "ts is not a whole number of seconds"
    if len(ts) > 12 or not EARLIEST <= int(ts) * 1000 < LATEST:
        return "ts is not in the years 2000 to 2099"
    return user, item, category, behaviour, int(ts)


def _write(log: Log, row: Row, number: int, counts: Counts) -> None:
    user, item, _category, behaviour, ts = row
    identity = f"{user}.{item}.{number}"
    kind = BEHAVIOURS[behaviour]
    if kind == "impression":
        log.write(
            {
                "type": "impression",
                "impression_id": identity,
                "at": ts * 1000,
                "user_id": user,
                "item_id": item,
                "features": _features(row, counts),
            }
        )
        return
    counts.add(f"{user} {kind}")
    log.write(
        {
            "type": "conversion" if kind == "purchase" else "signal",
            "event_id": identity,
            "kind": kind,
            "at": ts * 1000,
            "user_id": user,
            "item_id": item,
        }
    )


def _features(row: Row, counts: Counts) -> dict[str, str | int]:
    user, item, category, _, ts = row
    return {
        "user": user,
        "item": item,
        "category": category,
        **clock(ts * 1000, CHINA),
        **history(counts, user, item, category),
    }
