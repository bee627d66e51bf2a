"""A store on disk: how large it is, and how it is made small."""

import re
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from labelstore import ledger
from labelstore.address import sqlite_file
from labelstore.postgres import size
from labelstore.store import StoreError, existing, open_engine, told_plainly
from labelstore.vacuum import tidy
from stream.workspace import alone, known_folder

OURS = re.compile(
    r"(graph-)?\d+(-snapshot)?(\.(safetensors|made|refused)|(-\d+)?\.partial)"
)  # what `checkpoint`, `refresh` and its worker write
SQLITE = b"SQLite format 3\0"


class Sizes(NamedTuple):
    """Bytes of the database, its write-ahead log (0: a server has its own), the folder of checkpoints (0: not known)."""

    database: int
    write_ahead_log: int
    checkpoints: int


class Compacted(NamedTuple):
    """What was gained: sizes before and after, and the files that were removed from the folder of checkpoints."""

    before: Sizes
    after: Sizes
    removed: list[str]


def sizes(url: str, checkpoints: Path | None = None) -> Sizes:
    """How large a store is on disk."""
    folder, database = known_folder(url, checkpoints), sqlite_file(url)
    files = [file.stat().st_size for file in folder.glob("*") if file.is_file()] if folder else []
    if database is None:
        with existing(url) as connection:
            return Sizes(size(connection), 0, sum(files))
    ahead = database.with_name(database.name + "-wal")
    return Sizes(database.stat().st_size, ahead.stat().st_size if ahead.exists() else 0, sum(files))


def compact(url: str, checkpoints: Path | None = None) -> Compacted:
    """Make room of what was deleted, and remove checkpoint files that no row names, where their folder is known.

    Raises:
        StoreError: there is no such store, another process is using it, or its tables are another role's.
    """
    with existing(url):
        before = sizes(url, checkpoints)  # as they are while it is open: closing it would empty the write-ahead log
    folder = known_folder(url, checkpoints)
    with alone(url, folder), told_plainly(url):
        engine = open_engine(url, create=False)
        try:
            tidy(engine, url)
            with engine.connect() as connection:
                removed = sweep(connection, url, folder) if folder else []
        finally:
            engine.dispose()
        return Compacted(before, sizes(url, checkpoints), removed)


def sweep(connection: Connection, url: str, folder: Path) -> list[str]:
    """Remove the checkpoint files that no row names, such as those of a run that was killed; only the writer may.

    Raises:
        StoreError: another database beside this one has the same name, so the files may be those of its checkpoints.
    """
    database, named = sqlite_file(url), ledger.files(connection) | ledger.bundles(connection)
    found = (file for file in sorted(folder.iterdir()) if OURS.fullmatch(file.name) and file.name not in named)
    files = [file for file in found if file.is_file()]
    for other in database.parent.iterdir() if files and database else ():
        if database and other.stem == database.stem and _is_another(other, database):
            raise StoreError(
                f"{folder}: {files[0].name} and the like may belong to {other}, a database of the same name, so nothing was "
                "removed; move one of the two elsewhere, with its checkpoints"
            )
    for file in files:
        file.unlink()
    return [file.name for file in files]


def _is_another(file: Path, database: Path) -> bool:
    return file.is_file() and not file.samefile(database) and _is_database(file)


def _is_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE
