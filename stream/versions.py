"""What the versions of a product graph were in a run, collected as they are made: for the report.

A store that is continued tells of the versions it has made since.
"""

from typing import Any, NamedTuple

from stream.bundle import Bundle, Serving
from stream.prequential import Interval, interval
from stream.snapshot import Snapshot


class Version(NamedTuple):
    """Of a bundle that was served: its number, its space, the midnight of its snapshot in ms, and its figures."""

    number: int
    space: int
    until: int
    metrics: dict[str, Any]


class Versions(NamedTuple):
    """``served``: the versions, the oldest first. ``intervals``: how each did at what came after it. ``newest``: the
    last snapshot; None before the first refresh."""

    served: list[Version]
    intervals: list[Interval]
    newest: Snapshot | None


class Watch:
    """Hears of every refresh, see `Refresh.watch`."""

    def __init__(self) -> None:
        self._served: dict[int, Version] = {}
        self._intervals: list[Interval] = []
        self._newest: Snapshot | None = None

    def __call__(self, taken: Snapshot, before: Bundle | None) -> None:
        """A snapshot was taken, while ``before`` was served."""
        self._newest = taken
        if before is None:
            return
        self._note(before)
        if (found := interval(before, taken)) is not None:
            self._intervals.append(found)

    def told(self, serving: Serving | None) -> Versions:
        """All of it; ``serving``: the version that is served at the end."""
        if serving is not None:
            self._note(serving.bundle)
        return Versions(list(self._served.values()), self._intervals, self._newest)

    def _note(self, bundle: Bundle) -> None:
        self._served[bundle.version] = Version(bundle.version, bundle.space, bundle.until, bundle.metrics)
