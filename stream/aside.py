"""A refresh in a process of its own, as the loop sees it: begun, asked for without waiting, ended."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from stream import bundle
from stream.bundle import Bundle

TRIES = 3  # of a process that is killed


class Aside:
    """At most one process of `stream.refresh_worker`, over files in the ``folder`` of the checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: int | None = None
        self._command: list[str] = []
        self._tries = 0

    def begin(self, snapshot: str, before: str | None) -> None:
        """Learn from this file; ``before``: the file of the bundle that is served."""
        files = [snapshot] if before is None else [snapshot, before]
        self._command = [sys.executable, "-m", "stream.refresh_worker", str(os.getpid()), str(self._folder), *files]
        self._tries = 0
        self._spawn()

    def _spawn(self) -> None:
        """In a process group of its own: what interrupts the daemon, interrupts it alone."""
        self._tries += 1
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = os.posix_spawn(sys.executable, self._command, environment, setpgroup=0)

    def result(self, number: int) -> Bundle | str | None:
        """The version that was made, or why there is none; None while it is not known."""
        if self._process is None:
            return None
        process, status = os.waitpid(self._process, os.WNOHANG)
        if not process:
            return None
        self._process = None
        if os.WIFSIGNALED(status) and self._tries < TRIES:  # by who stops the daemon too, or for want of memory
            self._spawn()
            return None
        made, why = (self._folder / f"graph-{number}.{ending}" for ending in ("made", "refused"))
        ended = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with {status >> 8}"
        found: Bundle | str = f"its process {ended}, {self._tries} times"
        if made.is_file():
            found = bundle.from_bytes(made.read_bytes())
        elif why.is_file():
            found = why.read_text()
        for file in (made, why):
            file.unlink(missing_ok=True)
        return found

    def end(self) -> None:
        """End the process, if there is one; whoever goes on from the last commit begins again."""
        if self._process is not None:
            with suppress(ProcessLookupError, ChildProcessError):  # it has ended, and somebody else has heard of it
                os.kill(self._process, signal.SIGTERM)
                os.waitpid(self._process, 0)
            self._process = None
