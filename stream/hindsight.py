"""A first pass over the log for the final labels. Only `oracle` may see them; a running system refuses it."""

from collections.abc import Callable

from labelstore.settled import outcomes
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import Source
from stream.validation import Validation
from stream.workspace import opened


class _Converted(Validation):
    """Remembers which rows were settled as converted, instead of judging anyone."""

    def __init__(self, window: int) -> None:
        super().__init__([], window)
        self.seqs: set[int] = set()

    def _count(self, connection, rows) -> None:  # type: ignore[no-untyped-def]  # as in Validation
        self.seqs.update(row.seq for row in rows if row.label)


def converted(source: Source, settings: Settings, poll: int, told: Callable[[int], None]) -> frozenset[int]:
    """The impressions of the log (by seq) whose final label is 1; those still open at its end, by what is known then.

    The same log passes in the same order and gets the same numbers, so they hold in the pass that follows. The source is
    read to its end and set back to its beginning.
    """
    nobody = settings.without_learners().model_copy(update={"graph_every": None})
    with opened(None, nobody) as (store, checkpoints):
        loop = Loop(source, nobody, store, checkpoints, poll)
        found = loop.validation = _Converted(settings.window)
        loop.run(told)
        loop.settle_rest()
        rest = outcomes(loop.target, loop.target.shown(settings.window, loop.passed, 2 * loop.passed), loop.passed)
    source.seek({})
    return frozenset(found.seqs) | {row.seq for row in rest if row.label}
