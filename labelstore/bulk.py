"""Many rows in one statement: inserts as tuples, lists of keys as one parameter."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Table,
    Text,
    any_,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from labelstore import postgres

SEQS, NAMES = "seqs", "names"
IDS = 5000  # keys in one query


class _Keys(TypeDecorator[Any]):
    """A list of keys as one value: an array on PostgreSQL, JSON on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[TypeEngine[Any]] = BigInteger) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(self.of) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else to_json(value).decode()


class _Within(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> "_Within":
        """As it is: SQLite has no booleans and would be asked for (.. IN ..) = 1, for which it uses no index."""
        return self


@compiles(_Within)
def _within(element: _Within, compiler: Any, **how: Any) -> str:
    column, keys = element.clauses
    given = select(func.json_each(keys).table_valued("value").c.value)
    return str(compiler.process(column.in_(given), **how))


@compiles(_Within, "postgresql")
def _within_array(element: _Within, compiler: Any, **how: Any) -> str:
    column, keys = element.clauses
    return str(compiler.process(column == any_(keys), **how))


def within(column: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the column is one of the keys given by `seqs`. One parameter, however many there are."""
    return _Within(column, bindparam(SEQS, type_=_Keys()))


def seqs(keys: Iterable[int]) -> dict[str, list[int]]:
    """The parameter of `within`."""
    return {SEQS: list(keys)}


def named(column: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the column is one of the ids given by `names`."""
    return _Within(column, bindparam(NAMES, type_=_Keys(Text)))


def names(ids: Iterable[str]) -> dict[str, list[str]]:
    """The parameter of `named`."""
    return {NAMES: list(ids)}


def chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """The keys in their order, as many at a time as one query is asked for.

    >>> [len(some) for some in chunks(range(12_000))]
    [5000, 5000, 2000]
    """
    found = sorted(keys)
    for start in range(0, len(found), IDS):
        yield found[start : start + IDS]


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows given as tuples of these columns, in the table's order; several times faster than dictionaries.

    No key may be there already.
    """
    if not rows:
        return
    statement = _insert(table, columns, connection.dialect)
    if connection.dialect.name == "postgresql":
        postgres.copy(connection, table, columns, rows)
    else:
        connection.exec_driver_sql(statement, list(rows))


@lru_cache(maxsize=64)
def _insert(table: Table, columns: tuple[str, ...], dialect: Dialect) -> str:
    if list(columns) != [column.name for column in table.columns if column.name in columns]:
        raise ValueError(f"{table.name}: columns {columns} are not in the table's order")
    return str(insert(table).compile(dialect=dialect, column_keys=list(columns)))
