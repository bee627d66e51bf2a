"""A user's lines in a log on disk, replaced by blank lines: what is left keeps its offsets.

    1. the log is read until no further id of the user turns up; the user's lines are then known;
    2. every file that has some is written anew beside the old one, durable;
    3. each is renamed into its place.

Nothing is changed before 3. Stopped during 3, some files are done and others not: run again, the rest is found.
"""

import gzip
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from labelstore.letters import Place
from labelstore.traces import Traces
from stream.codec import Codec, DeadLetter
from stream.files import CUT_OFF, LONGEST, FileSource
from stream.foreign import Ignored, Misfit, text
from stream.mapping import Topic
from stream.packed import open_log
from stream.sources import Partition, Record, SourceError

NOWHERE = Record("", 0, 0, None, None, b"")  # where fields are looked at without the record they came in


class Blanked(NamedTuple):
    """Lines that were blanked, and in how many files."""

    lines: frozenset[Place]
    files: int


def blank(
    source: FileSource,
    traces: Traces,
    strict: bool,
    told: Callable[[int], None] = lambda read: None,
    mapping: Mapping[str, Topic] = MappingProxyType({}),
) -> Blanked:
    """Blank the lines of a log that are a user's: see `Traces`.

    Args:
        traces: the user, with the ids the store knows. It learns those of the log.
        strict: whether records with fields nobody knows are dead letters. mapping: of topics with foreign JSON.

    Raises:
        SourceError: a file is compressed and cut off, cannot be written, or somebody is writing to it.
    """
    before = _begin(source)
    found = _find(source, traces, Codec(strict, mapping), told)
    new: dict[Path, Path] = {}
    try:
        for partition, offsets in found.items():
            file = source.file(partition).resolve()
            new[file] = _rewrite(file, {source.numbers(partition).line(offset) for offset in offsets})
        _unchanged(source, before)
        for file, partial in new.items():
            _replace(file, partial)
    except OSError as error:
        raise SourceError(
            f"{error.filename or 'the log'}: cannot be written ({error.strerror}); make room or allow it, try again"
        ) from None
    finally:
        for partial in new.values():
            partial.unlink(missing_ok=True)
    return Blanked(frozenset(Place(*p, offset) for p, offsets in found.items() for offset in offsets), len(new))


def _begin(source: FileSource) -> dict[Partition, os.stat_result]:
    """The files as they are; copies that a killed run has left beside them are removed."""
    for partition in source.partitions():
        _partial(source.file(partition).resolve()).unlink(missing_ok=True)
    return {partition: source.file(partition).stat() for partition in source.partitions()}


def _unchanged(source: FileSource, before: Mapping[Partition, os.stat_result]) -> None:
    for partition, old in before.items():
        now = source.file(partition).stat()
        if (now.st_size, now.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
            raise SourceError(f"{source.file(partition)}: somebody is writing to it; nothing was blanked, try again")


def _find(source: FileSource, traces: Traces, codec: Codec, told: Callable[[int], None]) -> dict[Partition, set[int]]:
    """Step 1: the user's lines."""
    read = 0
    while True:
        known, found = len(traces), dict[Partition, set[int]]()
        for partition in source.partitions():
            for record in source.records(partition):
                _whole(source.file(partition), record)
                if _theirs(record, traces, codec):
                    found.setdefault(partition, set()).add(record.offset)
                if not (read := read + 1) % 10_000:
                    told(read)
        if len(traces) == known:
            return found


def users_of(mapping: Mapping[str, Topic]) -> Callable[[Any], set[str]]:
    """What to ask the fields of a record which users they name, wherever any topic looks for one."""
    sources = [kind.user_id for topic in mapping.values() for kind in (topic, *topic.cases.values()) if kind.user_id]

    def users(told: Any) -> set[str]:
        found = set()
        for source in sources:
            with suppress(Misfit):
                found.add(text("user_id", source, told, NOWHERE) or "")
        return found

    return users


def _theirs(record: Record, traces: Traces, codec: Codec) -> bool:
    """Whether a record is the user's, as an event or as what cannot be read or is ignored."""
    if not codec.maps(record.topic) and traces.owns(record.value):
        return True
    event = codec.decode(record) if codec.maps(record.topic) or traces.mentions(record.value, record.key) else None
    if isinstance(event, (DeadLetter, Ignored)):
        return traces.mentions(record.value, record.key)
    return event is not None and traces.owns(codec.plain(record, event).value)


def _whole(file: Path, record: Record) -> None:
    if record.value == CUT_OFF and file.suffix in (".gz", ".zst"):
        raise SourceError(
            f"{file}: the compressed file is cut off, so what is behind the cut cannot be searched; nothing was blanked; "
            "restore it, or pack what can be read of it anew"
        )


def _rewrite(file: Path, lines: Set[int]) -> Path:
    """Step 2: the file with these lines blank, under a temporary name."""
    partial = _partial(file)
    try:
        with open_log(file) as old, _packer(file, partial) as write:
            for part in _with_blanks(old, lines):
                write(part)
        shutil.copymode(file, partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _with_blanks(old: IO[bytes], lines: Set[int]) -> Iterator[bytes]:
    """The file in parts of lines; a blank line has an end also where the last line had none, so that offsets stay."""
    line, ended = 0, True
    while part := old.readline(LONGEST):
        ended = part.endswith(b"\n")
        if line not in lines:
            yield part
        elif ended:
            yield b"\n"
        line += ended
    if not ended and line in lines:
        yield b"\n"


@contextmanager
def _packer(file: Path, partial: Path) -> Iterator[Callable[[bytes], object]]:
    """Writes to a new file, packed as the old one is; at the end it is durable."""
    with partial.open("wb") as raw:
        if file.suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                yield packed.write
        elif file.suffix == ".zst":
            from zstandard import ZstdCompressor

            with ZstdCompressor().stream_writer(raw, closefd=False) as frame:
                yield frame.write
        else:
            yield raw.write
        raw.flush()
        os.fsync(raw.fileno())


def _replace(file: Path, partial: Path) -> None:
    """Step 3."""
    partial.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _partial(file: Path) -> Path:
    return file.with_name(file.name + ".partial")
