"""Which products go together, as weights of pairs: a function of the facts, brought up to date at each midnight.

A conversion v of a user looks back at the user's other products that were bought before it, at most ``window`` ago, and at
all of its own basket (the same basket_id, or the same time), which has no order: so a basket counts both ways. Of these
products S(v) the `NEAREST` most recent count:

    each u in S(v):  u -> v  += 1 / sqrt(|S(v)|)          a co-purchase: one who buys much says less with each pair

Clicks do the same among those of one session, or, where they name none, of one user within `TOGETHER`; a co-view has no
order and is kept once, under the smaller id. Weights halve every ``half_life``, counted from the midnight after v:

    w(T) = sum over v of x_v 2^(-(T - day(v)) / half_life)

At a midnight T the sum must be that of what is known before T and not taken back. So for each v that may look back at
something that has changed that day, what it counted at the midnight before is taken away and what it counts now is added:
a record that comes late, or is taken back, needs no rule of its own. Records past the horizon take no part.

One query counts whole numbers by (pair, day, |S|); the rest is done here, so every database has the same floats.
"""

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    union,
    union_all,
    update,
)

from labelstore.bulk import insert_rows, named, names
from labelstore.retention import DAY
from labelstore.tables import adjustments, conversions, item_pairs, signals

CO_PURCHASE, CO_VIEW = "co-purchase", "co-view"
CLICK = "click"  # the kind of signal that is a view
NEAREST = 20  # products a conversion or click looks back at
TOGETHER = 1_800_000  # ms between clicks of one user without a session
LEAST = 0.05  # weight below which a pair is dropped
HEAVIEST = 200  # pairs kept of each source
IDS = 5000  # sources in one query

P = item_pairs.c
COLUMNS = ("kind", "source", "target", "weight", "at", "since", "until")
_BEFORE: BindParameter[int] = bindparam("before")
_NOW: BindParameter[int] = bindparam("now")
_FIRST: BindParameter[int] = bindparam("first")
_HORIZON: BindParameter[int] = bindparam("horizon")
_SPAN: BindParameter[int] = bindparam("span")


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
    return weight * 2.0 ** (-age / half_life)


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
    for kind, rows in found.items():
        sources = _add(connection, kind, sorted(rows, key=lambda row: row[:4]), midnight, rules.half_life)
        _cap(connection, kind, sources, midnight, rules.half_life)
    expire(connection, midnight)
    return sum(map(len, found.values()))


def expire(connection: Connection, midnight: int) -> None:
    """Drop the pairs that have decayed to nothing by this midnight."""
    connection.execute(delete(item_pairs).where(P.until <= midnight))


def load(connection: Connection, now: int, half_life: int, source: str | None = None) -> list[Pair]:
    """All pairs as of a moment, ms, or those of one source, in the order of kind, source, target."""
    query = select(P.kind, P.source, P.target, P.weight, P.at, P.since).order_by(P.kind, P.source, P.target)
    rows = connection.execute(query if source is None else query.where(P.source == source))
    return [Pair(*row[:3], decay(row.weight, now - row.at, half_life), row.since) for row in rows]


def _add(connection: Connection, kind: str, rows: Iterable[Any], now: int, half_life: int) -> set[str]:
    """Add what was counted, given in order; the sources that were touched."""
    new: list[tuple[Any, ...]] = []
    moved: list[dict[str, Any]] = []
    sources: set[str] = set()
    for (source, target), counted in groupby(rows, key=lambda row: (row[0], row[1])):
        told = list(counted)
        weight, at, since = told[0][5:]
        total = 0.0 if at is None else decay(weight, now - at, half_life)
        for _, _, day, size, times, *_ in told:
            total += decay(times / math.sqrt(size), now - day, half_life)
        until = now + int(half_life * math.log2(total / LEAST)) if total > LEAST else now
        sources.add(source)
        if at is not None:
            moved.append({"s": source, "t": target, "w": max(total, 0.0), "u": until})
        elif until > now:
            new.append((kind, source, target, total, now, now, until))
    if moved:
        pair = and_(P.kind == kind, P.source == bindparam("s"), P.target == bindparam("t"))
        change = update(item_pairs).where(pair).values(weight=bindparam("w"), at=now, until=bindparam("u"))
        connection.execute(change, moved)
    insert_rows(connection, item_pairs, COLUMNS, new)
    return sources


def _cap(connection: Connection, kind: str, sources: set[str], now: int, half_life: int) -> None:
    """Of each of these sources only the heaviest pairs stay; of equal ones those with the smaller target."""
    many = select(P.source).where(P.kind == kind, named(P.source)).group_by(P.source).having(func.count() > HEAVIEST)
    every = sorted(sources)
    for start in range(0, len(every), IDS):
        for source in connection.execute(many, names(every[start : start + IDS])).scalars().all():
            pairs = [pair for pair in load(connection, now, half_life, source) if pair.kind == kind]
            gone = [pair.target for pair in sorted(pairs, key=lambda pair: (-pair.weight, pair.target))[HEAVIEST:]]
            connection.execute(
                delete(item_pairs).where(P.kind == kind, P.source == source, named(P.target)), names(gone)
            )


def _counts(by: str, ordered: bool) -> Select[Any]:
    """What is to be added: source, target, day of v (ms), |S(v)|, how often, and the pair's weight, at, since.

    Of conversions (``ordered``) or clicks with the same value of the column ``by``; clicks by user name no session.
    """
    events = conversions if ordered else signals
    v, u = events.alias("v"), events.alias("u")
    V, U = v.c, u.c
    changed = _changed(by, ordered)
    touched = and_(V.at >= changed.c.at, V.at <= changed.c.at + _SPAN) if by == "user_id" else V.at >= changed.c.at
    if ordered:
        touched = or_(touched, and_(V.basket_id == changed.c.basket_id, V.at >= changed.c.at - _SPAN, V.at < changed.c.at))
    columns = [V.seq, V.at, V.known_at, V.item_id, V[by], *((V.basket_id, V.retracted_at) if ordered else ())]
    affected = (
        select(*columns).join_from(changed, v, and_(V[by] == changed.c[by], touched)).where(*_usable(V, by, ordered))
    ).distinct().cte("affected")  # fmt: skip
    A = affected.c
    times = union_all(
        select(literal_column("-1").label("sign"), _BEFORE.label("time")),
        select(literal_column("1").label("sign"), _NOW.label("time")),
    ).subquery("times")
    now = times.c.time
    alive = [A.known_at < now, U.known_at < now]
    if ordered:
        alive += [or_(of.retracted_at.is_(None), of.retracted_at >= now) for of in (A, U)]
    seen = (
        select(times.c.sign, A.seq, A.at, A.item_id.label("target"), U.item_id.label("source"), func.max(U.at).label("last"))
        .join_from(affected, times, A.known_at < now)
        .join(u, and_(U[by] == A[by], _back(U, A, by, ordered)))
        .where(U.item_id != A.item_id, *alive, *_usable(U, by, ordered))
        .group_by(times.c.sign, A.seq, A.at, A.item_id, U.item_id)
    ).subquery("seen")
    S = seen.c
    place = func.row_number().over(partition_by=[S.sign, S.seq], order_by=[S.last.desc(), S.source])
    ranked = select(S.sign, S.seq, S.at, S.source, S.target, place.label("place")).subquery("ranked")
    R = ranked.c
    size = func.count().over(partition_by=[R.sign, R.seq])
    ends = (R.source, R.target)
    if not ordered:
        low = case((R.source < R.target, R.source), else_=R.target)
        ends = (low, case((R.source < R.target, R.target), else_=R.source))
    near = select(
        ends[0].label("source"), ends[1].label("target"), R.at - R.at % DAY + DAY, R.sign, size.label("size")
    ).where(R.place <= NEAREST)  # fmt: skip
    near_ = near.subquery("near")
    source, target, day, sign, n = near_.c
    times_ = func.sum(sign)
    pair = and_(P.kind == bindparam("kind"), P.source == source, P.target == target)
    found = select(source, target, day, n, times_).group_by(source, target, day, n).having(times_ != 0).subquery()
    F = list(found.c)
    return select(*F, P.weight, P.at, P.since).outerjoin_from(
        found, item_pairs, and_(P.kind == bindparam("kind"), P.source == F[0], P.target == F[1])
    )


def _changed(by: str, ordered: bool) -> Any:
    """Where something has come that day, or was taken back."""
    E = (conversions if ordered else signals).c
    columns = [E[by], E.at, *((E.basket_id,) if ordered else ())]
    come = select(*columns).where(E.seq > _FIRST, *_usable(E, by, ordered))
    if not ordered:
        return come.distinct().cte("changed")
    back = select(adjustments.c.conversion_id).where(adjustments.c.seq > _FIRST, adjustments.c.action == "retract")
    return union(come, select(*columns).where(E.id.in_(back), *_usable(E, by, ordered))).cte("changed")


def _usable(of: Any, by: str, ordered: bool) -> list[ColumnElement[bool]]:
    """Which records take part at all."""
    found = [of[by].is_not(None), of.item_id.is_not(None), of.known_at >= _HORIZON]
    if ordered:
        return found
    found.append(of.kind == literal_column(f"'{CLICK}'"))  # in the text, so that the index of clicks is used
    return found if by == "session_id" else [*found, of.session_id.is_(None)]


def _back(U: Any, V: Any, by: str, ordered: bool) -> ColumnElement[bool]:
    """Whether V looks back at U."""
    if ordered:
        basket = or_(U.at == V.at, U.basket_id == V.basket_id)
        return and_(U.at >= V.at - _SPAN, U.at <= V.at + _SPAN, or_(U.at < V.at, basket))
    before = or_(U.at < V.at, and_(U.at == V.at, U.seq < V.seq))
    return and_(before, U.at >= V.at - _SPAN) if by == "user_id" else before


_BOUGHT = _counts("user_id", ordered=True)
_IN_SESSION = _counts("session_id", ordered=False)
_BY_USER = _counts("user_id", ordered=False)
