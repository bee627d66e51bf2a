"""UCI Online Retail (a British wholesaler of gifts, a year of invoices) into a log: reorders, and their cancellation.

    InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country

Nothing in it was shown, so the impression has to be chosen: a customer bought a product. What is predicted of it is
whether the same customer buys the same product again:

    first line of a product in an invoice   impression, id ``customer.product.row``, and a conversion of its own:
      the customer had bought it before       `purchase`, of the impression of the time before
      the customer had not                    `first_purchase`, which is nobody's label
    further line of it, or one of another   a conversion of the same kind and impression as the first: one order is
      invoice at the same minute              not two
    a line of an invoice C...               adjustments of the purchases that it takes back: `cancelling` has the rule

A conversion names its impression, since the last touch of a purchase would be the impression that it is itself. Its
``basket_id`` is the invoice, its value quantity times price. A cancelled purchase is no label any more; its impression
stays, as the customer did have the product in hand.

Left out, by reason: lines without a customer (a quarter), codes that are no product (postage, fees, discounts, manual
entries), quantities below 0 that are no cancellation (stock corrections), cancellations that find no purchase.
Times are local, without a zone: they are taken as UTC. Descriptions are `item` events.

Features: customer, item, country, price, quantity, hour, weekday, and what came in the rows before: ``lines`` of the
customer, ``bought`` (how often this customer had this product), ``sold`` (how often anybody had), ``gap`` (days since the
customer's last order of it).

Source: Chen, Online Retail, UCI Machine Learning Repository, 2015, https://archive.ics.uci.edu/dataset/352
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from stream.convert.cancelling import Purchases
from stream.convert.catalogue import Catalogue
from stream.convert.counts import Counts
from stream.convert.log import Advance, Log, Summary, writing
from stream.convert.table import table
from stream.convert.times import WRONG, clock, moment

COLUMNS = (
    *("InvoiceNo", "StockCode", "Description", "Quantity"),
    *("InvoiceDate", "UnitPrice", "CustomerID", "Country"),
)
ABOUT = "UCI Online Retail (https://archive.ics.uci.edu/dataset/352)"
SERVICES = {"POST", "DOT", "M", "C2", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK"}
CANCELLED = "C"  # begins the number of an invoice that cancels
DAY = 86_400_000  # ms
LONGEST = 60  # characters of an id


class Line(NamedTuple):
    """A line of an invoice; ``quantity`` below 0 where it cancels, ``at`` in ms since 1970."""

    invoice: str
    product: str
    description: str
    quantity: int
    at: int
    price: float
    customer: str
    country: str


class Order(NamedTuple):
    """A customer's latest order of a product, and the conversion fields that all of its lines have."""

    impression: str
    invoice: str
    at: int
    refers: dict[str, object]


class Ledger:
    """What the rows before have said."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, str], Order] = {}
        self.purchases = Purchases()
        self.catalogue = Catalogue()
        self.counts = Counts()
        self.cancelled = 0


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (.csv or .csv.gz) to the new folder ``dst``.

    Rows = conversions + cancellations that found their purchase (a note counts them) + refused; impressions and items
    come on top.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
        SourceError: it has other columns.
    """
    summary, ledger = Summary(), Ledger()
    with writing(dst, summary) as log:
        for text, row in table(src, COLUMNS, summary, advance, about=ABOUT):
            line = _parse(row)
            wrong = line if isinstance(line, str) else _write(log, line, summary.rows, ledger)
            if wrong:
                summary.refuse(wrong, text)
            elif isinstance(line, Line):
                summary.passes(line.at)
    summary.notes.append(f"{ledger.cancelled:,} cancellations found their purchase: those are the adjustments")
    if summary.backwards:
        summary.notes.append(
            f"{summary.backwards:,} rows are earlier than a row before them; sort the file by InvoiceDate if many are"
        )
    return summary


def _parse(row: Mapping[str, str]) -> Line | str:
    """The line, or what is wrong with it."""
    invoice, product = row["InvoiceNo"].strip(), row["StockCode"].strip()
    customer = row["CustomerID"].strip().removesuffix(".0")
    if not customer:
        return "no customer"
    if product.upper() in SERVICES:
        return "not a product, but postage, a fee, a discount or a manual entry"
    if not all(1 <= len(identity) <= LONGEST for identity in (invoice, product, customer)):
        return f"an id is empty or longer than {LONGEST} characters"
    at = moment(row["InvoiceDate"])
    if at is None:
        return f"InvoiceDate {WRONG}"
    try:
        quantity, price = int(row["Quantity"]), float(row["UnitPrice"])
        worth = quantity * price
    except (ValueError, OverflowError):
        return "Quantity or UnitPrice is not a number"
    if not isfinite(price) or price < 0:
        return "the price is below 0"
    if not isfinite(worth):
        return "Quantity or UnitPrice is not a number"
    if not quantity or (quantity < 0) != invoice.startswith(CANCELLED):
        return "the quantity is 0, or its sign does not go with the kind of invoice"
    return Line(
        invoice, product, row["Description"].strip()[:1000], quantity, at, price, customer, row["Country"][:200]
    )


def _write(log: Log, line: Line, number: int, ledger: Ledger) -> str | None:
    """The line's events; or why there are none."""
    if line.quantity < 0:
        return _cancel(log, line, number, ledger)
    if line.description and ledger.catalogue.news(line.product, line.at, {"description": line.description}):
        features = {"description": line.description}
        log.write({"type": "item", "item_id": line.product, "at": line.at, "features": features})
    order = ledger.orders.get((line.customer, line.product))
    if order is None or (order.invoice != line.invoice and order.at != line.at):
        order = _order(log, line, number, ledger, order)
    identity = f"{line.invoice}.{line.product}.{number}"
    event: dict[str, object] = {"type": "conversion", "event_id": identity, "at": line.at} | order.refers
    log.write(event | {"value": round(line.quantity * line.price, 2), "basket_id": line.invoice})
    ledger.purchases.add(line.customer, line.product, identity, line.quantity, line.price)
    return None


def _order(log: Log, line: Line, number: int, ledger: Ledger, before: Order | None) -> Order:
    """Write the impression that this order is, and remember it."""
    identity = f"{line.customer}.{line.product}.{number}"
    both: dict[str, object] = {"user_id": line.customer, "item_id": line.product}
    shown: dict[str, object] = {"type": "impression", "impression_id": identity, "at": line.at}
    log.write(shown | both | {"features": _features(line, ledger.counts, before)})
    kind: dict[str, object] = {"kind": "first_purchase"}
    if before:
        kind = {"kind": "purchase", "impression_id": before.impression}
    order = Order(identity, line.invoice, line.at, kind | both)
    ledger.orders[line.customer, line.product] = order
    return order


def _features(line: Line, counts: Counts, before: Order | None) -> dict[str, str | float]:
    """Of an order; counts it."""
    return {
        "user": line.customer,
        "item": line.product,
        "country": line.country,
        "price": line.price,
        "quantity": line.quantity,
        **clock(line.at),
        "lines": counts.add(line.customer),
        "bought": counts.add(f"{line.customer} {line.product}"),
        "sold": counts.add(f"i{line.product}"),
        **({"gap": round((line.at - before.at) / DAY, 3)} if before else {}),
    }


def _cancel(log: Log, line: Line, number: int, ledger: Ledger) -> str | None:
    found = ledger.purchases.cancel(line.customer, line.product, -line.quantity)
    if isinstance(found, str):
        return found
    ledger.cancelled += 1
    for place, (conversion, value) in enumerate(found):  # of one moment the last row is the last word: ids are in order
        event: dict[str, object] = {
            "type": "adjustment",
            "event_id": f"{number:09}.{line.invoice}.{line.product}.{place:05}",
            "at": line.at,
            "conversion_id": conversion,
            "action": "retract" if value is None else "restate",
        }
        log.write(event if value is None else event | {"value": value})
    return None
