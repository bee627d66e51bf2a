"""An engine for a store, with the settings each session gets. Nothing is connected to yet."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

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


def _frozen(file: Path) -> bool:
    """Whether nothing can come beside a SQLite file, and nothing of it is there: a backup, a mounted snapshot."""
    return not os.access(file.parent, os.W_OK, effective_ids=True) and not file.with_name(file.name + "-wal").exists()


def _sqlite_settings(connection: Any, _: object) -> None:
    """NORMAL: a power cut may lose the last commit, never half of one."""
    for pragma in ("synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}")
