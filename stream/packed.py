"""The bytes of a log's file, unpacked: .jsonl, .jsonl.gz, and .jsonl.zst with the extra `zstd`."""

import gzip
import io
from pathlib import Path
from typing import IO, Any

from stream.sources import SourceError


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
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError:
            raise SourceError(f"{file}: reading .zst needs an extra; pip install 'belated[zstd]'") from None
        self._new, self._error = ZstdDecompressor().decompressobj, ZstdError
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
            try:
                self._ready = self._frame.decompress(packed)
            except self._error as error:
                raise OSError(f"the compressed file is damaged: {error}") from None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._packed.close()
        super().close()
