"""The swaps that a replay is told, those of a live run, and how long they can be of the versions that it learns itself.

Of one moment the last is told. One to the version that is served already says that the next one is never served.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from labelstore.ledger import Swap
from stream.watermark import END


class Swaps:
    """What is still to come of the swaps that were told.

    ``alone``: none were told, or those that were are of other versions: what is learned is served as soon as it is.
    """

    def __init__(self, told: Sequence[Swap] | None) -> None:
        self._told, self._left, self.alone = told is not None, sorted(told or ()), told is None

    @property
    def next(self) -> int:
        """The event time of the next one."""
        return self._left[0].at if self._left else END

    @property
    def versions(self) -> set[int]:
        """Those that will be served: again, where they have been."""
        return {one.version for one in self._left}

    def due(self, passed: int, number: int) -> Iterator[Swap]:
        """Those up to ``passed``; ``number``: of the last refresh that was begun.

        A version that was not begun a person had learned: it cannot be made here, and numbers differ from there on.
        """
        while self._left and self._left[0].at <= passed:
            swap = self._left.pop(0)
            if swap.version > number:
                self._leave()
                return
            yield swap

    def outrun(self, number: int) -> bool:
        """Whether the next refresh begins while version ``number`` still waits for its swap, or has none.

        No live run does that: these swaps are over, or of other settings.
        """
        if not self._left or self._left[0].version <= number:
            self._leave()
        return self.alone

    def _leave(self) -> None:
        self.alone = True
        self._left.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"alone": True} if self._told and self.alone else {}

    def restore(self, told: dict[str, Any], passed: int) -> None:
        """Go on from `state`, at this event time."""
        if told.get("alone"):
            self._leave()
        self._left = [one for one in self._left if one.at > passed]
