"""Records in: duplicates out, rows inserted in bulk, attribution decided."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, Table, select

from labelstore.attribution import attribute, credit, retract
from labelstore.bulk import insert_rows, named, names
from labelstore.events import Adjustment, Conversion, Event, Impression, Item, Signal, identity
from labelstore.tables import adjustments, conversions, impressions, items, signals

IDS = 5000  # ids in one query

TABLES: dict[type[Event], Table] = {
    Impression: impressions,
    Signal: signals,
    Conversion: conversions,
    Adjustment: adjustments,
    Item: items,
}

Rows = dict[type[Event], list[tuple[Any, ...]]]

REFERRING = ("seq", "id", "kind", "at", "known_at", "impression_id", "user_id", "item_id", "session_id")
COLUMNS: dict[type[Event], tuple[str, ...]] = {
    Impression: ("seq", "id", "at", "known_at", "user_id", "item_id", "context_item_id", "features", "served"),
    Signal: REFERRING,
    Conversion: (*REFERRING, "value", "basket_id"),
    Adjustment: ("seq", "id", "at", "known_at", "conversion_id", "action", "value"),
    Item: ("id", "at", "known_at", "features"),
}


class Shown(NamedTuple):
    """An impression that has just passed."""

    seq: int
    known_at: int
    impression: Impression


def pass_on(
    connection: Connection, facts: Sequence[tuple[int, Event]], last: int, windows: Mapping[str, int]
) -> tuple[list[Shown], Counter[str], int]:
    """Take the records that pass now.

    Args:
        facts: (known_at, event), in the one order in which records pass.
        last: the highest ``seq`` given so far.
        windows: target kind -> attribution window, ms.

    Returns: the new impressions; counts of each table's new rows, ``duplicates`` and ``past_window``; the highest seq.
    """
    counts: Counter[str] = Counter()
    rows: Rows = {kind: [] for kind in TABLES}
    shown: list[Shown] = []
    known = _known(connection, facts)
    seq = last
    for known_at, fact in facts:
        kind, name = type(fact), identity(fact)
        if name in known[kind]:
            counts["duplicates"] += 1
            continue
        known[kind].add(name)
        seq += 1
        counts[TABLES[kind].name] += 1
        rows[kind].append(_row(seq, known_at, fact))
        if isinstance(fact, Impression):
            shown.append(Shown(seq, known_at, fact))
    _insert(connection, rows)
    counts["past_window"] = _attribute(connection, rows, last + 1, windows)
    return shown, counts, seq


def _known(connection: Connection, facts: Sequence[tuple[int, Event]]) -> dict[type[Event], set[str]]:
    """Of the identities in these records, those the store already has."""
    asked: dict[type[Event], list[str]] = {kind: [] for kind in TABLES}
    for _, fact in facts:
        asked[type(fact)].append(fact.item_id if isinstance(fact, Item) else identity(fact))
    known: dict[type[Event], set[str]] = {kind: set() for kind in TABLES}
    for kind, ids in asked.items():
        table = TABLES[kind]
        columns = (table.c.id, table.c.at) if kind is Item else (table.c.id,)
        for chunk in range(0, len(ids), IDS):
            query = select(*columns).where(named(table.c.id))
            rows = connection.execute(query, names(ids[chunk : chunk + IDS]))
            known[kind].update("@".join(map(str, row)) for row in rows)
    return known


def _insert(connection: Connection, rows: Rows) -> None:
    for kind, table in TABLES.items():
        if kind is not Item:
            insert_rows(connection, table, COLUMNS[kind], rows[kind])
    newest: dict[str, tuple[Any, ...]] = {}
    for row in rows[Item]:  # only the newest metadata of a product is kept
        if row[0] not in newest or row[1] >= newest[row[0]][1]:
            newest[row[0]] = row
    older: list[str] = []
    before = select(items.c.id, items.c.at).where(named(items.c.id))
    for name, at in connection.execute(before, names(newest)) if newest else ():
        if at > newest[name][1]:
            del newest[name]
        else:
            older.append(name)
    if older:
        connection.execute(items.delete().where(named(items.c.id)), names(older))
    insert_rows(connection, items, COLUMNS[Item], list(newest.values()))


def _attribute(connection: Connection, rows: Rows, first: int, windows: Mapping[str, int]) -> int:
    past, shown = 0, bool(rows[Impression])
    if shown or rows[Signal]:
        past += attribute(connection, signals, None, max(windows.values()), first, bool(rows[Signal]), shown)
    if shown or rows[Conversion]:
        for kind, window in windows.items():
            past += attribute(connection, conversions, kind, window, first, bool(rows[Conversion]), shown)
        credit(connection)
    if rows[Conversion] or rows[Adjustment]:
        retract(connection, first)
    return past


def _row(seq: int, known_at: int, fact: Event) -> tuple[Any, ...]:
    """An event as a row of its table, in the order of `COLUMNS`."""
    if isinstance(fact, Item):
        return fact.item_id, fact.at, known_at, to_json(fact.features).decode()
    if isinstance(fact, Adjustment):
        return seq, fact.event_id, fact.at, known_at, fact.conversion_id, fact.action, _plus(fact.value)
    if isinstance(fact, Impression):
        shown = seq, fact.impression_id, fact.at, known_at, fact.user_id, fact.item_id, fact.context_item_id
        return *shown, to_json(fact.features).decode(), fact.served and fact.served.model_dump_json()
    names = fact.impression_id, fact.user_id, fact.item_id, fact.session_id
    row = (seq, fact.event_id, fact.kind, fact.at, known_at, *names)
    return (*row, _plus(fact.value), fact.basket_id) if isinstance(fact, Conversion) else row


def _plus(value: float | None) -> float | None:
    """A value without the sign of -0.0, which SQLite does not keep."""
    return None if value is None else value + 0.0
