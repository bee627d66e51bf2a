"""A user is forgotten: in the log where it is given, in the store, and in the unfinished batches of its checkpoint.

    1. the store tells the ids of the user's impressions and conversions;
    2. the user's lines of the log are blanked, see `stream.blanking`;
    3. one commit of `stream.checkpoint`: the user's rows are deleted, what was erased is written down, and the new file
       of tensors has no look at the user's impressions; older files are removed;
    4. the database is written anew, so that nothing of the rows is left in its file.

The ids are asked for first and deleted last: stopped anywhere, the same command does the rest.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from labelstore import erasure, ledger
from labelstore.address import shown
from labelstore.erasure import Erased
from labelstore.store import StoreError, existing
from labelstore.traces import Traces
from labelstore.vacuum import may_vacuum, overwrite_deleted, vacuum
from stream.blanking import Blanked, blank, users_of
from stream.checkpoint import Checkpoints
from stream.files import FileSource
from stream.learning import without
from stream.settings import Settings
from stream.upkeep import sweep
from stream.workspace import checkpoint_folder, opened


class Forgotten(NamedTuple):
    """``counts``: rows that are gone, by table. ``lines``, ``files``: of the log. ``before``: event times of the store at
    earlier erasures of the same user, ms."""

    counts: dict[str, int]
    lines: int
    files: int
    before: list[int]

    @property
    def nothing(self) -> bool:
        """Whether nothing of the user was found."""
        return not self.counts and not self.lines


def forget(
    user: str,
    url: str,
    source: FileSource | None = None,
    told: Callable[[int], None] = lambda read: None,
    checkpoints: Path | None = None,
) -> Forgotten:
    """Erase a user from a store, and from its log where that is given. Where nothing is found, nothing is changed.

    Raises:
        StoreError, CheckpointError, SourceError: with the remedy.
    """
    folder = checkpoint_folder(url, checkpoints)
    with existing(url) as connection:
        newest = ledger.newest(connection)
    if newest is None:
        raise StoreError(
            f"store {shown(url)}: has no checkpoint, so it holds nothing yet; replay a log into it, or delete it"
        )
    settings = Settings(**newest.settings)
    with opened(url, settings, checkpoints) as (facts, saved):
        may_vacuum(facts.connection, url)
        state = saved.load()
        assert state is not None
        traces = Traces(user, users_of(settings.mapping))
        erasure.trace(facts.connection, traces)
        blanked = blank(source, traces, settings.strict, told, settings.mapping) if source else Blanked(frozenset(), 0)
        overwrite_deleted(facts.connection)
        erased = erasure.erase(facts.connection, traces, blanked.lines)
        found = Forgotten(erased.counts, len(blanked.lines), blanked.files, erasure.recorded(facts.connection, user))
        if not found.nothing:
            counts = erased.counts | ({"log_lines": found.lines} if source else {})
            erasure.record(facts.connection, user, state[1]["passed"], counts)
            _commit(saved, *state, erased)
        if not found.nothing or found.before:
            facts.connection.rollback()  # what was only read must not stand in the way of another session
            vacuum(facts.engine, url)
            sweep(facts.connection, url, folder)
    return found


def _commit(checkpoints: Checkpoints, tensors: dict[str, Tensor], progress: dict[str, Any], erased: Erased) -> None:
    """Step 3. What waited has been read and will not pass: it is accounted for as forgotten."""
    counts = Counter(progress["counts"])
    counts["forgotten"] += erased.counts.get("waiting", 0)
    checkpoints.save(without(tensors, erased.impressions), progress | {"counts": dict(counts)}, keep=1)
