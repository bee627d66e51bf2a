"""What a store holds: rows by table, and a digest that two stores share exactly if they know the same."""

import hashlib

from sqlalchemy import Connection, func, select

from labelstore.tables import checkpoints, erasures, journal, metadata, swaps

CHUNK = 10_000
BESIDE = {"retried", "forwarded"}  # columns that are no part of what a log says
APART = {checkpoints, erasures, journal, swaps}  # tables that are not


def sizes(connection: Connection) -> dict[str, int]:
    """Rows of each table, in the order of their names."""
    tables = sorted(metadata.tables.items())
    return {name: connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in tables}


def span(connection: Connection) -> tuple[int, int] | None:
    """Event time of the first and the last impression that is kept, ms; None if there is none."""
    at = metadata.tables["impressions"].c.at
    first, last = connection.execute(select(func.min(at), func.max(at))).one()
    return (first, last) if first is not None else None


def digest(connection: Connection) -> str:
    """sha256 over the rows of all tables but those apart, each table in the order of its key."""
    told = hashlib.sha256()
    for name, table in sorted(metadata.tables.items()):
        if table in APART:
            continue
        columns = [column for column in table.columns if column.name not in BESIDE]
        told.update(name.encode())
        query = select(*columns).order_by(*table.primary_key).execution_options(yield_per=CHUNK)
        for row in connection.execute(query):
            told.update(repr(tuple(row)).encode())
    return told.hexdigest()
