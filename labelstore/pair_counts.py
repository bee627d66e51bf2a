"""What a day adds to the weights of pairs, in whole numbers: one query for each way of looking back.

    (source, target, midnight after v, |S(v)|) -> how often more, and the weight the pair has; see `labelstore.item_pairs`

``before`` and ``now`` are the midnights around the day, ``first`` the last record before it, ``horizon`` where retention
begins, ``span`` how far v looks back, ms, ``kind`` the kind of pair.
"""

from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    union,
    union_all,
)

from labelstore.retention import DAY
from labelstore.tables import adjustments, conversions, item_pairs, signals

CLICK = "click"  # the kind of signal that is a view
NEAREST = 20  # products a conversion or click looks back at
RECENT = 100  # records of its user or session among which they are: before it, and after it those of its own time
MIX = 2_654_435_761  # 2^32 / golden ratio: multiples of it, modulo 2^32, are spread evenly
LAST = 2**62  # past every seq

P = item_pairs.c
_FIRST: BindParameter[int] = bindparam("first")
_HORIZON: BindParameter[int] = bindparam("horizon")
_SPAN: BindParameter[int] = bindparam("span")
_TIMES = union_all(
    select(literal_column("-1").label("sign"), bindparam("before").label("time")),
    select(literal_column("1").label("sign"), bindparam("now").label("time")),
).subquery("times")


def counts(by: str, ordered: bool) -> Select[Any]:
    """Rows of source, target, day, size, times, and weight, at of the pair, or nulls.

    Of conversions (``ordered``) or clicks with the same value of the column ``by``; clicks by user name no session.
    """
    N = _near(_seen(by, ordered), ordered).c
    times = func.sum(N.sign)
    grouped = select(N.source, N.target, N.day, N.size, times.label("times"))
    added = grouped.group_by(N.source, N.target, N.day, N.size).having(times != 0).subquery("added")
    A = added.c
    pair = and_(P.kind == bindparam("kind"), P.source == A.source, P.target == A.target)
    return select(*A, P.weight, P.at).outerjoin_from(added, item_pairs, pair)


def _seen(by: str, ordered: bool) -> FromClause:
    """Each v that may look back at a change, at both midnights (sign -1 and 1), and the products it looks back at."""
    u, asking = (conversions if ordered else signals).alias("u"), _asking(by, ordered)
    U, A = u.c, asking.c
    alive = [U.known_at < A.time]
    if ordered:
        alive += [_stands(A, A.time), _stands(U, A.time)]
    pair = (A.item_id.label("target"), U.item_id.label("source"))
    return (
        select(A.sign, A.seq, A.at, *pair, func.max(U.at).label("last"), func.max(U.seq).label("other"))
        .join_from(asking, u, and_(U[by] == A[by], U.at >= A.earliest, _back(U, A, ordered)))
        .where(U.item_id != A.item_id, *alive, *_usable(U, by, ordered))
        .group_by(A.sign, A.seq, A.at, A.item_id, U.item_id)
    ).subquery("seen")


def _asking(by: str, ordered: bool) -> CTE:
    """Each of the affected v at each of the times at which it is known, and how far it looks: back to ``earliest``, and
    among those of its own time at the ones from ``low`` to ``high``, seq."""
    affected, w = _affected(by, ordered), (conversions if ordered else signals).alias("w")
    A, T, W = affected.c, _TIMES.c, w.c
    mine = [W[by] == A[by], W.known_at < T.time, *_usable(W, by, ordered)]
    if ordered:
        mine.append(_stands(W, T.time))
    before = select(W.at).where(*mine, W.at <= A.at).order_by(W.at.desc())
    recent = before.limit(1).offset(RECENT).scalar_subquery()
    at_once = select(W.seq).where(*mine, W.at == A.at).limit(1).offset(RECENT - 1)
    low = at_once.where(W.seq < A.seq).order_by(W.seq.desc()).scalar_subquery()
    high = at_once.where(W.seq > A.seq).order_by(W.seq).scalar_subquery()
    ends = (func.coalesce(low, 0).label("low"), func.coalesce(high, LAST).label("high"))
    span: ColumnElement[int] = literal(0) if by == "session_id" else A.at - _SPAN
    later = case((recent > span, recent), else_=span)  # fewer are there: the span alone
    columns = select(T.sign, T.time, *A, later.label("earliest"), *ends)
    found = columns.join_from(affected, _TIMES, A.known_at < T.time).cte("asking")
    return found.prefix_with("MATERIALIZED")  # counted once for each, not for each record looked back at


def _near(seen: FromClause, ordered: bool) -> FromClause:
    """Of those the most recent ones, with how many they are; pairs without an order go from the smaller id.

    In a large basket all are equally recent. Which are taken must not hang on their ids, for then the alphabet would be a
    direction: it is told by a number that is the same from both sides, so most of them take each other.
    """
    S = seen.c
    mixed = (S.seq + S.other) % 2**31 * MIX % 2**32  # below 2^63, past which PostgreSQL refuses and SQLite rounds
    place = func.row_number().over(partition_by=[S.sign, S.seq], order_by=[S.last.desc(), mixed, S.source])
    R = select(S.sign, S.seq, S.at, S.source, S.target, place.label("place")).subquery("ranked").c
    size = func.count().over(partition_by=[R.sign, R.seq])
    source: ColumnElement[str] = R.source
    target: ColumnElement[str] = R.target
    if not ordered:
        source, target = (
            case((R.source < R.target, low), else_=high)
            for low, high in ((R.source, R.target), (R.target, R.source))
        )  # fmt: skip
    ends, day = (source.label("source"), target.label("target")), R.at - R.at % DAY + DAY
    return select(*ends, day.label("day"), R.sign, size.label("size")).where(R.place <= NEAREST).subquery("near")


def _affected(by: str, ordered: bool) -> CTE:
    """The events v that may look back at what has changed that day: of its user or session those after the first change,
    and those before it in a basket that has changed."""
    v, changed = (conversions if ordered else signals).alias("v"), _changed(by, ordered)
    V, C = v.c, changed.c
    columns = [V.seq, V.at, V.known_at, V.item_id, V[by]]
    if ordered:
        columns += [V.basket_id, V.retracted_at]
    since = select(C[by], func.min(C.at).label("first"), func.max(C.at).label("last")).group_by(C[by]).subquery("since")
    S = since.c
    after = V.at >= S.first if by == "session_id" else and_(V.at >= S.first, V.at <= S.last + _SPAN)
    whole = V.at - _SPAN >= _HORIZON  # all it looks back at is kept: else it stays as it was counted
    found = select(*columns).join_from(since, v, and_(V[by] == S[by], after)).where(whole, *_usable(V, by, ordered))
    if not ordered:
        return found.cte("affected")
    ends = (func.min(C.at).label("first"), func.max(C.at).label("last"))
    baskets = (
        select(C[by], C.basket_id, *ends)
        .where(C.basket_id.is_not(None))
        .group_by(C[by], C.basket_id)
        .subquery("baskets")
    )
    B = baskets.c
    before = and_(V.basket_id == B.basket_id, V.at >= B.first - _SPAN, V.at < B.last)
    basket = select(*columns).join_from(baskets, v, and_(V[by] == B[by], before)).where(whole, *_usable(V, by, ordered))
    return union(found, basket).cte("affected")


def _changed(by: str, ordered: bool) -> CTE:
    """Where something has come that day, or was taken back."""
    E = (conversions if ordered else signals).c
    columns = [E[by], E.at, *((E.basket_id,) if ordered else ())]
    come = select(*columns).where(E.seq > _FIRST, *_usable(E, by, ordered))
    if not ordered:
        return come.cte("changed")
    back = select(adjustments.c.conversion_id).where(adjustments.c.seq > _FIRST, adjustments.c.action == "retract")
    return union_all(come, select(*columns).where(E.id.in_(back), *_usable(E, by, ordered))).cte("changed")


def _stands(of: Any, time: Any) -> ColumnElement[bool]:
    """Whether a conversion has not been taken back before a time."""
    return or_(of.retracted_at.is_(None), of.retracted_at >= time)


def _usable(of: Any, by: str, ordered: bool) -> list[ColumnElement[bool]]:
    """Which records take part at all."""
    found = [of[by].is_not(None), of.item_id.is_not(None), of.known_at >= _HORIZON]
    if ordered:
        return found
    found.append(of.kind == literal_column(f"'{CLICK}'"))  # in the text, so that the index of clicks is used
    return found if by == "session_id" else [*found, of.session_id.is_(None)]


def _back(U: Any, V: Any, ordered: bool) -> ColumnElement[bool]:
    """Whether V looks back at U, if U is not too early."""
    near = or_(U.at != V.at, U.seq.between(V.low, V.high))
    if ordered:
        basket = or_(U.at == V.at, U.basket_id == V.basket_id)
        return and_(U.at <= V.at + _SPAN, or_(U.at < V.at, basket), near)
    return and_(or_(U.at < V.at, and_(U.at == V.at, U.seq < V.seq)), near)
