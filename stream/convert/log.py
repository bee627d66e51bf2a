"""What the converters share: reading rows, writing the log DST/events/0.jsonl, and the summary of what happened.

One topic `events`, one partition, in order of event time where the source is. The log appears under its name only when
it is complete.
"""

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic_core import to_json

from stream.drafts import drafts
from stream.sources import SourceError

Advance = Callable[[int, int], None]
"""Called now and then with (done, total), in whatever the converter counts: bytes of the source, or events."""

EVERY = 20_000  # rows or events between two calls of advance
CUT_OFF = "the compressed file is cut off or damaged"


@dataclass
class Summary:
    """What a conversion did. ``events`` by type as written, ``refused`` rows of the source by reason.

    ``latest``: the largest time so far, in the unit of the source; ``backwards``: how many times came before it.
    """

    rows: int = 0
    events: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    latest: int = 0
    backwards: int = 0

    def passes(self, at: int) -> None:
        """Count a row of this time, that is written."""
        self.backwards += at < self.latest
        self.latest = max(self.latest, at)

    def refuse(self, reason: str, row: str) -> None:
        """Count a row that is not written; the first one of each reason is shown in the notes."""
        if reason not in self.refused:
            self.notes.append(f"row {self.rows:,} refused, {reason}: {row[:60]!r}")
        self.refused[reason] += 1


class Log:
    """The log being written; counts its events by type in ``summary``."""

    def __init__(self, file: IO[bytes], summary: Summary) -> None:
        self._file = file
        self._summary = summary

    def write(self, event: dict[str, object]) -> None:
        """One event as a dict, ``type`` first. It is not validated: the tests do that."""
        self.put(str(event["type"]), to_json(event))

    def put(self, kind: str, line: bytes) -> None:
        """One event of this type, already encoded."""
        self._file.write(line + b"\n")
        self._summary.events[kind] += 1


@contextmanager
def writing(dst: Path, summary: Summary) -> Iterator[Log]:
    """A new log in the folder ``dst``. What an error or a kill leaves behind is never taken for a log.

    Raises:
        FileExistsError: ``dst`` holds something already, see `drafts`.
        SourceError: no event was written.
    """
    with drafts(dst) as place, place("events/0.jsonl").open("wb", buffering=1 << 20) as file:
        yield Log(file, summary)
        if not summary.events:
            why = f"; {summary.notes[0]}" if summary.notes else ""
            raise SourceError(
                f"{dst}: nothing of {summary.rows:,} rows could be converted{why}; give a file of the data set you name"
            )
        file.flush()
        os.fsync(file.fileno())


def rows(src: Path, summary: Summary, advance: Advance) -> Iterator[str]:
    """The lines of a text file (.gz too), counted in ``summary.rows``; progress is in bytes of the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not src.is_file():
        raise FileNotFoundError(f"{src}: there is no such file; name the data set's file, as text or .gz")
    total = src.stat().st_size
    packed = src.suffix == ".gz"
    with src.open("rb", buffering=1 << 20) as raw, gzip.open(raw) if packed else nullcontext(raw) as stream:
        try:
            for line in stream:
                summary.rows += 1
                if summary.rows % EVERY == 0:
                    advance(raw.tell(), total)
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if summary.rows == 1:
                    text = text.removeprefix("\ufeff")  # a byte order mark
                if "\0" in text:
                    summary.refuse("holds the character NUL, which no database keeps", text)
                else:
                    yield text
        except (EOFError, zlib.error, gzip.BadGzipFile):
            summary.rows += 1
            summary.refuse(CUT_OFF, "")
    advance(total, total)
