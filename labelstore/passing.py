"""Records in: duplicates out, rows inserted in bulk, attribution decided."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, Table, insert, select

from labelstore.attribution import attribute, retract
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

Rows = dict[type[Event], list[dict[str, Any]]]


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
            query = select(*columns).where(table.c.id.in_(ids[chunk : chunk + IDS]))
            known[kind].update("@".join(map(str, row)) for row in connection.execute(query))
    return known


def _insert(connection: Connection, rows: Rows) -> None:
    for kind, table in TABLES.items():
        if rows[kind] and kind is not Item:
            connection.execute(insert(table), rows[kind])
    newest: dict[str, dict[str, Any]] = {}
    for row in rows[Item]:  # only the newest metadata of a product is kept
        if row["id"] not in newest or row["at"] >= newest[row["id"]]["at"]:
            newest[row["id"]] = row
    for name, at in connection.execute(select(items.c.id, items.c.at).where(items.c.id.in_(list(newest)))).all():
        if at > newest[name]["at"]:
            del newest[name]
        else:
            connection.execute(items.delete().where(items.c.id == name))
    if newest:
        connection.execute(insert(items), list(newest.values()))


def _attribute(connection: Connection, rows: Rows, first: int, windows: Mapping[str, int]) -> int:
    past = 0
    if rows[Impression] or rows[Signal]:
        past += attribute(connection, signals, None, max(windows.values()), first)
    if rows[Impression] or rows[Conversion]:
        for kind, window in windows.items():
            past += attribute(connection, conversions, [kind], window, first)
    if rows[Conversion] or rows[Adjustment]:
        retract(connection, first)
    return past


def _row(seq: int, known_at: int, fact: Event) -> dict[str, Any]:
    """An event as a row of its table."""
    row: dict[str, Any] = {"id": identity(fact), "at": fact.at, "known_at": known_at}
    if isinstance(fact, Item):
        return row | {"id": fact.item_id, "features": to_json(fact.features).decode()}
    row["seq"] = seq
    if isinstance(fact, Adjustment):
        return row | {"conversion_id": fact.conversion_id, "action": fact.action, "value": fact.value}
    row |= {"user_id": fact.user_id, "item_id": fact.item_id}
    if isinstance(fact, Impression):
        features, served = to_json(fact.features).decode(), fact.served and fact.served.model_dump_json()
        return row | {"context_item_id": fact.context_item_id, "features": features, "served": served}
    row |= {"kind": fact.kind, "impression_id": fact.impression_id, "session_id": fact.session_id}
    return row | ({"value": fact.value, "basket_id": fact.basket_id} if isinstance(fact, Conversion) else {})
