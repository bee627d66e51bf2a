"""bytes -> event, or the reason why not.

What cannot be read is a dead letter: it is kept with its origin and a reason a person can act on, and moves no clock.
A field that nobody knows is ignored and counted; ``strict`` refuses the record instead. Records of a topic with a mapping
are somebody's own JSON: they are made events first (`stream.foreign`); those whose name the mapping does not know are
ignored and counted, or refused likewise.
"""

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from labelstore.events import ADAPTER, EARLIEST, LATEST, Event, Impression
from stream.envelope import not_json
from stream.foreign import Ignored, Misfit, Plan, Translator
from stream.mapping import Topic
from stream.sources import Record

DAY = 86_400_000
LIMIT = 1_000_000  # bytes of one record
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
NAMES, MORE = 1000, "(further names)"  # unknown fields told apart
MAPPING = "a mapping can read it: docs/mapping.md"
FEATURE = "expected a finite number, a string of at most 1000 characters or a list of strings"


class DeadLetter(NamedTuple):
    """A record that cannot be used, and why."""

    record: Record
    reason: str


class Codec:
    """Decodes records; ``unknown`` counts the fields that nobody knows, as ``type.field``, ``ignored`` the records that a
    mapping does not name, as ``topic name``."""

    def __init__(self, strict: bool = False, mapping: Mapping[str, Topic] = MappingProxyType({})) -> None:
        self.strict = strict
        self.unknown: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self._translator = Translator(mapping)

    def decode(self, record: Record) -> Event | Ignored | DeadLetter:
        """The event of a record, or a dead letter that says what is wrong with it."""
        if not record.value:
            return DeadLetter(record, "the record has no value (a tombstone); send an event")
        if len(record.value) > LIMIT:
            return DeadLetter(record, f"the record is larger than {LIMIT:,} bytes; send less")
        if record.topic not in self._translator:
            return self._event(record, record.value)
        try:
            found = self._translator.translate(record)
        except Misfit as misfit:
            return DeadLetter(record, str(misfit))
        if isinstance(found, Ignored):
            return self._ignore(record, found)
        return self._event(record, found.value, found.plan)

    def maps(self, topic: str) -> bool:
        """Whether the records of a topic are made events by a mapping."""
        return topic in self._translator

    def plain(self, record: Record, event: Event) -> Record:
        """The record as it would be had the event been sent as such."""
        if record.topic not in self._translator:
            return record
        return record._replace(value=event.model_dump_json(exclude_none=True).encode())

    def _ignore(self, record: Record, found: Ignored) -> Ignored | DeadLetter:
        if self.strict:
            return DeadLetter(
                record,
                f"{found.name[:60]!r}: not among the kinds of this topic's mapping; add it, or read with strict off",
            )
        _count(self.ignored, f"{record.topic} {found.name}"[:100])
        return found

    def _event(self, record: Record, value: bytes, plan: Plan | None = None) -> Event | DeadLetter:
        try:
            event = ADAPTER.validate_json(value)
        except ValidationError as error:
            return DeadLetter(
                record, explain(error).replace("\0", "\\0") + (plan.whence(_first(error)) if plan else "")
            )
        if NUL.search(value):
            return DeadLetter(record, "a string holds the character NUL (\\u0000), which no database keeps; remove it")
        if record.timestamp is not None and event.at > record.timestamp + DAY:
            return DeadLetter(
                record,
                f"at: more than a day past the timestamp of its record, got {event.at} in one of {record.timestamp}",
            )
        if (names := _unknown(event)) and self.strict:
            return DeadLetter(record, f"{names[0]}: unknown field; remove it, or read with strict off")
        for name in names[:10]:
            _count(self.unknown, name)
        return event


def _count(names: Counter[str], name: str) -> None:
    names[name if name in names or len(names) < NAMES else MORE] += 1


def _first(error: ValidationError) -> str:
    """The field of an event that is wrong, or ""."""
    place = error.errors(include_url=False)[0]["loc"]
    return str(place[1]) if len(place) > 1 else ""


def _unknown(event: Event) -> list[str]:
    """The fields of an event that nobody knows, as ``type.field``."""
    if isinstance(event, Impression) and event.served and event.served.model_extra:
        inside = [f"impression.served.{name}"[:100] for name in sorted(event.served.model_extra)]
        return [f"impression.{name}"[:100] for name in sorted(event.model_extra or ())] + inside
    return [f"{event.type}.{name}"[:100] for name in sorted(event.model_extra)] if event.model_extra else []


def explain(error: ValidationError) -> str:
    """The first thing wrong with a record: where, what was expected, what is there, and how many more."""
    problems = error.errors(include_url=False)
    first = problems[0]
    places = {_place(problem["loc"]) for problem in problems}
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    if first["loc"][-1:] == ("[key]",):
        return f"{_place(first['loc'][:-2])}: a name of a feature has 1 to 100 characters, got {first['input']!r:.60}{more}"
    return _sentence(first["type"], _place(first["loc"]), first["msg"], first["input"]) + more


def _place(loc: tuple[int | str, ...]) -> str:
    """Where in an event; names that somebody has given are cut."""
    parts = loc[: loc.index("features") + 2] if "features" in loc else loc
    return ".".join(str(part)[:100] for part in parts)


def _sentence(kind: str, place: str, message: str, value: Any) -> str:
    shown = repr(value)[:60]
    if kind == "json_invalid":
        return not_json(value, message.removeprefix("Invalid JSON: "))
    if kind == "dict_type" and not place:
        return f"expected one JSON object, got {shown}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        got = repr(value["type"])[:60] if isinstance(value, dict) and "type" in value else "nothing"
        return f"type: expected impression, signal, conversion, adjustment or item, got {got}"
    if kind == "missing":
        return f"{place}: missing"
    if ".features." in place:
        return f"{place}: {FEATURE}, got {shown}"
    if place.endswith(".at"):
        expected = f"expected milliseconds since 1970 as an integer in {EARLIEST}..{LATEST}{_unit(value)}"
        return f"{place}: {expected}, got {shown}"
    if kind == "string_type" and isinstance(value, int):
        return f"{place}: expected a string, got {shown} ({MAPPING})"
    return f"{place}: {message.removeprefix('Value error, ')}" + ("" if kind == "value_error" else f", got {shown}")


def _unit(value: Any) -> str:
    """What to do about a time in another unit, if it is one.

    >>> _unit(1704068394), _unit(1704068394261000), _unit("noon")
    (' (seconds? multiply by 1000)', ' (microseconds? divide by 1000)', ' (a text? a mapping can read it: docs/mapping.md)')
    """
    if isinstance(value, str):
        return f" (a text? {MAPPING})"
    if isinstance(value, int | float) and EARLIEST <= value * 1000 <= LATEST:
        return " (seconds? multiply by 1000)"
    if isinstance(value, int | float) and 1000 * EARLIEST <= value <= 1000 * LATEST:
        return " (microseconds? divide by 1000)"
    return ""
