"""Which products go together, as weights of pairs: a function of the facts, brought up to date at each midnight.

A conversion v of a user looks back at the user's other products that were bought before it, at most ``window`` ago, and at
all of its own basket (the same basket_id, or the same time), which has no order: so a basket counts both ways. Of these
products S(v) the 20 most recent count, among the user's last 100 conversions before v:

    each u in S(v):  u -> v  += 1 / sqrt(|S(v)|)          a co-purchase: one who buys much says less with each pair

Clicks do the same among the last 100 of one session, or, where they name none, of one user within `TOGETHER`; a co-view
has no order and is kept once, under the smaller id. Weights halve every ``half_life``, counted from the midnight after v:

    w(T) = sum over v of x_v 2^(-(T - day(v)) / half_life)

At a midnight T the sum must be that of what is known before T and not taken back. So for each v that may look back at
something that has changed that day, what it counted at the midnight before is taken away and what it counts now is added:
a record that comes late, or is taken back, needs no rule of its own. Records past the horizon take no part.

One query counts whole numbers by (pair, day, |S|); the rest is done here, so every database has the same floats.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, select, update

from labelstore.bulk import chunks, insert_rows, named, names
from labelstore.pair_counts import counts
from labelstore.retention import DAY
from labelstore.tables import item_pairs, items

CO_PURCHASE, CO_VIEW = "co-purchase", "co-view"
TOGETHER = 1_800_000  # ms between clicks of one user without a session
LEAST = 0.05  # weight below which a pair is dropped
MOST, HEAVIEST = 400, 200  # a source that has more pairs than the one keeps the other

P = item_pairs.c
COLUMNS = ("kind", "source", "target", "weight", "at", "since", "until")
_BOUGHT = counts("user_id", ordered=True)
_IN_SESSION = counts("session_id", ordered=False)
_BY_USER = counts("user_id", ordered=False)


class Rules(NamedTuple):
    """``window``: how far a conversion looks back; ``half_life`` of weights; ms."""

    window: int = 30 * DAY
    half_life: int = 90 * DAY


class Pair(NamedTuple):
    """``weight``: decayed to the moment that was asked for; ``since``: the midnight at which the pair was new, ms."""

    kind: str
    source: str
    target: str
    weight: float
    since: int


def decay(weight: float, age: int, half_life: int) -> float:
    """What is left of a weight after ``age``, ms.

    >>> decay(8.0, 180, 90)
    2.0
    """
    return weight * math.pow(2.0, -age / half_life)


def close_day(connection: Connection, midnight: int, first: int, keep: int, rules: Rules) -> int:
    """Count the day that ends at this midnight.

    Args:
        first: ``seq`` of the last record that had passed a day before. keep: retention, ms; see `labelstore.retention`.

    Returns: how many pairs were counted.
    """
    before = midnight - DAY
    given = {"before": before, "now": midnight, "first": first, "horizon": before - keep}
    ways = ((CO_PURCHASE, _BOUGHT, rules.window), (CO_VIEW, _IN_SESSION, 0), (CO_VIEW, _BY_USER, TOGETHER))
    found: dict[str, list[Any]] = {CO_PURCHASE: [], CO_VIEW: []}
    for kind, way, span in ways:
        found[kind] += connection.execute(way, given | {"span": span, "kind": kind}).all()
    expire(connection, before)
    touched = {
        kind: _add(connection, kind, sorted(rows, key=lambda row: row[:4]), midnight, rules.half_life)
        for kind, rows in found.items()
    }
    expire(connection, midnight)  # after both: what is added to a pair may keep it
    for kind, sources in touched.items():
        _cap(connection, kind, sources, rules.half_life)
    return sum(map(len, found.values()))


def expire(connection: Connection, midnight: int) -> None:
    """Drop the pairs that have decayed to nothing by this midnight."""
    connection.execute(delete(item_pairs).where(P.until <= midnight))


def load(connection: Connection, now: int, half_life: int, kind: str = "", source: str = "") -> list[Pair]:
    """All pairs as of a moment, ms, or those of one kind and source, in the order of kind, source, target."""
    query = select(P.kind, P.source, P.target, P.weight, P.at, P.since).order_by(P.kind, P.source, P.target)
    rows = connection.execute(query.where(P.kind == kind, P.source == source) if kind else query)
    return [Pair(*row[:3], decay(row.weight, now - row.at, half_life), row.since) for row in rows]


def sizes(connection: Connection) -> dict[str, int]:
    """How many pairs there are of each kind."""
    rows = connection.execute(select(P.kind, func.count()).group_by(P.kind).order_by(P.kind))
    return {kind: count for kind, count in rows}


def described(connection: Connection) -> list[tuple[str, str]]:
    """Products with metadata, and their features, JSON; by id."""
    query = select(items.c.id, items.c.features).order_by(items.c.id)
    return [tuple(row) for row in connection.execute(query)]


def _add(connection: Connection, kind: str, rows: Iterable[Any], now: int, half_life: int) -> set[str]:
    """Add what was counted, given in order; the products that have been touched, of co-purchases the sources."""
    new: list[tuple[Any, ...]] = []
    moved: list[dict[str, Any]] = []
    touched: set[str] = set()
    for (source, target), counted in groupby(rows, key=lambda row: (row[0], row[1])):
        told = list(counted)
        weight, at = told[0][5:]
        total = 0.0 if at is None else decay(weight, now - at, half_life)
        for _, _, day, size, times, *_ in told:
            total += decay(times / math.sqrt(size), now - day, half_life)
        until = now + int(half_life * math.log2(total / LEAST)) if total > LEAST else now
        touched |= {source, target} if kind == CO_VIEW else {source}
        if at is not None:
            moved.append({"s": source, "t": target, "w": max(total, 0.0), "u": until})
        elif until > now:
            new.append((kind, source, target, total, now, now, until))
    if moved:
        pair = and_(P.kind == kind, P.source == bindparam("s"), P.target == bindparam("t"))
        change = update(item_pairs).where(pair).values(weight=bindparam("w"), at=now, until=bindparam("u"))
        connection.execute(change, moved)
    insert_rows(connection, item_pairs, COLUMNS, new)
    return touched


def _cap(connection: Connection, kind: str, products: set[str], half_life: int) -> None:
    """Each of these that is the source of more than `MOST` pairs, or an end of more co-views, keeps the `HEAVIEST`; of equal
    ones those with the smaller id."""
    ends = (P.source, P.target) if kind == CO_VIEW else (P.source,)
    for some in chunks(products):
        count = Counter[str]()
        for end in ends:
            many = select(end, func.count()).where(P.kind == kind, named(end)).group_by(end)
            count.update({name: pairs for name, pairs in connection.execute(many, names(some))})
        heavy = sorted(name for name, pairs in count.items() if pairs > MOST)
        gone = _lightest(_pairs_of(connection, kind, ends, heavy, half_life))
        if gone:
            pair = and_(P.kind == kind, P.source == bindparam("s"), P.target == bindparam("t"))
            connection.execute(delete(item_pairs).where(pair), [{"s": u, "t": v} for u, v in gone])


def _pairs_of(
    connection: Connection, kind: str, ends: Sequence[ColumnElement[str]], products: list[str], half_life: int
) -> dict[str, list[tuple[float, str, str]]]:
    """Each of these products -> its pairs (rank, source, target), the heaviest first. One query for each end, whose pairs
    have no index where it is the target."""
    found: dict[str, list[tuple[float, str, str]]] = {product: [] for product in products}
    for end in ends if products else ():
        query = select(end, P.weight, P.at, P.source, P.target).where(P.kind == kind, named(end))
        for product, weight, at, *pair in connection.execute(query, names(products)):
            found[product].append((-math.log2(weight) - at / half_life, *pair))
    return {product: sorted(pairs) for product, pairs in found.items()}


def _lightest(ranked: Mapping[str, Sequence[tuple[float, str, str]]]) -> list[tuple[str, str]]:
    """The pairs that go: all but the `HEAVIEST` of each product in turn, of those that are left by then."""
    gone: dict[tuple[str, str], None] = {}
    for pairs in ranked.values():
        left = [(source, target) for _, source, target in pairs if (source, target) not in gone]
        gone |= dict.fromkeys(left[HEAVIEST:])
    return list(gone)
