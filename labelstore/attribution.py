"""Which impression a signal or conversion belongs to: bulk SQL over the records that have just passed.

An event that names its impression belongs to it. Any other belongs to the last touch: the latest impression of the
same user and item not after it. Either way only inside the attribution window of its kind. It is decided once, when
the later of the two passes, on what has passed by then, and never moves.
"""

from functools import cache
from typing import NamedTuple

from sqlalchemy import (
    BindParameter,
    Case,
    Connection,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    true,
    update,
)

from labelstore.tables import adjustments, conversions, impressions

I = impressions.c  # noqa: E741  # the relations' letters in the queries below
FIRST: BindParameter[int] = bindparam("first")
WINDOW: BindParameter[int] = bindparam("window")


def _later(then: Select[int]) -> Case[int]:
    """The later of a moment and the one at which the conversion was known."""
    at = then.scalar_subquery()
    return case((at > conversions.c.known_at, at), else_=conversions.c.known_at)


_CREDITED_AT = (
    update(conversions)
    .where(conversions.c.seq >= FIRST, conversions.c.impression.is_not(None))
    .values(credited_at=_later(select(I.known_at).where(I.seq == conversions.c.impression)))
)
_taken = select(func.min(adjustments.c.known_at)).where(
    adjustments.c.conversion_id == conversions.c.id, adjustments.c.action == "retract"
)
_RETRACTED_AT = update(conversions).where(conversions.c.retracted_at.is_(None)).values(retracted_at=_later(_taken))


class Statements(NamedTuple):
    """Queries over one table of events.

    Parameters: ``window`` (ms), ``first`` (lowest seq that has just passed), and ``of`` (a kind of conversion); of
    ``credit_one``: ``event`` and the impression it goes ``to``, by seq. The two that wait are outer joins, with one row for
    no event, since SQLite must begin with the new impressions: it would begin with all events that belong to none.
    """

    credit_named: Update
    credit_touch: Update
    credit_one: Update
    waiting_named: Select[int, int]
    waiting_touch: Select[int, int]
    past_named: Select[int]
    past_touch: Select[int]
    past_close: Select[int]


@cache
def statements(events: Table) -> Statements:
    """The queries for signals or conversions, built once."""
    E = events.c
    kind = E.kind == bindparam("of") if events is conversions else true()
    inside = and_(I.at <= E.at, I.at >= E.at - WINDOW)  # a range of the index of touches
    named, touch = I.id == E.impression_id, and_(I.user_id == E.user_id, I.item_id == E.item_id)
    new_named = and_(E.seq >= FIRST, kind, E.impression_id.is_not(None))
    new_touch = and_(E.seq >= FIRST, kind, E.impression_id.is_(None))
    before = select(I.seq).where(touch, inside, I.seq < E.seq).order_by(I.at.desc(), I.seq.desc()).limit(1)
    after = select(I.seq).where(touch, inside, I.seq > E.seq).order_by(I.seq).limit(1)
    waits = and_(E.impression.is_(None), E.seq < FIRST, kind, inside)
    waiting = select(E.seq, func.min(I.seq)).where(I.seq >= FIRST).group_by(E.seq)
    to: BindParameter[int] = bindparam("to")
    credited = {"credited_at": _later(select(I.known_at).where(I.seq == to))} if events is conversions else {}
    nobody = or_(E.impression.is_(None), E.impression > E.seq)  # that had passed took it
    missed = select(I.seq).where(I.seq < E.seq, I.at < E.at - WINDOW).limit(1)  # one is enough, however many there are
    missed_named, missed_touch = (missed.where(of).scalar_subquery().is_not(None) for of in (named, touch))
    close = case((I.known_at > I.at + WINDOW, I.known_at), else_=I.at + WINDOW)
    count = select(func.count(E.seq))
    return Statements(
        update(events).where(new_named).values(impression=select(I.seq).where(named, inside).scalar_subquery()),
        update(events)
        .where(new_touch)
        .values(impression=func.coalesce(before.scalar_subquery(), after.scalar_subquery())),
        update(events).where(E.seq == bindparam("event")).values(impression=to, **credited),
        waiting.join_from(impressions, events, and_(waits, named), isouter=True),
        waiting.join_from(impressions, events, and_(waits, touch, E.impression_id.is_(None)), isouter=True),
        count.where(new_named, nobody, missed_named),
        count.where(new_touch, nobody, missed_touch),
        count.where(E.seq >= FIRST, kind, I.seq == E.impression, I.seq < E.seq, E.known_at > close),
    )


def attribute(
    connection: Connection, events: Table, kind: str | None, window: int, first: int, new: bool, shown: bool
) -> int:
    """Credit the events that passed from ``first`` on, and earlier ones whose impression has only now passed.

    Args:
        events: conversions of a ``kind``, or all signals (``kind`` None).
        window: attribution window, ms.
        first: lowest ``seq`` of the records that have just passed.
        new, shown: whether there are events, and impressions, among them.

    Returns: how many of the new events came past the window: shown more than a window before, or known after the close.
    """
    sql, given = statements(events), {"window": window, "first": first} | ({"of": kind} if kind else {})
    past = 0
    if new:
        connection.execute(sql.credit_named, given)
        connection.execute(sql.credit_touch, given)
        past = sum(connection.execute(s, given).scalar_one() for s in (sql.past_named, sql.past_touch, sql.past_close))
    if shown:
        for query in (sql.waiting_named, sql.waiting_touch):
            rows = connection.execute(query, given)
            found = [{"event": event, "to": impression} for event, impression in rows if event is not None]
            if found:
                connection.execute(sql.credit_one, found)
    return past


def credit(connection: Connection, first: int) -> None:
    """Set when conversions that have just passed, and were credited, may be known to belong to their impression."""
    connection.execute(_CREDITED_AT, {"first": first})


def retract(connection: Connection, first: int) -> None:
    """Set when conversions were taken back: at the later of conversion and first retraction, whichever passed last."""
    C, A = conversions.c, adjustments.c
    back = A.action == "retract"
    of_new = C.id.in_(select(A.conversion_id).where(back, A.seq >= first))
    of_any = select(A.seq).where(back, A.conversion_id == C.id).correlate(conversions).exists()
    connection.execute(_RETRACTED_AT.where(of_new))
    connection.execute(_RETRACTED_AT.where(C.seq >= first, of_any))
