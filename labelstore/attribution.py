"""Which impression a signal or conversion belongs to: bulk SQL over the records that have just passed.

An event that names its impression belongs to it. Any other belongs to the last touch: the latest impression of the
same user and item not after it. Either way only inside the attribution window of its kind. It is decided once, when
the later of the two passes, on what has passed by then, and never moves.
"""

from sqlalchemy import Connection, Table, Update, and_, case, exists, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from labelstore.tables import adjustments, conversions, impressions

I = impressions.c  # noqa: E741  # the relation's letter in the queries below


def attribute(connection: Connection, events: Table, kinds: list[str] | None, window: int, first: int) -> int:
    """Credit the events that passed from ``first`` on, and earlier ones whose impression has only now passed.

    Args:
        events: signals or conversions.
        kinds: kinds to credit; None for all.
        window: attribution window, ms.
        first: lowest ``seq`` of the records that have just passed.

    Returns: how many of the new events came past the window: shown more than a window before, or known after the close.
    """
    E = events.c
    of_kind = E.kind.in_(kinds) if kinds is not None else E.kind.is_not(None)
    inside = and_(I.at <= E.at, E.at <= I.at + window)
    touch = and_(I.user_id == E.user_id, I.item_id == E.item_id, E.impression_id.is_(None))
    named = select(I.seq).where(I.id == E.impression_id, inside)
    before = select(I.seq).where(touch, inside, I.seq < E.seq).order_by(I.at.desc(), I.seq.desc()).limit(1)
    after = select(I.seq).where(touch, inside, I.seq > E.seq).order_by(I.seq).limit(1)
    new = and_(E.seq >= first, of_kind)
    connection.execute(
        update(events)
        .where(new)
        .values(
            impression=case(
                (E.impression_id.is_not(None), named.scalar_subquery()),
                else_=func.coalesce(before.scalar_subquery(), after.scalar_subquery()),
            )
        )
    )
    _credit_waiting(connection, events, of_kind, inside, touch, first)
    if events is conversions:
        connection.execute(_credited_at(first))
    return _past_window(connection, events, new, touch, window)


def _credit_waiting(
    connection: Connection,
    events: Table,
    of_kind: ColumnElement[bool],
    inside: ColumnElement[bool],
    touch: ColumnElement[bool],
    first: int,
) -> None:
    """Earlier events without an impression, now that new impressions have passed."""
    E = events.c
    open_ = and_(E.impression.is_(None), E.seq < first, of_kind)
    for reference in (I.id == E.impression_id, touch):
        found = connection.execute(
            select(E.seq, func.min(I.seq)).where(I.seq >= first, reference, inside, open_).group_by(E.seq)
        ).all()
        for event, impression in found:
            connection.execute(update(events).where(E.seq == event).values(impression=impression))


def _credited_at(first: int) -> Update:
    C = conversions.c
    shown = select(I.known_at).where(I.seq == C.impression).scalar_subquery()
    return (
        update(conversions)
        .where(C.credited_at.is_(None), C.impression.is_not(None), (C.seq >= first) | (C.impression >= first))
        .values(credited_at=case((shown > C.known_at, shown), else_=C.known_at))
    )


def _past_window(
    connection: Connection, events: Table, new: ColumnElement[bool], touch: ColumnElement[bool], window: int
) -> int:
    E = events.c
    reference = (I.id == E.impression_id) | touch
    missed = and_(E.impression.is_(None), exists().where(I.seq < E.seq, reference, I.at < E.at - window))
    close = case((I.known_at > I.at + window, I.known_at), else_=I.at + window)
    unknown = exists().where(I.seq == E.impression, I.seq < E.seq, E.known_at > close)
    return connection.execute(select(func.count()).select_from(events).where(new, missed | unknown)).scalar_one()


def retract(connection: Connection, first: int) -> None:
    """Set when conversions were taken back: at the later of conversion and retraction, whichever passed last."""
    C, A = conversions.c, adjustments.c
    taken = select(func.min(A.known_at)).where(A.conversion_id == C.id, A.action == "retract").scalar_subquery()
    for touched in (
        C.id.in_(select(A.conversion_id).where(A.seq >= first)),
        (C.seq >= first) & C.id.in_(select(A.conversion_id)),
    ):
        connection.execute(
            update(conversions)
            .where(touched, taken.is_not(None))
            .values(retracted_at=case((taken > C.known_at, taken), else_=C.known_at))
        )

