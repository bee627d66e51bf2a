"""Where a run keeps what it knows: the label store, and beside it the folder of checkpoints, for one writer at a time."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from labelstore.store import LabelStore, StoreError, told_plainly
from stream.checkpoint import Checkpoints
from stream.settings import Settings

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def opened(url: str | None, settings: Settings) -> Iterator[tuple[LabelStore, Checkpoints]]:
    """The label store and its checkpoints, which lie beside a SQLite file: ``x.db`` and ``x.checkpoints/``.

    Raises:
        StoreError: it cannot be opened, another run is writing to it, or there is no room to write. What was committed
            stays; the same command goes on from there.
    """
    with TemporaryDirectory(prefix="belated-") as temporary:
        url = url or f"sqlite:///{temporary}/store.db"
        folder = checkpoint_folder(url)
        with alone(url, folder), _room(folder), told_plainly(url):
            facts = LabelStore(url, {settings.target: settings.window}, settings.kept)
            try:
                yield facts, Checkpoints(facts, folder, settings)
            finally:
                facts.close()


def checkpoint_folder(url: str) -> Path:
    """Where the checkpoints of a store lie."""
    try:
        database = make_url(url).database
    except ArgumentError:
        database = None
    if not url.startswith("sqlite:") or not database or database == ":memory:":
        raise StoreError(f"store {url}: expected a SQLite file, such as sqlite:///belated.db")
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_suffix(".checkpoints")


@contextmanager
def alone(url: str, folder: Path) -> Iterator[None]:
    """Be the only one who writes to a store; the lock goes with the process, however it ends.

    Raises:
        StoreError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"store {url}: another process is writing to it; wait until it is done, or give another --store"
            ) from None
        yield


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StoreError(
            f"{error.filename or folder}: no room to write ({error.strerror}); free some and run the same command again: "
            "it goes on from the last checkpoint"
        ) from None
