"""A PostgreSQL server for tests: the one that BELATED_POSTGRES names, or one that is started and ended here."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest
import servers

HOW = (
    "needs PostgreSQL 15 or newer: install its server (initdb on PATH or in /usr/lib/postgresql/*/bin), or set "
    "BELATED_POSTGRES=postgresql+psycopg://user:password@host/database, and install psycopg: pip install 'belated[postgres]'"
)
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "max_connections=40")
_numbers = count()


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a database in which schemas may be made, with its password."""
    pytest.importorskip("psycopg", reason=HOW)
    if given := os.environ.get("BELATED_POSTGRES"):
        yield given
        return
    binaries = servers.binaries()
    if binaries is None:
        pytest.skip(HOW)
    folder = Path(tempfile.mkdtemp(prefix="belated-postgres-"))
    try:
        database = servers.Database(binaries, folder, *QUICK)
        database.start()
        try:
            yield database.url
        finally:
            database.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def schema(server: str) -> AbstractContextManager[str]:
    """The URL of a store in a schema of its own, which is dropped in the end."""
    return servers.schema(server, f"belated_{os.getpid()}_{next(_numbers)}")
