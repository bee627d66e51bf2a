"""The lock of the one writer, in the database itself: it also holds between machines that share no folder."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from labelstore.address import shown
from labelstore.engines import engine_of
from labelstore.postgres import check
from labelstore.refusals import StoreError, told_plainly

LOCK = 0x62656C61  # "bela": the first half of the key; the second is the schema
_TRY = text("SELECT pg_try_advisory_lock(:lock, n.oid::integer) FROM pg_namespace n WHERE n.nspname = current_schema()")


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Hold PostgreSQL's advisory lock of the writer, on a connection of its own: it goes with the session.

    Should the session end before its process does, two writers still cannot both commit: a checkpoint has one number.

    Raises:
        StoreError: another process has it, or the database cannot be reached.
    """
    engine = engine_of(url).execution_options(isolation_level="AUTOCOMMIT")
    with told_plainly(url):
        connection = engine.connect()
    try:
        with told_plainly(url):
            check(connection, url)
            free = connection.execute(_TRY, {"lock": LOCK}).scalar()
        if not free:
            raise StoreError(
                f"store {shown(url)}: another process is writing to it; wait until it is done, or give another --store"
            )
        yield
    finally:
        connection.invalidate()  # ends the session, also where the server is gone
        connection.close()
        engine.dispose()
