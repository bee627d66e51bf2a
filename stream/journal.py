"""The journal: where a live run raised the clock of a partition that had fallen silent, so that a replay can do the same.

An advance takes effect at a place of its partition: before the record at its offset (or the next there is) is read. So
the clock at each record is a function of the log and the journal, however the partitions were interleaved or cut into
polls. Of several advances at one place only the last, which is the highest, can be told from the records: it is kept.

Beside an exported log it is a file `journal.jsonl`, a line an advance:

    {"topic": "events", "partition": 0, "offset": 17, "clock": 1700000000000}

and beside it stands, where that run had a product graph, `swaps.jsonl`: which version was served from when on, see
`stream.refresh`.

    {"at": 1700000000000, "version": 3}
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic_core import from_json, to_json

from labelstore.ledger import Advance, Swap
from stream.sources import Partition, SourceError
from stream.watermark import BEGINNING

NAME, SWAPS = "journal.jsonl", "swaps.jsonl"
Row = TypeVar("Row", Advance, Swap)


class Journal:
    """The advances that are to be obeyed, and those that no commit has yet.

    >>> journal = Journal([Advance("events", 0, 3, 50), Advance("events", 0, 5, 70)])
    >>> place = Partition("events", 0)
    >>> journal.obey(place, 2) == BEGINNING, journal.obey(place, 4), journal.obey(place, 5)
    (True, 50, 70)
    """

    def __init__(self, told: Iterable[Advance] = ()) -> None:
        self._told: dict[Partition, list[Advance]] = {}  # by falling offset
        for row in sorted(told, key=lambda row: row.offset, reverse=True):
            self._told.setdefault(Partition(row.topic, row.partition), []).append(row)
        self._unsaved: dict[tuple[Partition, int], int] = {}

    def obey(self, partition: Partition, offset: int) -> int:
        """The clock to which the advances of a partition up to this next offset raise it; `BEGINNING` if there are none."""
        rows, clock = self._told.get(partition), BEGINNING
        while rows and rows[-1].offset <= offset:
            row = rows.pop()
            self.note(partition, row.offset, row.clock)
            clock = max(clock, row.clock)
        return clock

    def note(self, partition: Partition, offset: int, clock: int) -> None:
        """The clock of a partition was raised before its record at ``offset`` was read."""
        place = (partition, offset)
        self._unsaved[place] = max(clock, self._unsaved.get(place, BEGINNING))

    def unsaved(self) -> list[Advance]:
        """Those no commit has yet; calling it says that one is about to."""
        rows = [Advance(*partition, offset, clock) for (partition, offset), clock in self._unsaved.items()]
        self._unsaved.clear()
        return rows

    def __len__(self) -> int:
        """How many places no commit has yet."""
        return len(self._unsaved)


def read(folder: Path) -> Sequence[Advance]:
    """The journal beside a log; empty if there is none.

    Raises:
        SourceError: a line of it is no advance.
    """
    return _read(folder / NAME, Advance, '{"topic": "...", "partition": 0, "offset": 0, "clock": ms}') or ()


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write what stands beside a log: its journal under `NAME`, or its swaps under `SWAPS`."""
    file.write_bytes(b"".join(to_json(row._asdict()) + b"\n" for row in rows))


def read_swaps(folder: Path) -> Sequence[Swap] | None:
    """The swaps beside a log; None if nothing says when there were any.

    Raises:
        SourceError: a line of it is no swap.
    """
    return _read(folder / SWAPS, Swap, '{"at": ms, "version": 0}')


def _read(file: Path, kind: type[Row], example: str) -> list[Row] | None:
    """The rows of a file, a line each; None if there is no such file."""
    if not file.is_file():
        return None
    return [
        _row(file, n, line, kind, example) for n, line in enumerate(file.read_bytes().splitlines(), 1) if line.strip()
    ]


def _row(file: Path, n: int, line: bytes, kind: type[Row], example: str) -> Row:
    try:
        row = kind(**from_json(line))
        if all(type(value) is of for value, of in zip(row, kind.__annotations__.values(), strict=True)):
            return row
    except (ValueError, TypeError):
        pass
    raise SourceError(f"{file}, line {n}: expected {example}; export the log again, with its journal")
