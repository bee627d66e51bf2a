"""An engine for a store, with the settings each session gets. Nothing is connected to yet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from labelstore import postgres
from labelstore.address import EXPECTED, POSTGRES, SQLITE, read, shown, sqlite_file
from labelstore.refusals import StoreError, sentence

NEEDED = "PostgreSQL needs its driver: pip install 'belated[postgres]'"


def engine_of(url: str, create: bool = True) -> Engine:
    """The engine of a URL; a file that is read and cannot be written to is opened as one that does not change.

    Raises:
        StoreError: the URL cannot be read, its driver is missing, or there is no such file and ``create`` is off.
    """
    try:
        address = read(url)
        file = sqlite_file(url)
        if not create and file and not file.is_file():
            raise StoreError(f"store {shown(url)}: there is no such file; give the URL used with --store")
        server = address.get_backend_name() == POSTGRES
        if not create and file and _frozen(file):
            address = address.set(
                database=f"file:{quote(str(file.resolve()))}", query={"immutable": "1", "uri": "true"}
            )
        engine = create_engine(address, connect_args=postgres.CONNECT if server else {})
    except ImportError as error:
        remedy = NEEDED if url.startswith("postgres") else EXPECTED
        raise StoreError(f"store {shown(url)}: {sentence(error)}; {remedy}") from None
    except SQLAlchemyError as error:
        raise StoreError(f"store {shown(url)}: {sentence(error)}; {EXPECTED}") from None
    if server:
        event.listen(engine, "connect", postgres.settle)
    elif engine.dialect.name == SQLITE:
        event.listen(engine, "connect", _sqlite_settings)
    return engine


@contextmanager
def as_it_was(engine: Engine, url: str) -> Iterator[None]:
    """Hold a file that is opened as one that does not change to it: SQLite takes no locks on it, and would not notice.

    Raises:
        StoreError: it was written to meanwhile.
    """
    file = sqlite_file(url) if "immutable" in engine.url.query else None
    before = file and _stamp(file)
    try:
        yield
    except DBAPIError:
        if file is None or _stamp(file) == before:
            raise
    if file and _stamp(file) != before:
        raise StoreError(f"store {shown(url)}: was written to while it was read; run this again")


def _stamp(file: Path) -> tuple[int, int, bool]:
    told = file.stat()
    return told.st_mtime_ns, told.st_size, _ahead(file).exists()


def _ahead(file: Path) -> Path:
    """Where SQLite writes first."""
    return file.with_name(file.name + "-wal")


def _frozen(file: Path) -> bool:
    """Whether nothing can come beside a SQLite file, and nothing of it is there: a backup, a mounted snapshot."""
    return not os.access(file.parent, os.W_OK, effective_ids=True) and not _ahead(file).exists()


def _sqlite_settings(connection: Any, _: object) -> None:
    """FULL: a commit is on the disk when it returns, for then the files of older checkpoints are removed."""
    for pragma in ("synchronous=FULL", "temp_store=MEMORY", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}")
