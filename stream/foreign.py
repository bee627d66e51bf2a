"""Somebody's own JSON -> the JSON of an event, as a mapping says. Pure: bytes in, bytes out, no clock.

What does not fit is told by the path, what was expected there, and what is there. Nothing else is ever raised.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from labelstore.events import ATTRIBUTION, EARLIEST, LATEST
from stream.envelope import not_json
from stream.mapping import EVERYTHING, MODELS, PART, TEXTS, Source, Topic
from stream.paths import absent, shown, steps, walk
from stream.sources import Record

DEEP = 8  # objects inside each other whose parts are still features
MOST = 257  # features, and one more so that the codec says there are too many
UNITS = {"ms": "milliseconds since 1970", "s": "seconds since 1970", "iso": "a time in ISO 8601"}
EPOCH = datetime.fromtimestamp(0, UTC)
DECIMAL = re.compile(r"[-+]?\d{1,18}(\.\d{1,18})?")
FEATURE = "a number, a string, a list of them, or an object"


class Misfit(Exception):
    """A record that does not fit the mapping; the message is the reason of its dead letter."""


class Plan(NamedTuple):
    """What records of one name become."""

    type: str
    required: frozenset[str]
    sources: Mapping[str, Any]

    def whence(self, field: str) -> str:
        """Where a field came from, to be added to what is wrong with it."""
        source = self.sources.get(field)
        return f"; it is made of {source}" if isinstance(source, Source) else ""


class Translated(NamedTuple):
    """The JSON of an event, and the plan it was made by."""

    value: bytes
    plan: Plan


class Ignored(NamedTuple):
    """A record whose name the mapping does not know."""

    name: str


class Translator:
    """The mappings of a run, ready to use."""

    def __init__(self, mapping: Mapping[str, Topic]) -> None:
        self._topics = dict(mapping)
        self._plans = {
            name: {case: _plan(topic, kind) for case, kind in topic.cases.items()} for name, topic in mapping.items()
        }

    def __contains__(self, topic: str) -> bool:
        """Whether records of this topic are somebody's own."""
        return topic in self._topics

    def translate(self, record: Record) -> Translated | Ignored:
        """The event of a record of a mapped topic.

        Raises:
            Misfit: with the reason.
        """
        topic, plans = self._topics[record.topic], self._plans[record.topic]
        try:
            told = from_json(record.value, allow_inf_nan=False)
        except ValueError as error:
            raise Misfit(not_json(record.value, str(error))) from None
        case = ""
        if topic.type_field is not None:
            if (name := text("type_field", topic.type_field, told, record)) is None:
                raise Misfit(f"type_field: {absent(topic.type_field.paths, str(topic.type_field), told)}")
            case = name
        plan = plans.get(case)
        return Ignored(case) if plan is None else Translated(to_json(_event(plan, told, record)), plan)


def _plan(topic: Topic, kind: Any) -> Plan:
    required = (name for name, field in MODELS[kind.type].model_fields.items() if field.is_required())
    return Plan(kind.type, frozenset(required), topic.sources(kind))


def _event(plan: Plan, told: Any, record: Record) -> dict[str, Any]:
    event: dict[str, Any] = {"type": plan.type}
    for field, source in plan.sources.items():
        if field == "features":
            event[field] = _features(source, told, record)
        elif field == "served":
            event[field] = {name: _part(name, s, told, record) for name, s in source.items()}
        elif (found := _part(field, source, told, record)) is not None:
            event[field] = found
        elif field in plan.required:
            raise Misfit(f"{field}: {absent(source.paths, str(source), told)}")
    if plan.type == "adjustment" and event.get("action") != "restate":
        event.pop("value", None)
    if event.get("served", {}).get("score", 0) is None:
        del event["served"]  # this one was shown without a score
    _refers(plan, event, told, record)
    return event


def _refers(plan: Plan, event: dict[str, Any], told: Any, record: Record) -> None:
    if plan.type not in ("signal", "conversion") or "impression_id" in event or {"user_id", "item_id"} <= event.keys():
        return
    for field in ("impression_id", "user_id", "item_id"):
        if field in plan.sources and field not in event:
            raise Misfit(f"{field}: {absent(plan.sources[field].paths, str(plan.sources[field]), told)}; {ATTRIBUTION}")


# one field ------------------------------------------------------------------------------------------------------------


def _part(field: str, source: Source, told: Any, record: Record) -> Any:
    if field == "at":
        return _time(source, told, record)
    if field in TEXTS or field == "version":
        return text(field, source, told, record)
    found = _found(source, told, record)
    if isinstance(found, str) and DECIMAL.fullmatch(found):
        return float(found)
    if found is None or (_sane(found) and not isinstance(found, str)):
        return found
    raise Misfit(f"{field}: {source}: expected a number, got {shown(found)}")


def text(field: str, source: Source, told: Any, record: Record) -> str | None:
    """An id or a word; None where there is nothing, an empty string or null."""
    if source.template is not None:
        parts = [_word(field, path, walk(told, steps(path))) for path in source.paths]
        if None in parts:
            return None
        rest = iter(parts)
        return PART.sub(lambda _: next(rest) or "", source.template)
    return _word(field, str(source), _found(source, told, record))


def _word(field: str, place: str, found: Any) -> str | None:
    if found is None or found == "":
        return None
    if isinstance(found, str):
        return found
    if isinstance(found, int) and _sane(found):
        return str(found)
    raise Misfit(f"{field}: {place}: expected a string or a whole number, got {shown(found)}")


def _time(source: Source, told: Any, record: Record) -> int | None:
    """ms since 1970; seconds to the nearest ms, and of ISO 8601 a part of a ms is left out."""
    found = _found(source, told, record)
    if found is None or found == "":
        return None
    if (ms := _ms(found, source.unit)) is not None:
        return ms
    fits = [unit for unit in UNITS if _ms(found, unit) is not None]
    better = f'; it would fit unit = "{fits[0]}"' if fits else ""
    raise Misfit(f"at: {source}: expected {UNITS[source.unit]}, within 2000 to 2100, got {shown(found)}{better}")


def _ms(found: Any, unit: str) -> int | None:
    """A time in a unit, in ms; None if it is no time of an event."""
    ms = _iso(found) if unit == "iso" else _number(found, 1000 if unit == "s" else 1)
    return ms if ms is not None and EARLIEST <= ms < LATEST else None


def _iso(found: Any) -> int | None:
    """A text in ISO 8601, in ms since 1970; UTC where it has no offset."""
    try:
        time = datetime.fromisoformat(found if isinstance(found, str) else "")
        return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def _number(found: Any, scale: int) -> int | None:
    """A number or a decimal string, times ``scale``, as a whole number."""
    if isinstance(found, str) and DECIMAL.fullmatch(found):
        found = int(found) if "." not in found else float(found)
    if not _sane(found) or isinstance(found, str):
        return None
    scaled = found * scale
    return round(scaled) if math.isfinite(scaled) else None


def _found(source: Source, told: Any, record: Record) -> Any:
    if source.path is not None:
        return walk(told, steps(source.path))
    if source.value is not None:
        return source.value
    if source.record == "timestamp":
        return record.timestamp
    if source.record == "key":
        return record.key.decode("utf-8", "replace") if record.key else None
    return f"{record.topic}/{record.partition}@{record.offset}"


# features -------------------------------------------------------------------------------------------------------------


def _features(sources: Mapping[str, Source], told: Any, record: Record) -> dict[str, Any]:
    """Everything of an object first, in its own order; then those that are named, by name."""
    found: dict[str, Any] = {}
    if (everything := sources.get(EVERYTHING)) is not None:
        inside = _found(everything, told, record)
        if inside is not None and not isinstance(inside, dict):
            raise Misfit(f"features: {everything}: expected an object, got {shown(inside)}")
        found.update(_flat("", inside, str(everything), DEEP))
    for name, source in sorted(sources.items()):
        if name != EVERYTHING and len(found) < MOST:
            found.update(_flat(name, _found(source, told, record), str(source), DEEP))
    return found


def _flat(name: str, value: Any, place: str, deep: int) -> Iterator[tuple[str, Any]]:
    """A value as features: parts of objects by their names with dots, truths as words, nothing for null."""
    if isinstance(value, dict) and deep:
        for part, inside in list(value.items())[:MOST]:
            yield from _flat(f"{name}.{part}" if name else part, inside, f"{place}.{part:.100}", deep - 1)
    elif isinstance(value, list) and all(v is None or _sane(v) or isinstance(v, bool) for v in value):
        yield name, [_spelled(v) for v in value if v is not None]
    elif isinstance(value, bool):
        yield name, _spelled(value)
    elif _sane(value):
        yield name, value
    elif value is not None:
        raise Misfit(f"features: {place}: expected {FEATURE}, got {shown(value)}; name the features one by one")


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sane(value: Any) -> bool:
    """A string, or a number of a size that computers agree about."""
    if isinstance(value, bool):
        return False
    return isinstance(value, (str, float)) or (isinstance(value, int) and -(2**63) <= value < 2**64)
