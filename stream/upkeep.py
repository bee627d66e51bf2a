"""A store on disk: how large it is, and how it is made small."""

import re
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, make_url

from labelstore import ledger
from labelstore.store import StoreError, existing, open_engine, told_plainly
from labelstore.vacuum import vacuum
from stream.workspace import alone, checkpoint_folder

OURS = re.compile(r"\d+\.(safetensors|partial)")  # what `stream.checkpoint` writes
SQLITE = b"SQLite format 3\0"


class Sizes(NamedTuple):
    """Bytes on disk: the database, its write-ahead log, the folder of checkpoints."""

    database: int
    write_ahead_log: int
    checkpoints: int


class Compacted(NamedTuple):
    """What was gained: sizes before and after, and the files that were removed from the folder of checkpoints."""

    before: Sizes
    after: Sizes
    removed: list[str]


def sizes(url: str) -> Sizes:
    """How large a store is on disk."""
    folder, database = checkpoint_folder(url), _database(url)
    ahead = database.with_name(database.name + "-wal")
    files = [file.stat().st_size for file in folder.glob("*") if file.is_file()]
    return Sizes(database.stat().st_size, ahead.stat().st_size if ahead.exists() else 0, sum(files))


def compact(url: str) -> Compacted:
    """Write the database anew, empty its write-ahead log, and remove checkpoint files that no row names.

    Raises:
        StoreError: there is no such store, or another process is using it.
    """
    with existing(url):
        before = sizes(url)  # as they are while it is open: closing it would empty the write-ahead log
    with alone(url, checkpoint_folder(url)), told_plainly(url):
        engine = open_engine(url, create=False)
        try:
            vacuum(engine)
            with engine.connect() as connection:
                removed = sweep(connection, url)
        finally:
            engine.dispose()
        return Compacted(before, sizes(url), removed)


def sweep(connection: Connection, url: str) -> list[str]:
    """Remove the checkpoint files that no row names, such as those of a run that was killed; only the writer may.

    Raises:
        StoreError: another database beside this one has the same name, so the files may be those of its checkpoints.
    """
    folder, database, named = checkpoint_folder(url), _database(url), ledger.files(connection)
    found = (file for file in sorted(folder.iterdir()) if OURS.fullmatch(file.name) and file.name not in named)
    files = [file for file in found if file.is_file()]
    for other in database.parent.iterdir() if files else ():
        if other.stem == database.stem and other.is_file() and not other.samefile(database) and _is_database(other):
            raise StoreError(
                f"{folder}: {files[0].name} and the like may belong to {other}, a database of the same name, so nothing was "
                "removed; move one of the two elsewhere, with its checkpoints"
            )
    for file in files:
        file.unlink()
    return [file.name for file in files]


def _database(url: str) -> Path:
    return Path(make_url(url).database or "")


def _is_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE
