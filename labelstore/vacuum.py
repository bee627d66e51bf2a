"""The database's own file: deleted rows overwritten, free pages given back, the write-ahead log emptied."""

from sqlalchemy import Connection, Engine

from labelstore import postgres
from labelstore.address import shown
from labelstore.refusals import StoreError
from labelstore.tables import metadata

TABLES = ", ".join(table.name for table in metadata.sorted_tables)


def overwrite_deleted(connection: Connection) -> None:
    """From now on, what this connection deletes is overwritten with zeros, where the database knows how."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def may_vacuum(connection: Connection, url: str) -> None:
    """Refuse, before anything is deleted, a store that this user cannot write anew.

    Raises:
        StoreError: with the remedy.
    """
    if connection.dialect.name == "postgresql":
        postgres.must_own(connection, url)


def vacuum(engine: Engine, url: str) -> None:
    """Write the database anew, without what was deleted. Nothing may be uncommitted.

    On PostgreSQL each table is: nobody can read it meanwhile.

    Raises:
        StoreError: somebody is reading; it is written anew, but old pages are still there beside the new ones.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM (FULL, ANALYZE) " + TABLES)
            return
        connection.exec_driver_sql("PRAGMA temp_store=FILE")  # not in memory: the copy is as large as the store
        connection.exec_driver_sql("VACUUM")
        if connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
            raise StoreError(
                f"store {shown(url)}: another process is reading it, so old pages could not be removed from its files; "
                "wait until it is done, then run: belated store compact --store URL"
            )


def tidy(engine: Engine, url: str) -> None:
    """Make room of what was deleted: SQLite gives it back, PostgreSQL keeps it for new rows and lets others read on.

    Raises:
        StoreError: the tables are another role's, or, see `vacuum`, somebody is reading.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            may_vacuum(connection, url)
            connection.exec_driver_sql("VACUUM (ANALYZE) " + TABLES)
    else:
        vacuum(engine, url)
