"""The embedded log: JSON lines on disk.

    folder/topic/partition.jsonl        also .jsonl.gz, and .jsonl.zst with the extra `zstd`
    folder/journal.jsonl, swaps.jsonl   where the log is that of a live run: see `stream.journal`
    file.jsonl                          one file is one partition, 0, of the topic named like the file

    folder/offsets.json                 where lines have other offsets than their numbers: see `stream.numbering`

A line is an event, or an envelope ``{"timestamp": ms, "key": "...", "value": event}``. A value that would not
be the same bytes after being read as JSON stands as text; what is not UTF-8 as ``key_base64`` or ``value_base64``. The
offset of a line is its number.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from pydantic_core import from_json

from labelstore.ledger import Advance, Swap
from stream import journal, numbering
from stream.envelope import parse
from stream.numbering import Numbering
from stream.packed import open_log
from stream.sources import NO_MARKS, Partition, Record, SourceError, digest

LONGEST = 2_200_000  # bytes kept of one line: an envelope with the largest record; the codec refuses what is longer
ENDINGS = ("jsonl", "jsonl.gz", "jsonl.zst")
MEANT = {".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".gz", ".zst"}  # what a file of records may end in
OURS = {"journal.jsonl", "swaps.jsonl", "offsets.json", "truth.csv.gz", "scenario.json"}  # what lies beside them
CUT_OFF = b"(the compressed file is cut off here)"


class FileSource:
    """A log on disk, read from its beginning or from where `seek` said.

    ``left``: of partitions read to their end, what was left for the next run: a last line that is not whole, and why.
    ``beside``: files of the folder that look like records and have no name of a partition.

    Raises:
        SourceError: there is no such log, or it holds no partition.
    """

    def __init__(self, path: Path) -> None:
        self._files = _discover(path)
        self.beside = _beside(path, self._files.values())
        self._numbers = numbering.read(path)
        self._journal = journal.read(path) if path.is_dir() else ()
        self._swaps = journal.read_swaps(path) if path.is_dir() else None
        self._turn = 0
        self.seek({})

    def partitions(self) -> list[Partition]:
        return list(self._files)

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        """Reads one partition after the other, in turn, so that none falls far behind."""
        found: list[Record] = []
        while not found and (ready := [p for p in self._files if p not in paused and p not in self._ended]):
            self._turn += 1
            partition = ready[self._turn % len(ready)]
            found = list(islice(self._lines[partition], limit))
            if len(found) < limit:
                self._ended.add(partition)
            if found:
                self._next[partition] = found[-1].offset + 1
        return found

    def seek(self, offsets: Mapping[Partition, int], marks: Mapping[Partition, str] = NO_MARKS) -> None:
        """Go on from these offsets.

        Raises:
            SourceError: this is not the log that was read up to there.
        """
        for place, offset in offsets.items():
            if offset > self.numbers(place).offset(0):
                self.file(place)
        self._ended: set[Partition] = set()
        self.left: dict[Partition, str] = {}
        self._next = {p: offsets.get(p, self.numbers(p).offset(0)) for p in self._files}
        self._lines = {p: self._from(p, offset, marks.get(p)) for p, offset in self._next.items()}

    def _from(self, place: Partition, offset: int, found: str | None) -> Iterator[Record]:
        """The records from an offset on, up to a last line that is not whole; ``found``: mark of the one before.

        That one has to be in the log; a line that was blanked may have been it.
        """
        lines = self._numbered(place, whole=True)
        if offset > self.numbers(place).offset(0):
            file, remedy = self.file(place), "give the log that was replayed, or a new --store"
            number, line = next(((n, line) for n, line in lines if n >= offset - 1), (-1, b""))
            if number < 0:
                raise SourceError(
                    f"{file}: the store has read it up to record {offset - 1}, and it ends before that; {remedy}"
                )
            if number == offset - 1 and line and found and digest(parse(line)[2]) != found:
                raise SourceError(f"{file}: record {number} is not the one that the store has read there; {remedy}")
            lines = chain([(number, line)], lines)
        return _records(place, lines, offset)

    def _numbered(self, place: Partition, whole: bool = False) -> Iterator[tuple[int, bytes]]:
        """The lines of a partition with their offsets; ``whole``: a last one that is not is left, and noted."""
        ends: list[str] = []
        lines = _lines(self.file(place), ends if whole else None)
        yield from zip(self.numbers(place).offsets(), lines, strict=False)
        if ends:
            self.left[place] = ends[0]

    def mark(self, record: Record) -> str:
        return digest(record.value)

    def positions(self) -> dict[Partition, int]:
        return dict(self._next)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """A file keeps no offsets."""

    def end_offsets(self) -> dict[Partition, int]:
        return {
            p: self.numbers(p).offset(lines - 1) + 1 if lines else self.numbers(p).offset(0)
            for p, lines in self.lines().items()
        }

    def lines(self) -> dict[Partition, int]:
        """How many each partition has."""
        return {p: sum(1 for _ in _lines(file)) for p, file in self._files.items()}

    def numbers(self, partition: Partition) -> Numbering:
        """Which offset each line of a partition has."""
        return self._numbers.get(partition) or Numbering()

    def exhausted(self) -> frozenset[Partition]:
        return frozenset(self._ended)

    def silent(self) -> frozenset[Partition]:
        return frozenset()

    def journal(self) -> Sequence[Advance]:
        return self._journal

    def swaps(self) -> Sequence[Swap] | None:
        return self._swaps

    def file(self, partition: Partition) -> Path:
        """Where a partition lies.

        Raises:
            SourceError: the log has no such partition.
        """
        if partition not in self._files:
            some = ", ".join(f"{topic}/{number}" for topic, number in list(self._files)[:3])
            name = f"{partition.topic}/{partition.partition}"
            raise SourceError(f"the log has no partition {name}; it has {some}; give the log that was replayed")
        return self._files[partition]

    def records(self, partition: Partition) -> Iterator[Record]:
        """All records of a partition, beside those that are polled."""
        return _records(partition, self._numbered(partition), 0)

    @property
    def bytes(self) -> int:
        """Size of the log on disk."""
        return sum(file.stat().st_size for file in self._files.values())


def _discover(path: Path) -> dict[Partition, Path]:
    if path.is_file():
        name, _, ending = path.name.partition(".")
        if not f".{ending}".endswith(tuple(f".{known}" for known in ENDINGS)):
            raise SourceError(
                f"{path}: a log is .jsonl (.gz, .zst), one event a line; docs/mapping.md makes one of a CSV"
            )
        return {Partition(name, 0): path}
    if not path.is_dir():
        raise SourceError(f"{path}: there is no such log; give a folder topic/partition.jsonl or one .jsonl file")
    found: dict[Partition, Path] = {}
    for file in sorted(path.glob("*/*")):
        name, _, ending = file.name.partition(".")
        if ending in ENDINGS and name.isascii() and name.isdigit():
            partition = Partition(file.parent.name, int(name))
            if partition in found:
                raise SourceError(f"{file}: the partition is there twice, also as {found[partition]}; remove one")
            found[partition] = file
    if not found and any(file.name.partition(".")[2] in ENDINGS for file in path.glob("*.*")):
        raise SourceError(
            f"{path}: is a topic, or holds files without one; give the folder above it, or one of its files"
        )
    if not found:
        raise SourceError(f"{path}: holds no partition; expected files like {path}/events/0.jsonl (.gz, .zst)")
    return dict(sorted(found.items()))


def _beside(path: Path, read: Collection[Path]) -> list[Path]:
    """Files that may be meant as partitions and are none: they are not read."""
    if path.is_file():
        return []
    there = {file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.suffix in MEANT}
    return sorted(file.relative_to(path) for file in there - set(read) if file.is_file() and file.name not in OURS)


def _lines(file: Path, ends: list[str] | None = None) -> Iterator[bytes]:
    """The lines of a file, without their ends; of an endless line only the beginning.

    ``ends``: told what the file ends in where that is no whole line, which is then not given: a writer may be at it, or a
    copy. Without it, that is given too; for what cannot be unpacked `CUT_OFF` stands.
    """
    with open_log(file) as stream:
        try:
            while line := stream.readline(LONGEST):
                rest = line
                while not rest.endswith(b"\n") and len(rest) == LONGEST:
                    rest = stream.readline(LONGEST)
                if ends is not None and not line.endswith(b"\n") and len(line) < LONGEST and not _is_json(line):
                    ends.append("its last line has no end and is not JSON")
                    return
                yield line.rstrip(b"\r\n")
        except (EOFError, OSError, zlib.error):
            if ends is None:
                yield CUT_OFF
            else:
                ends.append("the compressed file is cut off or damaged")


def _records(partition: Partition, lines: Iterable[tuple[int, bytes]], start: int) -> Iterator[Record]:
    for offset, line in lines:
        if offset >= start and line:
            yield Record(partition.topic, partition.partition, offset, *parse(line))


def _is_json(line: bytes) -> bool:
    try:
        from_json(line)
    except ValueError:
        return False
    return True
