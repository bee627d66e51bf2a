"""A user's rows: found by the user's id and by the ids of the user's impressions and conversions, and deleted.

Everything here is part of the caller's transaction. ``seq`` of what stays is not touched, so retention cuts where it did.
"""

import hashlib
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, insert, select

from labelstore.bulk import chunks, seqs, within
from labelstore.letters import Place
from labelstore.tables import (
    adjustments,
    conversions,
    dead_letters,
    erasures,
    impressions,
    looks,
    predictions,
    signals,
    waiting,
)
from labelstore.traces import Traces

FEW = 100  # records in memory at once


class Erased(NamedTuple):
    """``counts``: rows by table, only where there were any. ``impressions``: seqs of the impressions that are gone."""

    counts: dict[str, int]
    impressions: frozenset[int]


def trace(connection: Connection, traces: Traces) -> None:
    """Learn the ids of the user's impressions and conversions, those among the waiting records too."""
    shown = _seqs(connection, impressions, impressions.c.user_id == traces.user)
    for keys in chunks(shown):
        traces.impressions.update(
            connection.execute(select(impressions.c.id).where(impressions.c.seq.in_(keys))).scalars()
        )
    known = -1
    while known < len(traces):
        known = len(traces)
        for (value,) in _few(connection, select(waiting.c.value)):
            traces.owns(value)
    mine = _referring(connection, conversions, traces, shown)
    for keys in chunks(mine):
        traces.conversions.update(
            connection.execute(select(conversions.c.id).where(conversions.c.seq.in_(keys))).scalars()
        )


def erase(connection: Connection, traces: Traces, places: Set[Place] = frozenset()) -> Erased:
    """Delete all that is the user's: impressions with their scores and looks, signals, conversions, adjustments, waiting
    records, and dead letters that mention the user or stand at one of these places of the log."""
    shown = _seqs(connection, impressions, impressions.c.user_id == traces.user)
    shown |= _by_id(connection, impressions, impressions.c.id, traces.impressions)
    bought = _referring(connection, conversions, traces, shown)
    found: dict[Table, set[int]] = {
        signals: _referring(connection, signals, traces, shown),
        conversions: bought,
        adjustments: _by_id(connection, adjustments, adjustments.c.conversion_id, traces.conversions),
        impressions: shown,
    }
    counts = {table.name: _delete(connection, table, table.c.impression, shown) for table in (predictions, looks)}
    counts |= {table.name: _delete(connection, table, table.c.seq, keys) for table, keys in found.items()}
    W, D = waiting.c, dead_letters.c
    rows = _few(connection, select(W.topic, W.partition, W.offset, W.value))
    counts[waiting.name] = _delete_at(connection, waiting, {Place(*r[:3]) for r in rows if traces.owns(r[3])})
    dead = _few(connection, select(D.topic, D.partition, D.offset, D.value, D.key))
    mine = {Place(*r[:3]) for r in dead if Place(*r[:3]) in places or traces.mentions(*r[3:])}
    counts[dead_letters.name] = _delete_at(connection, dead_letters, mine)
    return Erased({name: rows for name, rows in sorted(counts.items()) if rows}, frozenset(shown))


def record(connection: Connection, user: str, at: int, counts: Mapping[str, int]) -> None:
    """Write down that a user was erased, at this event time of the store; of the user only the sha256 of the id."""
    n = connection.execute(select(func.coalesce(func.max(erasures.c.n), 0))).scalar_one() + 1
    connection.execute(insert(erasures), [{"n": n, "user_sha256": _sha256(user), "at": at, "counts": dict(counts)}])


def recorded(connection: Connection, user: str) -> list[int]:
    """The event times the store had reached when this user was erased before."""
    E = erasures.c
    return list(connection.execute(select(E.at).where(E.user_sha256 == _sha256(user)).order_by(E.n)).scalars())


def _few(connection: Connection, query: Select[Any]) -> Iterable[Any]:
    """The rows, of which some are in memory at once: a value may be as long as a record."""
    return connection.execute(query.execution_options(yield_per=FEW))


def _sha256(user: str) -> str:
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def _referring(connection: Connection, table: Table, traces: Traces, shown: Set[int]) -> set[int]:
    """The signals or conversions of the user, of these impressions (by seq), and of those known by id."""
    C = table.c
    found = _seqs(connection, table, C.user_id == traces.user)
    for keys in chunks(shown):
        found |= _seqs(connection, table, C.impression.in_(keys))
    found |= _by_id(connection, table, C.impression_id, traces.impressions)
    return found | (_by_id(connection, table, C.id, traces.conversions) if table is conversions else set())


def _by_id(connection: Connection, table: Table, column: ColumnElement[Any], ids: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for keys in chunks(ids):
        found |= _seqs(connection, table, column.in_(keys))
    return found


def _seqs(connection: Connection, table: Table, where: ColumnElement[bool]) -> set[int]:
    return set(connection.execute(select(table.c.seq).where(where)).scalars())


def _delete(connection: Connection, table: Table, column: ColumnElement[int], keys: Set[int]) -> int:
    return connection.execute(delete(table).where(within(column)), seqs(sorted(keys))).rowcount if keys else 0


def _delete_at(connection: Connection, table: Table, places: Set[Place]) -> int:
    C = table.c
    for topic, partition, offset in sorted(places):
        connection.execute(delete(table).where(C.topic == topic, C.partition == partition, C.offset == offset))
    return len(places)
