"""A first pass over the log for the final labels. Only `oracle` may see them; a running system refuses it."""

from collections.abc import Callable

from labelstore.settled import ids, outcomes
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import Source
from stream.validation import Validation
from stream.workspace import opened


class _Converted(Validation):
    """Remembers which rows were settled as converted, instead of judging anyone."""

    def __init__(self, window: int) -> None:
        super().__init__([], window)
        self.shown: set[tuple[str, int]] = set()

    def _count(self, connection, rows) -> None:  # type: ignore[no-untyped-def]  # as in Validation
        names = ids(connection, found := [row for row in rows if row.label])
        self.shown.update((names[row.seq], row.at) for row in found)


def converted(source: Source, settings: Settings, poll: int, told: Callable[[int], None]) -> frozenset[tuple[str, int]]:
    """The impressions of the log (id, at) whose final label is 1; those still open at its end, by what is known then.

    Not by seq: a store that goes on has other numbers where the log has grown, or a user was forgotten. The source is read
    to its end and set back to its beginning.
    """
    nobody = settings.without_learners().model_copy(update={"graph_every": None})
    with opened(None, nobody) as (store, checkpoints):
        loop = Loop(source, nobody, store, checkpoints, poll)
        found = loop.validation = _Converted(settings.window)
        loop.run(told)
        loop.settle_rest()
        rest = outcomes(loop.target, loop.target.shown(settings.window, loop.passed, 2 * loop.passed), loop.passed)
        found._count(store.connection, rest)
    source.seek({})
    return frozenset(found.shown)
