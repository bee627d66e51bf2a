"""bytes -> event, or the reason why not.

What cannot be read is a dead letter: it is kept with its origin and a reason a person can act on, and moves no clock.
A field that nobody knows is ignored and counted; ``strict`` refuses the record instead.
"""

import re
from collections import Counter
from typing import Any, NamedTuple

from pydantic import ValidationError

from labelstore.events import ADAPTER, EARLIEST, LATEST, Event, Impression
from stream.sources import Record

DAY = 86_400_000
LIMIT = 1_000_000  # bytes of one record
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
NAMES, MORE = 1000, "(further names)"  # unknown fields told apart
FEATURE = "expected a number, a string of at most 1000 characters or a list of strings"


class DeadLetter(NamedTuple):
    """A record that cannot be used, and why."""

    record: Record
    reason: str


class Codec:
    """Decodes records; ``unknown`` counts the fields that nobody knows, as ``type.field``."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.unknown: Counter[str] = Counter()

    def decode(self, record: Record) -> Event | DeadLetter:
        """The event of a record, or a dead letter that says what is wrong with it."""
        if len(record.value) > LIMIT:
            return DeadLetter(record, f"the record is larger than {LIMIT:,} bytes; send less")
        try:
            event = ADAPTER.validate_json(record.value)
        except ValidationError as error:
            return DeadLetter(record, explain(error).replace("\0", "\\0"))
        if NUL.search(record.value):
            return DeadLetter(record, "a string holds the character NUL (\\u0000), which no database keeps; remove it")
        if record.timestamp is not None and event.at > record.timestamp + DAY:
            return DeadLetter(
                record, f"at: {event.at} is more than a day past the record's own timestamp {record.timestamp}"
            )
        if (names := _unknown(event)) and self.strict:
            return DeadLetter(record, f"{names[0]}: unknown field; remove it, or read with strict off")
        for name in names[:10]:
            self.unknown[name if name in self.unknown or len(self.unknown) < NAMES else MORE] += 1
        return event


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
    return _sentence(first["type"], _place(first["loc"]), first["msg"], first["input"]) + more


def _place(loc: tuple[int | str, ...]) -> str:
    if "features" in loc:
        return ".".join(str(part) for part in loc[: loc.index("features") + 2])
    return ".".join(str(part) for part in loc)


def _sentence(kind: str, place: str, message: str, value: Any) -> str:
    shown = repr(value)[:60]
    if kind == "json_invalid":
        return f"not JSON: {message.removeprefix('Invalid JSON: ')}"
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
        return f"{place}: expected milliseconds since 1970 as an integer in {EARLIEST}..{LATEST}, got {shown}"
    return f"{place}: {message.removeprefix('Value error, ')}" + ("" if kind == "value_error" else f", got {shown}")
