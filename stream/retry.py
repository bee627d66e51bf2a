"""Dead letters again: each is appended to the log as a new record, and then marked in the store.

    1. the lines go to the end of their partition's file, and are made durable there;
    2. one SQL transaction marks the letters with the offsets of the new records.

Stopped between the two, a letter is in the log and not marked: the next retry appends it once more, and the second of
the two is a duplicate, known by its id. Nothing is ever lost.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from labelstore import letters
from labelstore.address import shown
from labelstore.ledger import DEAD_LETTER_BYTES, Checkpoint, newest
from labelstore.letters import Letter, Place
from labelstore.store import StoreError, amended, existing
from stream.appending import Tail
from stream.codec import Codec, DeadLetter
from stream.envelope import parse, spell
from stream.files import LONGEST, FileSource
from stream.settings import Settings
from stream.sources import Partition, Record, SourceError, stood
from stream.workspace import alone, known_folder

BLOCK = 500  # letters appended and marked at a time
ELSEWHERE = "the log has no such record at this place; give the log that was replayed"


class Retried(NamedTuple):
    """``appended``: letter -> offset of its new record. ``refused``: reason -> letters that are dead still. ``already``:
    letters that were retried before, with the offsets of those records; they were left alone."""

    appended: dict[Place, int]
    refused: dict[str, list[Place]]
    already: dict[Place, int]


def retry(url: str, source: FileSource, chosen: "Choice", value: bytes | None = None, strict: bool = False) -> Retried:
    """Append the chosen letters to the log, if they can be read by now, and mark them.

    Args:
        value: what to append instead of the record of the one place that is chosen: an event, or an envelope.
        strict: refuse fields nobody knows, also where the store does not.

    Raises:
        StoreError: a place has no dead letter, or the store is being written to. SourceError: the log cannot be written.
    """
    with existing(url):
        pass  # or there is nothing to lock
    with alone(url, known_folder(url)):
        with existing(url) as connection:
            places = chosen.of(connection, url)
            checkpoint = newest(connection)
            codec = _codec(checkpoint, strict)
        open_ = [place for place, offset in places.items() if offset is None or chosen.again]
        found = Retried({}, {}, {p: n for p, n in places.items() if n is not None and not chosen.again})
        for partition in sorted({Partition(p.topic, p.partition) for p in open_}):
            mine = [p for p in open_ if (p.topic, p.partition) == partition]
            writer = _Writer(url, source, partition, codec, found)
            _same(source, partition, checkpoint)
            writer.write(mine, value)
        return found


def _same(source: FileSource, partition: Partition, checkpoint: Checkpoint | None) -> None:
    """Whether what the store has read of a partition is in the log: else no replay would read what is appended.

    Raises:
        SourceError: it is not. For the store of a daemon no log on disk is the one, nor an export of its topics.
    """
    try:
        source.seek(*stood(checkpoint.progress if checkpoint else {}))
        source.poll(1, frozenset(source.partitions()) - {partition})
    except SourceError as error:
        raise SourceError(
            f"{error}; a daemon's store has no log: correct the record, and `belated produce` it"
        ) from None


def _codec(checkpoint: Checkpoint | None, strict: bool) -> Codec:
    """As the run reads that wrote the store."""
    settings = Settings(**checkpoint.settings) if checkpoint else Settings()
    return Codec(strict or settings.strict, settings.mapping)


class Choice(NamedTuple):
    """Which letters: those at ``places``, or without any all of them whose reason holds a text. ``again``: also those
    that were retried before."""

    places: tuple[Place, ...] = ()
    reason: str | None = None
    again: bool = False

    def of(self, connection: Connection, url: str) -> dict[Place, int | None]:
        """The letters, in order, with the offset of the record appended for each that was retried."""
        if not self.places:
            return letters.places(connection, self.reason)
        return {place: letter_at(connection, place, url).retried for place in sorted(set(self.places))}


def letter_at(connection: Connection, place: Place, url: str) -> Letter:
    """The dead letter at a place.

    Raises:
        StoreError: there is none.
    """
    if (found := letters.letter(connection, place)) is None:
        some = ", ".join(str(one.place) for one in letters.listed(connection, None, 3)) or "none"
        raise StoreError(f"{place}: the store {shown(url)} has no such dead letter; it has, for example: {some}")
    return found


def whole(source: FileSource, partition: Partition, kept: Iterable[Letter]) -> Iterator[Record | None]:
    """The records of letters of a partition, by rising offset, as the log has them; None where it has another one."""
    records = source.records(partition)
    record = next(records, None)
    for letter in kept:
        while record and record.offset < letter.place.offset:
            record = next(records, None)
        same = record and record.offset == letter.place.offset and record.value[:DEAD_LETTER_BYTES] == letter.value
        yield record if same else None


class _Writer:
    """Appends to one partition, block by block."""

    def __init__(self, url: str, source: FileSource, partition: Partition, codec: Codec, found: Retried) -> None:
        self._url, self._source, self._partition, self._codec, self._found = url, source, partition, codec, found
        self._tail = Tail(source.file(partition), source.numbers(partition))

    def write(self, places: list[Place], value: bytes | None) -> None:
        """Steps 1 and 2, for each block."""
        lines: dict[Place, bytes] = {}
        with existing(self._url) as connection:
            kept = (letter_at(connection, place, self._url) for place in places)
            for place, record in zip(places, whole(self._source, self._partition, kept), strict=True):
                line = self._line(record, value) if record else ELSEWHERE
                if isinstance(line, str):
                    self._found.refused.setdefault(line, []).append(place)
                else:
                    lines[place] = line
                if lines and (len(lines) == BLOCK or place == places[-1]):
                    self._append(lines)
                    lines = {}

    def _line(self, record: Record, value: bytes | None) -> bytes | str:
        """What to append, or the reason why it would be a dead letter again."""
        timestamp, key, corrected = parse(value) if value is not None else (None, None, record.value)
        if value is None or (timestamp, key, corrected) == (None, None, value):
            timestamp, key = record.timestamp, record.key
        line = spell(timestamp, key, corrected)
        for told in ((timestamp, key, corrected), parse(line[:LONGEST])):
            event = self._codec.decode(Record(*self._partition, self._tail.offset, told[0], told[1], told[2]))
            if isinstance(event, DeadLetter):
                return event.reason
        return line

    def _append(self, lines: Mapping[Place, bytes]) -> None:
        first = self._tail.append(list(lines.values()))
        appended = {place: first + n for n, place in enumerate(lines)}
        with amended(self._url) as connection:
            letters.mark(connection, appended)
        self._found.appended.update(appended)
