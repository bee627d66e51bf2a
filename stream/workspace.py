"""Where a run keeps what it knows: the label store, and the folder of checkpoints, for one writer at a time.

A SQLite store has its checkpoints beside it. One on a server has them in a folder that is named, and that it shares with
no other store.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from sqlalchemy.exc import ArgumentError

from labelstore import lock
from labelstore.address import EXPECTED, named, on_a_server, shown, sqlite_file
from labelstore.refusals import KEPT
from labelstore.store import LabelStore, StoreError, told_plainly
from stream.checkpoint import Checkpoints
from stream.drafts import refused
from stream.settings import Settings


@contextmanager
def opened(
    url: str | None, settings: Settings, checkpoints: Path | None = None
) -> Iterator[tuple[LabelStore, Checkpoints]]:
    """The label store and its checkpoints; ``checkpoints``: their folder, see `checkpoint_folder`.

    Raises:
        StoreError: it cannot be opened, another run is writing to it, or there is no room to write. What was committed
            stays; the same command goes on from there.
    """
    with nullcontext() if url else TemporaryDirectory(prefix="belated-") as temporary:
        url = url or f"sqlite:///{temporary}/store.db"
        folder = checkpoint_folder(url, checkpoints)
        with _honest(bool(temporary)), alone(url, folder), told_plainly(url):
            facts = LabelStore(url, {settings.target: settings.window}, settings.kept)
            try:
                yield facts, Checkpoints(facts, folder, settings)
            finally:
                facts.close()


@contextmanager
def _honest(temporary: bool) -> Iterator[None]:
    """Of a temporary store nothing is kept, and what is said of it does not say so."""
    try:
        yield
    except StoreError as error:
        if not temporary:
            raise
        raise StoreError(str(error).replace(f"{KEPT}: ", "").replace(f": {KEPT}", "")) from None


def checkpoint_folder(url: str, given: Path | None = None) -> Path:
    """Where the checkpoints of a store lie: in the folder that is given, or ``x.checkpoints/`` beside a file ``x.db``.

    Raises:
        StoreError: there is no such file, and no folder is given.
    """
    folder = known_folder(url, given)
    if folder is None:
        raise StoreError(
            f"store {shown(url)}: where are its checkpoints? name their folder with --checkpoints, on a volume that lasts"
        )
    return folder


def known_folder(url: str, given: Path | None = None) -> Path | None:
    """The same, where a store on a server may do without; then None.

    Raises:
        StoreError: the URL is none of a store that can be kept.
    """
    try:
        file, server = sqlite_file(url), on_a_server(url)
    except ArgumentError:
        file, server = None, False
    if file is None and not server:
        raise StoreError(f"store {shown(url)}: {EXPECTED}")
    return given or (file.with_suffix(".checkpoints") if file else None)


@contextmanager
def alone(url: str, folder: Path | None) -> Iterator[None]:
    """Be the only one who writes to a store, whoever else names its folder or its database; the locks go with the process.

    Raises:
        StoreError: another process has it, the folder is that of another store, or a file cannot be written.
    """
    with _writing(url, folder):
        if file := sqlite_file(url):
            file = file.resolve()
            file.parent.mkdir(parents=True, exist_ok=True)
        with (
            lock.alone(url) if on_a_server(url) else nullcontext(),
            _locked(url, file.with_name(file.name + ".lock")) if file else nullcontext(),
            _folder_lock(url, folder) if folder else nullcontext(),
        ):
            yield


@contextmanager
def _locked(url: str, place: Path) -> Iterator[IO[str]]:
    with place.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"store {shown(url)}: another process is writing to it; wait until it is done, or give another --store"
            ) from None
        yield file


@contextmanager
def _folder_lock(url: str, folder: Path) -> Iterator[None]:
    """A lock on a file of the folder; the file says whose it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(url, folder / "lock") as file:
        file.seek(0)
        owner, ours = file.read().strip(), named(url)
        if owner and ours and owner != ours:
            raise StoreError(
                f"{folder}: holds the checkpoints of {owner}, and --store is {ours}; give each store a folder of its own "
                f"(if it is the same one under another name, remove {folder / 'lock'})"
            )
        if ours and not owner:
            file.write(ours + "\n")
            file.flush()
        yield


@contextmanager
def _writing(url: str, folder: Path | None) -> Iterator[None]:
    """What the file system refuses is told as a `StoreError` with the remedy."""
    try:
        yield
    except OSError as error:
        if (said := refused(error, folder or shown(url))) is None:
            raise
        raise StoreError(f"{said}, and run the same command again: {KEPT}") from None
