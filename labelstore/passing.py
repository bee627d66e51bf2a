"""Records in: duplicates out, rows inserted in bulk, attribution decided."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, Table, bindparam, delete, select

from labelstore.attribution import attribute, credit, retract
from labelstore.bulk import chunks, insert_rows, named, names
from labelstore.events import Adjustment, Conversion, Event, Impression, Item, Signal, identity
from labelstore.tables import adjustments, conversions, impressions, items, signals

TABLES: dict[type[Event], Table] = {
    Impression: impressions,
    Signal: signals,
    Conversion: conversions,
    Adjustment: adjustments,
    Item: items,
}

Rows = dict[type[Event], list[tuple[Any, ...]]]
Names = dict[str, tuple[str | None, str | None]]  # id of an impression -> user, product

REFERRING = ("seq", "id", "kind", "at", "known_at", "impression_id", "user_id", "item_id", "session_id")
COLUMNS: dict[type[Event], tuple[str, ...]] = {
    Impression: ("seq", "id", "at", "known_at", "user_id", "item_id", "context_item_id", "features", "served", "graph"),
    Signal: REFERRING,
    Conversion: (*REFERRING, "value", "basket_id"),
    Adjustment: ("seq", "id", "at", "known_at", "conversion_id", "action", "value"),
    Item: ("id", "at", "known_at", "features"),
}


_REPLACED = delete(items).where(items.c.id == bindparam("product"))


class Shown(NamedTuple):
    """An impression that has just passed. ``graph``: what the product graph said of it, JSON."""

    seq: int
    known_at: int
    impression: Impression
    graph: str | None


def pass_on(
    connection: Connection,
    facts: Sequence[tuple[int, Event]],
    last: int,
    windows: Mapping[str, int],
    graph: Sequence[str | None] = (),
) -> tuple[list[Shown], Counter[str], int]:
    """Take the records that pass now.

    A signal or conversion that names an impression, and no user or product, gets those of the impression if that has passed
    before it: they count for the product graph.

    Args:
        facts: (known_at, event), in the one order in which records pass.
        last: the highest ``seq`` given so far.
        windows: target kind -> attribution window, ms.
        graph: what the product graph says of each of ``facts``; none of any if empty.

    Returns: the new impressions; counts of each table's new rows, ``duplicates`` and ``past_window``; the highest seq.
    """
    counts: Counter[str] = Counter()
    rows: Rows = {kind: [] for kind in TABLES}
    shown: list[Shown] = []
    known, names_of = _known(connection, facts), _names_of(connection, facts)
    seq = last
    for (known_at, fact), told in zip(facts, graph or repeat(None), strict=False):
        kind = type(fact)
        if _repeats(fact, known[kind]):
            counts["duplicates"] += 1
            continue
        seq += 1
        counts[TABLES[kind].name] += 1
        rows[kind].append(_row(seq, known_at, fact, told, names_of))
        if isinstance(fact, Impression):
            names_of[fact.impression_id] = fact.user_id, fact.item_id
            shown.append(Shown(seq, known_at, fact, told))
    _insert(connection, rows, known[Item])
    counts["past_window"] = _attribute(connection, rows, last + 1, windows)
    return shown, counts, seq


def _known(connection: Connection, facts: Sequence[tuple[int, Event]]) -> dict[type[Event], dict[str, int]]:
    """Of the ids in these records, those the store already has, with their event time."""
    asked: dict[type[Event], list[str]] = {kind: [] for kind in TABLES}
    for _, fact in facts:
        asked[type(fact)].append(_id(fact))
    known: dict[type[Event], dict[str, int]] = {kind: {} for kind in TABLES}
    for kind, ids in asked.items():
        table = TABLES[kind].c
        query = select(table.id, table.at).where(named(table.id))
        for some in chunks(ids):
            rows = connection.execute(query, names(some))
            known[kind].update((name, at) for name, at in rows)
    return known


def _names_of(connection: Connection, facts: Sequence[tuple[int, Event]]) -> Names:
    """User and product of the impressions that the store has and signals and conversions name in place of their own."""
    referring = [fact for _, fact in facts if isinstance(fact, Signal | Conversion)]
    nameless = {fact.impression_id for fact in referring if fact.user_id is None or fact.item_id is None}
    query = select(impressions.c.id, impressions.c.user_id, impressions.c.item_id).where(named(impressions.c.id))
    found: Names = {}
    for some in chunks(filter(None, nameless)):
        found.update((name, (user, item)) for name, user, item in connection.execute(query, names(some)))
    return found


def _id(fact: Event) -> str:
    return fact.item_id if isinstance(fact, Item) else identity(fact)


def _repeats(fact: Event, known: dict[str, int]) -> bool:
    """Whether a record is one that is kept; if not, it is from now on. Of a product the newest metadata is kept."""
    name = _id(fact)
    at = known.get(name)
    if at is not None and (at == fact.at or not isinstance(fact, Item)):
        return True
    known[name] = fact.at if at is None else max(at, fact.at)
    return False


def _insert(connection: Connection, rows: Rows, newest: Mapping[str, int]) -> None:
    """``newest``: event time of each product's newest metadata, the only one that is kept."""
    kept = [row for row in rows[Item] if row[1] == newest[row[0]]]
    if kept:
        connection.execute(_REPLACED, [{"product": row[0]} for row in kept])
    for kind, table in TABLES.items():
        insert_rows(connection, table, COLUMNS[kind], kept if kind is Item else rows[kind])


def _attribute(connection: Connection, rows: Rows, first: int, windows: Mapping[str, int]) -> int:
    past, shown = 0, bool(rows[Impression])
    if shown or rows[Signal]:
        past += attribute(connection, signals, None, max(windows.values()), first, bool(rows[Signal]), shown)
    if shown or rows[Conversion]:
        for kind, window in windows.items():
            past += attribute(connection, conversions, kind, window, first, bool(rows[Conversion]), shown)
        credit(connection, first)
    if rows[Conversion] or rows[Adjustment]:
        retract(connection, first)
    return past


def _row(seq: int, known_at: int, fact: Event, graph: str | None, names_of: Names) -> tuple[Any, ...]:
    """An event as a row of its table, in the order of `COLUMNS`. User and product it does not name are its impression's."""
    if isinstance(fact, Item):
        return fact.item_id, fact.at, known_at, to_json(fact.features).decode()
    if isinstance(fact, Adjustment):
        return seq, fact.event_id, fact.at, known_at, fact.conversion_id, fact.action, _plus(fact.value)
    if isinstance(fact, Impression):
        shown = seq, fact.impression_id, fact.at, known_at, fact.user_id, fact.item_id, fact.context_item_id
        return *shown, to_json(fact.features).decode(), fact.served and fact.served.model_dump_json(), graph
    user, item = names_of.get(fact.impression_id or "", (None, None))
    told = fact.impression_id, fact.user_id or user, fact.item_id or item, fact.session_id
    row = (seq, fact.event_id, fact.kind, fact.at, known_at, *told)
    return (*row, _plus(fact.value), fact.basket_id) if isinstance(fact, Conversion) else row


def _plus(value: float | None) -> float | None:
    """A value without the sign of -0.0, which SQLite does not keep."""
    return None if value is None else value + 0.0
