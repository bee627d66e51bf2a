"""The database's own file: deleted rows overwritten, free pages given back, the write-ahead log emptied."""

from sqlalchemy import Connection, Engine

from labelstore.store import StoreError


def overwrite_deleted(connection: Connection) -> None:
    """From now on, what this connection deletes is overwritten with zeros, where the database knows how."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def vacuum(engine: Engine) -> None:
    """Write the database anew, without what was deleted. Nothing may be uncommitted.

    Raises:
        StoreError: somebody is reading; it is written anew, but old pages are still there beside the new ones.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql("PRAGMA temp_store=FILE")  # not in memory: the copy is as large as the store
        connection.exec_driver_sql("VACUUM")
        if sqlite and connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
            raise StoreError(
                f"store {engine.url}: another process is reading it, so old pages could not be removed from its files; "
                "wait until it is done, then run: belated store compact --store URL"
            )
