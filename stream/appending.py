"""Records appended to a log on disk: at the end of a partition's file, durable when the call returns.

A .gz gets a new member and a .zst a new frame, in one write. What was there is never touched.
"""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from stream.numbering import Numbering
from stream.packed import open_log
from stream.sources import SourceError

CHUNK = 1 << 20


class Tail:
    """The end of a partition's file. ``offset`` is of the next record.

    Raises:
        SourceError: the file cannot be read to its end, because it is compressed and cut off.
    """

    def __init__(self, file: Path, numbers: Numbering | None = None) -> None:
        self._file = file
        lines, self._whole = _measure(file)
        self.offset = (numbers or Numbering()).offset(lines)

    def append(self, lines: Sequence[bytes]) -> int:
        """Add these lines, and first the end of the last one where that is missing. Returns the offset of the first.

        Raises:
            SourceError: it cannot be written; then the file is as it was.
        """
        first = self.offset
        _write(self._file, _packed(self._file, (b"" if self._whole else b"\n") + b"".join(b"%s\n" % x for x in lines)))
        self.offset, self._whole = first + len(lines), True
        return first


def _measure(file: Path) -> tuple[int, bool]:
    """(lines, whether the last one has its end)."""
    count, last = 0, b"\n"
    try:
        with open_log(file) as stream:
            while chunk := stream.read(CHUNK):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
    except (EOFError, OSError, zlib.error) as error:
        raise SourceError(
            f"{file}: cannot be read to its end ({str(error) or 'the compressed file is cut off'}), so nothing is appended; "
            "restore it, or pack what can be read of it anew"
        ) from None
    return count + (last != b"\n"), last == b"\n"


def _packed(file: Path, data: bytes) -> bytes:
    if file.suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if file.suffix == ".zst":
        from zstandard import ZstdCompressor

        return ZstdCompressor().compress(data)
    return data


def _write(file: Path, data: bytes) -> None:
    try:
        end = os.open(file, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise SourceError(f"{file}: cannot be written ({error.strerror}); nothing was appended") from None
    try:
        size, rest = os.fstat(end).st_size, memoryview(data)
        try:
            while rest:
                rest = rest[os.write(end, rest) :]
            os.fsync(end)
        except OSError as error:
            if os.fstat(end).st_size == size + len(data) - len(rest):  # nobody else has appended meanwhile
                os.ftruncate(end, size)
            raise SourceError(f"{file}: cannot be written ({error.strerror}); nothing was appended") from None
    finally:
        os.close(end)
