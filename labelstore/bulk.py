"""Many rows in one statement: inserts as tuples, lists of keys as one parameter."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import BigInteger, Connection, Dialect, Select, Table, bindparam, cast, func, insert, select

SEQS = "seqs"

WITHIN: Select[int] = select(cast(func.json_each(bindparam(SEQS)).table_valued("value").c.value, BigInteger))
"""For ``column.in_(WITHIN)``: the keys given by `seqs`. One parameter, however many there are."""


def seqs(keys: Iterable[int]) -> dict[str, str]:
    """The parameter of `WITHIN`."""
    return {SEQS: to_json(list(keys)).decode()}


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows given as tuples of these columns, in the table's order; several times faster than dictionaries."""
    if rows:
        connection.exec_driver_sql(_insert(table, columns, connection.dialect), list(rows))


@lru_cache(maxsize=64)
def _insert(table: Table, columns: tuple[str, ...], dialect: Dialect) -> str:
    if list(columns) != [column.name for column in table.columns if column.name in columns]:
        raise ValueError(f"{table.name}: columns {columns} are not in the table's order")
    return str(insert(table).compile(dialect=dialect, column_keys=list(columns)))
