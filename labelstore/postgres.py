"""What PostgreSQL does differently: settings of a session, rows by COPY, statistics, sizes."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DatabaseError

from labelstore.address import shown
from labelstore.refusals import StoreError
from labelstore.tables import metadata

OLDEST = 15
CONNECT: dict[str, Any] = {"connect_timeout": 10, "keepalives_idle": 60, "application_name": "belated"}
SETTINGS = (
    "SET plan_cache_mode = force_custom_plan",  # a plan for any `first` would read whole tables
    "SET jit = off",  # many small queries: compiling costs more than running
    "SET lock_timeout = '30s'",
    # a server's own limits: the lock of the writer is an idle session, and what waits for a commit an idle transaction
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', "
    "'idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout')",
)

_SIZE = text(
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname = ANY(:names)"
)


_OTHERS = text(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() "
    "AND c.relkind = 'r' AND c.relname = ANY(:names) AND NOT pg_has_role(c.relowner, 'USAGE') "
    "AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND pg_has_role(d.datdba, 'USAGE')) "
    "AND NOT CASE WHEN current_setting('server_version_num')::int >= 170000 "
    "THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END ORDER BY c.relname"
)


def settle(connection: Any, _: object) -> None:
    """Settings of a new session, given to the driver's own connection."""
    connection.autocommit = True
    for setting in SETTINGS:
        connection.execute(setting)
    connection.autocommit = False


def check(connection: Connection, url: str) -> None:
    """Refuse a server that is too old, and a database that cannot keep every text.

    Raises:
        StoreError: with the remedy.
    """
    version = connection.dialect.server_version_info or (0,)
    if version < (OLDEST,):
        raise StoreError(f"store {shown(url)}: PostgreSQL {version[0]} is too old; expected {OLDEST} or newer")
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise StoreError(f"store {shown(url)}: its encoding is {encoding}; create the database with ENCODING 'UTF8'")
    if connection.exec_driver_sql("SELECT current_schema()").scalar_one() is None:
        raise StoreError(f"store {shown(url)}: the schema of its search_path does not exist; create it")


def must_own(connection: Connection, url: str) -> None:
    """Refuse a role that may delete rows and not write their tables anew: the server only warns, and leaves the old bytes.

    Raises:
        StoreError: it names the first table that is another's, and the remedy.
    """
    others = connection.execute(_OTHERS, {"names": [table.name for table in metadata.sorted_tables]}).scalars().all()
    if others:
        raise StoreError(
            f"store {shown(url)}: the table {others[0]} belongs to another role, and this one may not write it anew: "
            "what was deleted would stay in its file; give the owner of the tables as the user in --store"
        )


def copy(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows by COPY, in the transaction of this connection.

    Raises:
        DatabaseError: the server refuses them.
    """
    from psycopg import Error
    from psycopg.sql import SQL, Identifier

    if not connection.in_transaction():
        connection.begin()
    names = SQL(", ").join(map(Identifier, columns))
    statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table.name), names)
    try:
        with connection.connection.cursor() as cursor, cursor.copy(statement) as sink:  # type: ignore[attr-defined]
            for row in rows:
                sink.write_row(row)
    except Error as error:
        raise DatabaseError(f"COPY {table.name}", None, error) from error


def analyze(connection: Connection) -> None:
    """Tell the planner how large the tables are, uncommitted rows among them; inside of the transaction."""
    connection.exec_driver_sql("ANALYZE impressions, signals, conversions, adjustments, predictions, looks, item_pairs")


def size(connection: Connection) -> int:
    """Bytes of the tables with their indexes."""
    return int(connection.execute(_SIZE, {"names": list(metadata.tables)}).scalar_one())
