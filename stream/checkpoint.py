"""The only file that commits, in this order:

0. bundles of the product graph, as they are made -> ``checkpoints/graph-<version>.safetensors``, in the same way;
1. weights, optimizer, auxiliary models, feature moments, unfinished batches and counts -> ``checkpoints/<n>.safetensors``
   (temporary name, fsync, rename, fsync of the folder);
2. ONE SQL transaction: facts, looks, scores, waiting records, dead letters, metrics, journal, and the row (n, file, its
   sha256, offsets, partition clocks, watermark, settings, code version);
3. the source's own commit, a courtesy to tools that show lag;
4. dead letters are forwarded, where there is a topic for them; the marks that say so are a transaction of their own.

A gradient step is not idempotent, so offsets live with the weights. Whatever is killed, and wherever: before 2 nothing
has happened (a file without a row is overwritten), after 2 everything has. Before the end of 4, letters are sent again.
"""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from labelstore import ledger
from labelstore.letters import Place
from labelstore.refusals import BelatedError
from labelstore.store import LabelStore
from stream.forwarding import Outbox, forward
from stream.settings import Settings, lasts, spell

KEEP = 2  # files


class CheckpointError(BelatedError):
    """A checkpoint that cannot be continued; the message names it and the remedy."""


class Checkpoints:
    """The folder of files and the rows beside the facts."""

    def __init__(self, store: LabelStore, folder: Path, settings: Settings) -> None:
        self._store, self.folder, self._settings = store, folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*[0-9].partial"):  # of one that was killed: only the writer is here
            partial.unlink(missing_ok=True)
        self.n = 0  # of the last commit
        self._forwarded: Place | None = None  # of dead letters, as far as this round has come
        self.made = 0.0  # when the one that was loaded was, s; of the machine's clock, to be shown

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any], keep: int = KEEP) -> None:
        """Steps 1 and 2; then all but the last ``keep`` files are removed."""
        data = save({name: value.detach().contiguous() for name, value in tensors.items()})
        file = f"{self.n + 1}.safetensors"
        sha256 = self.keep(file, data)
        row = ledger.Checkpoint(self.n + 1, file, sha256, progress, self._settings.told(), version("belated"))
        old = ledger.record(self._store.connection, row, keep)
        graphs = {file.name for file in self.folder.glob("graph-*.safetensors")}
        left = graphs - ledger.bundles(self._store.connection) if graphs else graphs
        self._store.commit()
        self.n += 1
        for name in [*old, *left]:
            (self.folder / name).unlink(missing_ok=True)

    def keep(self, name: str, data: bytes) -> str:
        """Write a file before the commit that names it; its sha256."""
        write(self.folder / name, data)
        return hashlib.sha256(data).hexdigest()

    def forward(self, outbox: Outbox | None) -> None:
        """Step 4; also at the start, for whoever was killed before it. Nothing else may be uncommitted."""
        if outbox is not None:
            self._forwarded = forward(self._store.connection, outbox, self._forwarded)
            self._store.commit()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and progress of the last commit; None if there is none.

        Raises:
            CheckpointError: its file is gone or another one, or it was written under other settings.
        """
        row = ledger.newest(self._store.connection)
        if row is None:
            return None
        self._same_settings(row.settings)
        told = f"the file of checkpoint {row.n}", f"the file that checkpoint {row.n} wrote"
        data = _read(self.folder / row.file, row.sha256, *told)
        self.n, self.made = row.n, (self.folder / row.file).stat().st_mtime
        return load(data), row.progress

    def _same_settings(self, written: dict[str, Any]) -> None:
        was, now = _by_name(written), _by_name(self._settings.told())
        others = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
        if others:
            raise CheckpointError(
                f"the store was written with {', '.join(f'{n} = {_said(n, was.get(n))}' for n in others)}, "
                f"asked for is {', '.join(f'{n} = {_said(n, now.get(n), n in was)}' for n in others)}; "
                "use the same options to go on, or another --store to start anew"
            )


def _by_name(told: dict[str, Any]) -> dict[str, Any]:
    """Settings, those of each mapped topic one."""
    topics = {f"mapping.{topic}": value for topic, value in told.get("mapping", {}).items()}
    return {name: value for name, value in told.items() if name != "mapping"} | topics


def _said(name: str, value: Any, again: bool = False) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "none"
    if name.startswith("mapping."):
        return "another one" if again else "one"
    field = Settings.model_fields.get(name)
    if field and lasts(field):
        return spell(value)
    return ", ".join(value) if type(value) is list else str(value)


def kept(folder: Path, name: str, sha256: str) -> bytes:
    """A bundle of the product graph that a commit names.

    Raises:
        CheckpointError: its file is gone or another one.
    """
    return _read(folder / name, sha256, "a bundle of the product graph", "the bundle that was written")


def _read(path: Path, sha256: str, file: str, written: str) -> bytes:
    """A file that a commit names; ``file``, ``written``: what to call it where it is gone, or another one."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {file} is gone; {REMEDY}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path}: not {written} (its sha256 differs); {REMEDY}")
    return data


REMEDY = "restore it from a backup, or rebuild by replaying the log into a new --store"


def write(path: Path, data: bytes) -> None:
    """All of it under that name, or nothing: also when the machine loses power."""
    partial = path.with_name(f"{path.stem}-{os.getpid()}.partial")  # no other process writes to it
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:  # such as a full disk, which it would keep full, or a signal
        partial.unlink(missing_ok=True)
        raise
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
