"""How a run shares its time: when to ask the source again, when to commit. None of it changes a result."""

import time
from collections.abc import Callable

PATIENCE = 3.0  # seconds for which spans are worked off before the source is asked again


class Pace:
    """``every``: records, and ``every_s``: seconds of the machine's clock, between commits."""

    def __init__(self, every: int, every_s: float) -> None:
        self._every, self._every_s = every, every_s
        self._since, self._asked = 0, time.monotonic()  # records and time since the last commit
        self._passed: int | None = None  # event time of it
        self._until = float("inf")
        self.stop: Callable[[], bool] = lambda: False

    def turn(self, records: int) -> None:
        """So many records were read; now spans are worked off."""
        self._since += records
        self._until = time.monotonic() + PATIENCE

    def enough(self) -> bool:
        """Whether the source wants to be asked again, or the run to stop, before the watermark is reached."""
        return time.monotonic() > self._until or self.stop()

    def due(self, unsaved: bool, passed: int) -> bool:
        """Whether to commit: enough was read, or something has happened (records, what is ``unsaved``, event time that has
        ``passed``) and it is time."""
        late = time.monotonic() - self._asked >= self._every_s
        return self._since >= self._every or (late and (self._since > 0 or unsaved or passed != self._passed))

    def committed(self, passed: int) -> None:
        """A commit is made, at this event time."""
        self._since, self._asked, self._passed = 0, time.monotonic(), passed

    def hurry(self) -> None:
        """The log is over: nothing is waited for any more."""
        self._until, self.stop = float("inf"), lambda: False
