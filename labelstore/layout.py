"""Which revision of the tables a store has: a new one gets the newest, an older one is refused until it is upgraded."""

import re
from collections.abc import Set
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from labelstore import postgres
from labelstore.address import shown
from labelstore.refusals import StoreError
from labelstore.tables import erasures, metadata

HEAD = "0007"  # the last file of migrations/versions
CORE = {"impressions", "signals", "conversions", "looks", "checkpoints"}  # tables that each of them has
UNMARKED = ("0001", "0002")  # stores of before revisions: without and with the table of erasures
BESIDE = MetaData()  # the mark is no part of what a log says
version = Table("alembic_version", BESIDE, Column("version_num", String(32), primary_key=True))


def create(engine: Engine) -> None:
    """Make the tables of the newest revision, and say which it is; what is there already stays.

    A file of SQLite's gets a write-ahead log, so that readers never block the writer.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        if inspect(connection).has_table(version.name):
            return
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # else each table would be made for good by itself
        _make(connection)


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    BESIDE.create_all(connection)
    connection.execute(insert(version), [{"version_num": HEAD}])


def _mark(connection: Connection, there: Set[str]) -> str | None:
    """The revision that is written down, or can be told by the tables that are ``there``."""
    if version.name in there:
        return connection.execute(select(version.c.version_num)).scalar()
    return UNMARKED[erasures.name in there] if there >= CORE else None


def check(connection: Connection, url: str, create: bool) -> None:
    """Refuse a server that does not fit, a store of another revision, and, unless it may be created, none at all.

    Raises:
        StoreError: with the remedy.
    """
    if connection.dialect.name == "postgresql":
        postgres.check(connection, url)
    found = recognised(connection, url)
    if found is None and create:
        return
    if found is None:
        raise StoreError(f"store {shown(url)}: holds no label store; give the URL used with --store")
    if not is_newest(connection, found):
        raise StoreError(
            f"store {shown(url)}: has revision {found} of the tables, and this belated needs {HEAD}; "
            "run: belated store upgrade --store URL"
        )


def recognised(connection: Connection, url: str) -> str | None:
    """The revision of a store; None where there is none yet.

    Raises:
        StoreError: a revision that is not known here, or tables of somebody else's.
    """
    there = set(inspect(connection).get_table_names())
    found = _mark(connection, there)
    if there >= CORE and found in known():
        return found
    if there >= CORE and found and re.fullmatch(r"\d{4}", found):
        raise StoreError(f"store {shown(url)}: has revision {found}, which a newer belated wrote; install that one")
    if taken := sorted(there & {version.name, *metadata.tables}):
        raise StoreError(
            f"store {shown(url)}: there is a table {taken[0]} that belated did not make; give the store a file, database "
            "or schema of its own, as docs/stores.md shows"
        )
    return None


def is_newest(connection: Connection, found: str | None) -> bool:
    """Whether the revision that was ``found`` is the newest, and the store says so."""
    return found == HEAD and inspect(connection).has_table(version.name)


def known() -> list[str]:
    """All revisions, the oldest first.

    >>> known()
    ['0001', '0002', '0003', '0004', '0005', '0006', '0007']
    """
    return [f"{n:04}" for n in range(1, int(HEAD) + 1)]


def upgrade(engine: Engine, url: str, make: bool = False) -> tuple[str | None, str]:
    """Bring the tables to the newest revision, in one transaction. Returns the revisions before and after.

    Raises:
        StoreError: there is none and none is to be made, or a newer one.
    """
    from alembic import command

    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        before = recognised(connection, url)
        if before is None and not make:
            raise StoreError(
                f"store {shown(url)}: holds no label store; give the URL used with --store, or --create one"
            )
        if before is None:
            _make(connection)
            return None, HEAD
        if not inspect(connection).has_table(version.name):
            BESIDE.create_all(connection)
            connection.execute(insert(version), [{"version_num": before}])
        command.upgrade(configuration(connection), HEAD)
    return before, HEAD


def configuration(connection: Connection) -> Any:
    """What alembic is told: where the migrations are, and the connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "labelstore:migrations")
    return config
