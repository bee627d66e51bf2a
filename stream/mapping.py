"""The grammar of `[mapping.TOPIC]`: where in somebody's own JSON the fields of an event are. docs/mapping.md teaches it.

A mapping is part of the result: it is one of the settings a checkpoint is continued under. `stream.foreign` applies it.
"""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from labelstore.events import ATTRIBUTION, Adjustment, Conversion, Impression, Item, Signal
from stream.paths import PATH, steps

EventType = Literal["impression", "signal", "conversion", "adjustment", "item"]
MODELS: dict[str, type[BaseModel]] = {
    "impression": Impression, "signal": Signal, "conversion": Conversion, "adjustment": Adjustment, "item": Item,
}  # fmt: skip
EVERYTHING = "*"  # in features: all there is in an object
PART = re.compile(r"\{([^{}]*)\}")


def _constant(given: Any) -> Any:
    """A truth is a word, as it is in records; a number has the size that computers agree about."""
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int) and not -(2**63) <= given < 2**64:
        raise ValueError(f"{given:.3e} has more than 64 bits; write it as a text")
    return given


class Part(BaseModel):
    """What the parts of a mapping share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Where one field comes from: exactly one of a path, a template of paths, a constant, the record itself."""

    path: str | None = Field(None, max_length=1000, description="into the record's JSON")
    template: str | None = Field(None, max_length=1000, description='text with paths in braces: "{a.b}:{c}"')
    value: Annotated[str | int | Annotated[float, Field(allow_inf_nan=False)], BeforeValidator(_constant)] | None = (
        Field(None, description="a constant")
    )
    record: Literal["key", "timestamp", "origin"] | None = Field(
        None, description="the record's key or timestamp, or topic/partition@offset"
    )
    unit: Literal["ms", "s", "iso"] = Field("ms", description="of at: milliseconds or seconds since 1970, or ISO 8601")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [name for name in ("path", "template", "value", "record") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of path, template, value and record, not {' and '.join(given) or 'none'}")
        for path in self.paths:
            steps(path)
        if self.template is not None and (not self.paths or set("{}") & set(PART.sub("", self.template))):
            raise ValueError(f"{self.template!r} is not a template: {PATH}, each in braces of its own")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths it reads."""
        if self.path is not None:
            return (self.path,)
        return tuple(PART.findall(self.template)) if self.template is not None else ()

    def __str__(self) -> str:
        """As a person would say it."""
        if self.record:
            return f"the record's {self.record}"
        if self.value is not None:
            return f"the constant {self.value!r}"
        return (self.path or self.template or "") + ("" if self.unit == "ms" else f" (unit {self.unit})")

    def told(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _read(given: Any) -> Any:
    """A string is a path, or a template where it has braces."""
    return {"template" if "{" in given else "path": given} if isinstance(given, str) else given


def _word(given: Any) -> Any:
    """A string is itself."""
    return {"value": given} if isinstance(given, str) else given


def _features(given: Any) -> Any:
    """A path alone, or a table with nothing but a path, names an object of which everything is a feature."""
    if isinstance(given, dict) and set(given) == {"path"} and isinstance(given["path"], str):
        given = given["path"]
    return {EVERYTHING: given} if isinstance(given, str) else given


Read = Annotated[Source, BeforeValidator(_read)]
Word = Annotated[Source, BeforeValidator(_word)]


class Fields(Part):
    """The fields of an event, each with its source."""

    impression_id: Read | None = None
    event_id: Read | None = None
    conversion_id: Read | None = None
    kind: Word | None = None
    action: Word | None = None
    at: Read | None = None
    user_id: Read | None = None
    item_id: Read | None = None
    context_item_id: Read | None = None
    session_id: Read | None = None
    basket_id: Read | None = None
    value: Read | None = None
    features: Annotated[dict[str, Read], BeforeValidator(_features), Field(max_length=256)] = {}
    served: dict[Literal["score", "uncertainty", "version"], Read] = {}

    @property
    def given(self) -> dict[str, Any]:
        """Those that have a source."""
        return {name: found for name in Fields.model_fields if (found := getattr(self, name))}


class Kind(Fields):
    """What records of one name become."""

    type: EventType


def _kind(given: Any) -> Any:
    return {"type": given} if isinstance(given, str) else given


class Topic(Fields):
    """What the records of one topic become: all the same type, or as a field of theirs says."""

    type: EventType | None = None
    type_field: Read | None = None
    kinds: Annotated[dict[str, Annotated[Kind, BeforeValidator(_kind)]], Field(max_length=1000)] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type is None) == (self.type_field is None) or bool(self.kinds) != (self.type_field is not None):
            raise ValueError("give type, or type_field and [mapping.TOPIC.kinds] with what each of its values means")
        cases = self.cases
        possible = {field for kind in cases.values() for field in MODELS[kind.type].model_fields}
        for name in self.given:
            if name not in possible:
                raise ValueError(f"{name}: no event of this topic has that field; {_fields_of(cases.values())}")
        for name, kind in cases.items():
            _check(f"kinds.{name}: " if self.kinds else "", kind, self.sources(kind))
        return self

    @property
    def cases(self) -> dict[str, Kind]:
        """The kinds by name; where all records are of one type, the one under the name ""."""
        return self.kinds or ({"": Kind(type=self.type)} if self.type else {})

    def sources(self, kind: Kind) -> dict[str, Any]:
        """The sources of one kind: its own above those of the topic, for the fields its type has."""
        fields = MODELS[kind.type].model_fields
        return {name: found for name, found in (self.given | kind.given).items() if name in fields}

    def told(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _check(place: str, kind: Kind, sources: dict[str, Any]) -> None:
    """All that an event of this type needs has a source, and nothing else is named."""
    model = MODELS[kind.type]
    for name in kind.given:
        if name not in model.model_fields:
            raise ValueError(f"{place}{name}: {_fields_of([kind])}")
    for name, field in model.model_fields.items():
        if field.is_required() and name not in sources:
            raise ValueError(f"{place}{kind.type} needs {name}; say where it is, such as {name} = {EXAMPLES[name]}")
    if kind.type in ("signal", "conversion") and not ({"impression_id"} <= sources.keys() or sources.keys() >= BOTH):
        raise ValueError(f"{place}{kind.type}: {ATTRIBUTION}; say where they are")
    if "served" in sources and "score" not in sources["served"]:
        raise ValueError(f"{place}served needs score")
    action = sources.get("action")
    if action and action.value not in (None, *get_args(Adjustment.model_fields["action"].annotation)):
        raise ValueError(f"{place}action: expected retract or restate, got {action.value!r}")
    if action and action.value == "restate" and "value" not in sources:
        raise ValueError(f"{place}a restatement needs value; say where it is")


def _fields_of(kinds: Any) -> str:
    said = []
    for type_ in dict.fromkeys(kind.type for kind in kinds):
        said.append(f"{type_} has {', '.join(name for name in MODELS[type_].model_fields if name != 'type')}")
    return "; ".join(said)


BOTH = {"user_id", "item_id"}
EXAMPLES = {
    "impression_id": '"payload.imp.id"', "event_id": '"id", "{session}:{n}" or {record = "origin"}', "kind": '"cart"',
    "at": '{path = "ts", unit = "s"}', "conversion_id": '"order.id"', "action": '"retract"', "item_id": '"product.id"',
}  # fmt: skip
TEXTS = frozenset(Fields.model_fields) - {"at", "value", "features", "served"}
