"""Which offset a line of a log on disk has: its line number, unless `offsets.json` beside the log says otherwise.

    {"events/0": [[0, 1200], [45, 5000045]]}

says of the partition events/0 that its line 0 has the offset 1200, those after it follow, and line 45 has 5000045. So a
part of a live log keeps its offsets, also where retention, compaction or transactions have left gaps.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from stream.sources import Partition, SourceError

NAME = "offsets.json"
Jumps = Sequence[tuple[int, int]]  # (line, its offset), rising


class Numbering:
    """The offsets of the lines of one partition.

    >>> numbers = Numbering([(0, 1200), (45, 5000045)])
    >>> numbers.offset(44), numbers.offset(46), numbers.line(1201), numbers.line(5000046)
    (1244, 5000046, 1, 46)
    """

    def __init__(self, jumps: Jumps = ()) -> None:
        self.jumps = [(0, 0), *jumps] if not jumps or jumps[0][0] else list(jumps)

    def offset(self, line: int) -> int:
        """The offset of a line."""
        start, first = self.jumps[bisect_right(self.jumps, line, key=lambda jump: jump[0]) - 1]
        return first + line - start

    def line(self, offset: int) -> int:
        """The line of an offset that the log has."""
        start, first = self.jumps[max(0, bisect_right(self.jumps, offset, key=lambda jump: jump[1]) - 1)]
        return start + offset - first

    def offsets(self) -> Iterator[int]:
        """The offsets of all lines, without end."""
        for (start, first), (stop, _) in itertools.pairwise(self.jumps):
            yield from range(first, first + stop - start)
        yield from itertools.count(self.jumps[-1][1])


def read(log: Path) -> dict[Partition, Numbering]:
    """What is beside a log; empty if nothing is.

    Raises:
        SourceError: the file is not what this module writes.
    """
    file = log / NAME
    if not file.is_file():
        return {}
    try:
        told: Any = from_json(file.read_bytes())
        return {_partition(name): Numbering(_checked(jumps)) for name, jumps in told.items()}
    except (ValueError, TypeError, AttributeError):
        raise SourceError(
            f'{file}: expected {{"topic/partition": [[line, offset], ...]}}, rising; export the log again, or remove the '
            "file if lines are to be numbered from 0"
        ) from None


def write(file: Path, jumps: Mapping[Partition, Jumps]) -> None:
    """Write what stands beside a log under `NAME`."""
    file.write_bytes(to_json({f"{topic}/{partition}": rows for (topic, partition), rows in sorted(jumps.items())}))


def _partition(name: str) -> Partition:
    topic, _, number = name.rpartition("/")
    return Partition(topic, int(number))


def _checked(jumps: Any) -> Jumps:
    rows = [(line, offset) for line, offset in jumps]
    if not all(type(value) is int and 0 <= value < 2**63 for row in rows for value in row):
        raise ValueError
    for (line, offset), (later, jumped) in itertools.pairwise(rows):
        if later <= line or jumped < offset + later - line:
            raise ValueError
    return rows
