"""Dead letters, for a person to look through: found by place or reason, and marked when retried or forwarded."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select, true, tuple_, update

from labelstore.tables import dead_letters

D = dead_letters.c
ORDER = (D.topic, D.partition, D.offset)
# in a reason, what differs from record to record
FOUND = re.compile(r", got .*| \((got|it is|there is) .*| at line \d+ column \d+", re.DOTALL)
APART, FURTHER = 1000, "(further reasons)"  # reasons told apart


class Place(NamedTuple):
    """Where a record stands in the log; written events/0@17."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


class Summary(NamedTuple):
    """A dead letter without its value. ``size``: bytes the store keeps. ``retried``: offset of the record appended."""

    place: Place
    timestamp: int | None
    reason: str
    size: int
    retried: int | None


class Letter(NamedTuple):
    """A dead letter; of its value the store keeps the first `ledger.DEAD_LETTER_BYTES`."""

    place: Place
    timestamp: int | None
    key: bytes | None
    value: bytes
    reason: str
    retried: int | None


class Count(NamedTuple):
    """How many dead letters have a reason, and how many of them were retried."""

    reason: str
    letters: int
    retried: int


def listed(connection: Connection, reason: str | None, limit: int) -> list[Summary]:
    """The first dead letters in the order of their places; only those whose reason holds this text, in any case."""
    query = select(*ORDER, D.timestamp, D.reason, func.length(D.value), D.retried).where(_holds(reason))
    rows = connection.execute(query.order_by(*ORDER).limit(limit))
    return [Summary(Place(*row[:3]), *row[3:]) for row in rows]


class Alike:
    """Reasons that differ only in what was found count as the first of them: a million wrong times are one reason.

    >>> alike = Alike()
    >>> alike("signal.at: expected milliseconds, got 7"), alike("signal.at: expected milliseconds, got 'noon' (and 2 more)")
    ('signal.at: expected milliseconds, got 7', 'signal.at: expected milliseconds, got 7')
    >>> alike("at: user.ts: missing (there is 'time', 'id')"), alike("at: user.ts: missing (there is 'when')")
    ("at: user.ts: missing (there is 'time', 'id')", "at: user.ts: missing (there is 'time', 'id')")

    Those past `APART` are `FURTHER`.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __call__(self, reason: str) -> str:
        kind = FOUND.sub("", reason)
        return self._first.setdefault(kind, reason) if kind in self._first or len(self._first) < APART else FURTHER


def counted(connection: Connection, reason: str | None = None) -> list[Count]:
    """How many there are, by reason, most first; reasons that are `Alike` together, as the most frequent of them."""
    letters, alike = func.count(), Alike()
    query = select(D.reason, letters, func.count(D.retried)).where(_holds(reason)).group_by(D.reason)
    found: dict[str, Count] = {}
    for told, times, retried in connection.execute(query.order_by(letters.desc(), D.reason)):
        before = found.get(first := alike(told), Count(first, 0, 0))
        found[first] = Count(first, before.letters + times, before.retried + retried)
    return sorted(found.values(), key=lambda count: (-count.letters, count.reason))


def letter(connection: Connection, place: Place) -> Letter | None:
    """The dead letter at a place; None if there is none."""
    at = and_(D.topic == place.topic, D.partition == place.partition, D.offset == place.offset)
    row = connection.execute(select(D.timestamp, D.key, D.value, D.reason, D.retried).where(at)).first()
    return Letter(place, *row) if row is not None else None


def places(connection: Connection, reason: str | None = None) -> dict[Place, int | None]:
    """Where they stand, in order, and the offset of the record appended for each that was retried."""
    query = select(*ORDER, D.retried).where(_holds(reason)).order_by(*ORDER)
    return {Place(*row[:3]): row[3] for row in connection.execute(query)}


def mark(connection: Connection, appended: Mapping[Place, int]) -> None:
    """Say that a record was appended for each of these, at this offset of the same partition."""
    for place, offset in appended.items():
        at = and_(D.topic == place.topic, D.partition == place.partition, D.offset == place.offset)
        connection.execute(update(dead_letters).where(at).values(retried=offset))


def unforwarded(connection: Connection, limit: int, after: Place | None = None) -> list[Letter]:
    """The first letters past a place, in the order of their places, that are not yet in the topic of dead letters."""
    query = select(*ORDER, D.timestamp, D.key, D.value, D.reason, D.retried).where(D.forwarded.is_(None))
    if after is not None:
        query = query.where(tuple_(*ORDER) > after)
    rows = connection.execute(query.order_by(*ORDER).limit(limit))
    return [Letter(Place(*row[:3]), *row[3:]) for row in rows]


def mark_forwarded(connection: Connection, places: Iterable[Place]) -> None:
    """Say that these are in the topic of dead letters."""
    for place in places:
        at = and_(D.topic == place.topic, D.partition == place.partition, D.offset == place.offset)
        connection.execute(update(dead_letters).where(at).values(forwarded=1))


def _holds(reason: str | None) -> ColumnElement[bool]:
    return D.reason.icontains(reason, autoescape=True) if reason else true()
