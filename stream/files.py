"""The embedded log: JSON lines on disk.

    folder/topic/partition.jsonl        also .jsonl.gz, and .jsonl.zst with the extra `zstd`
    folder/journal.jsonl, swaps.jsonl   where the log is that of a live run: see `stream.journal`
    file.jsonl                          one file is one partition, 0, of the topic named like the file

    folder/offsets.json                 where lines have other offsets than their numbers: see `stream.numbering`

A line is an event, or an envelope ``{"timestamp": ms, "key": "...", "value": event}``. What is not UTF-8, or would not be
the same bytes after being read as JSON, stands as ``key_base64`` or ``value_base64``. Its offset is its line number.
"""

import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from labelstore.ledger import Advance, Swap
from stream import journal, numbering
from stream.envelope import parse
from stream.numbering import Numbering
from stream.sources import Partition, Record, SourceError

LONGEST = 2_200_000  # bytes kept of one line: an envelope with the largest record; the codec refuses what is longer
CUT_OFF = b"(the compressed file is cut off here)"


class FileSource:
    """A log on disk, read from its beginning or from where `seek` said.

    Raises:
        SourceError: there is no such log, or it holds no partition.
    """

    def __init__(self, path: Path) -> None:
        self._files = _discover(path)
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

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._ended: set[Partition] = set()
        self._next = {p: offsets.get(p, self.numbers(p).offset(0)) for p in self._files}
        self._lines = {p: _records(p, file, self._next[p], self.numbers(p)) for p, file in self._files.items()}

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
        return _records(partition, self.file(partition), 0, self.numbers(partition))

    @property
    def bytes(self) -> int:
        """Size of the log on disk."""
        return sum(file.stat().st_size for file in self._files.values())


def _discover(path: Path) -> dict[Partition, Path]:
    if path.is_file():
        return {Partition(path.name.split(".")[0], 0): path}
    if not path.is_dir():
        raise SourceError(f"{path}: there is no such log; give a folder topic/partition.jsonl or one .jsonl file")
    found: dict[Partition, Path] = {}
    for file in sorted(path.glob("*/*")):
        name, _, ending = file.name.partition(".")
        if ending in ("jsonl", "jsonl.gz", "jsonl.zst") and name.isascii() and name.isdigit():
            partition = Partition(file.parent.name, int(name))
            if partition in found:
                raise SourceError(f"{file}: the partition is there twice, also as {found[partition]}; remove one")
            found[partition] = file
    if not found:
        raise SourceError(f"{path}: holds no partition; expected files like {path}/events/0.jsonl (.gz, .zst)")
    return dict(sorted(found.items()))


def open_log(file: Path) -> IO[bytes]:
    """The bytes of a log's file, unpacked."""
    if file.suffix == ".gz":
        return io.BufferedReader(gzip.open(file, "rb"))
    if file.suffix == ".zst":
        return io.BufferedReader(_Zstandard(file))
    return file.open("rb", buffering=1 << 20)


class _Zstandard(io.RawIOBase):
    """A .zst file as bytes; one that is cut off ends in EOFError, as a .gz does."""

    def __init__(self, file: Path) -> None:
        try:
            from zstandard import ZstdDecompressor
        except ImportError:
            raise SourceError(f"{file}: reading .zst needs an extra; pip install 'belated[zstd]'") from None
        self._new = ZstdDecompressor().decompressobj
        self._frame, self._packed, self._ready = self._new(), file.open("rb"), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data or self._packed.read(1 << 16)
            if self._frame.eof:
                if not packed:
                    return 0  # and again, whenever it is asked
                self._frame = self._new()
            elif not packed:
                raise EOFError
            self._ready = self._frame.decompress(packed)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._packed.close()
        super().close()


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, without their ends; of an endless line only the beginning."""
    with open_log(file) as stream:
        try:
            while line := stream.readline(LONGEST):
                rest = line
                while not rest.endswith(b"\n") and len(rest) == LONGEST:
                    rest = stream.readline(LONGEST)
                yield line.rstrip(b"\r\n")
        except (EOFError, OSError, gzip.BadGzipFile):
            yield CUT_OFF


def _records(partition: Partition, file: Path, start: int, numbers: Numbering) -> Iterator[Record]:
    for offset, line in zip(numbers.offsets(), _lines(file), strict=False):
        if offset < start or not line:
            continue
        yield Record(partition.topic, partition.partition, offset, *parse(line))
