"""What a run is asked to do. Everything here is part of the result: a checkpoint is only continued under the same."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from labelstore.events import EARLIEST, LATEST
from learner.names import DEFAULT, GRAPH_DEFAULT, GRAPH_NAMES, NAMES
from stream.mapping import Topic

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def duration(text: object) -> object:
    """A duration such as 30m, 12h or 7d, in ms.

    >>> duration("7d"), duration("90s"), duration("0s")
    (604800000, 90000, 0)
    """
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s|m|h|d|w)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a duration; write a number and one of {', '.join(UNITS)}, such as 7d or 90s")
    return round(float(found[1]) * UNITS[found[2]])


def spell(ms: int) -> str:
    """The shortest way to write a duration.

    >>> spell(604800000), spell(90000), spell(0)
    ('7d', '90s', '0s')
    """
    unit = next((u for u in ("d", "h", "m", "s") if ms and ms % UNITS[u] == 0), "s" if ms == 0 else "ms")
    return f"{ms // UNITS[unit]}{unit}"


def rounded(ms: int) -> str:
    """A duration to read: up to whole days, else hours, minutes or seconds, of which it has two at least."""
    unit = next((UNITS[u] for u in ("d", "h", "m") if ms > 2 * UNITS[u]), UNITS["s"])
    return spell(-(-ms // unit) * unit)


def lasts(field: FieldInfo) -> bool:
    """Whether a field of a model is a duration, or one or none."""
    return "duration" in repr(field.annotation) or any(
        isinstance(known, BeforeValidator) and known.func is duration for known in field.metadata
    )


def as_written(model: type[BaseModel], told: Mapping[str, Any]) -> dict[str, Any]:
    """What a file tells a model: a bare number in place of a duration is text, which `duration` refuses with the remedy."""
    found = {}
    for name, value in told.items():
        field = model.model_fields.get(name)
        inside = field.annotation if field else None
        if isinstance(inside, type) and issubclass(inside, BaseModel) and isinstance(value, dict):
            value = as_written(inside, value)
        elif field and lasts(field) and type(value) in (int, float) and value:
            value = str(value)
        found[name] = value
    return found


BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def sentence(problem: ErrorDetails) -> str:
    """What is wrong with a value that was given, without its name; a bound of a duration as durations are written."""
    found = problem["input"]
    if problem["type"] == "tuple_type":
        return f"expected a list, got {found!r}; write [{json.dumps(found)}]"
    if problem["type"] == "too_short":
        return f"expected at least {problem['ctx']['min_length']}, got none"
    if problem["type"] not in BOUNDS:
        said = problem["msg"].removeprefix("Value error, ")
        told = problem["type"] in ("value_error", "missing") or "password" in str(problem["loc"])
        return said if told else f"{said}, got {found!r}"[:300]
    bound, words = BOUNDS[problem["type"]]
    limit = problem["ctx"][bound]
    written = isinstance(found, str) and found[-1:].isalpha()
    return f"expected {words} {spell(limit) if written else limit}, got {found}"


def moment(text: str) -> int:
    """An event time, ms since 1970, as written by a person: ISO 8601, UTC where no offset is given, or ms since 1970.

    >>> moment("2017-11-28"), moment("2017-11-28T02:00+02:00"), moment("1511827200000")
    (1511827200000, 1511827200000, 1511827200000)
    """
    text = text.strip()
    try:
        if text.isascii() and text.isdigit():
            ms = int(text)
        else:
            time = datetime.fromisoformat(text)
            since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
            ms = -(-since // timedelta(milliseconds=1))  # what is known before a part of a ms is known before the next
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write ISO 8601, such as 2017-11-28 or 2017-11-28T12:00 (UTC), or ms since 1970"
        ) from None
    if not EARLIEST <= ms <= LATEST:
        raise ValueError(f"{text!r} is not within 2000 to 2100, as all event times are; a bare number is ms since 1970")
    return ms


RIVER = "river:"  # before the name of a classifier of river's, as a contestant
Duration = Annotated[int, BeforeValidator(duration)]


def _usable(classifier: str) -> None:
    from stream.river import names

    if classifier not in names():
        raise ValueError(
            f"river has no classifier {classifier!r} that can be used as it is; it has {', '.join(names())}"
        )


class Settings(BaseModel):
    """The options of a replay or backtest. Durations in ms, or written as 7d, 12h, 90s."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=50, description="how late labels are treated: docs/methods.md")
    ] = (DEFAULT,)
    target: Annotated[str, Field(min_length=1, max_length=50, description="the kind of conversion to predict")] = (
        "purchase"
    )
    window: Annotated[
        Duration,
        Field(
            gt=0,
            le=366 * UNITS["d"],
            description="attribution window: a conversion counts this long after its impression",
        ),
    ] = 30 * UNITS["d"]
    wait: Annotated[Duration, Field(ge=0, description="elapsed time until the first look at an impression")] = UNITS[
        "d"
    ]
    keep: Annotated[
        Duration | None,
        Field(description="how long records are kept, at least a window and a day; by default two windows"),
    ] = None
    pretrain: Annotated[
        Annotated[Duration, Field(gt=0)] | None,
        Field(description="learn this long from settled labels, wait one window, and only then predict and train"),
    ] = None
    frozen: Annotated[
        bool,
        Field(description="auxiliary models stop learning when the pre-training is over, as in most of the papers"),
    ] = False
    lateness: Annotated[
        Duration, Field(ge=0, description="how far a partition may be out of order before a record counts as late")
    ] = 0
    base_rate: Annotated[
        float, Field(ge=1e-6, le=0.999999, description="conversion rate believed before anything was learned")
    ] = 0.05
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of the start weights")] = 0
    strict: Annotated[bool, Field(description="refuse records with fields nobody knows, and names no mapping has")] = (
        False
    )
    graph_every: Annotated[
        Annotated[Duration, Field(ge=UNITS["d"])] | None,
        Field(description="learn anew this often which products follow which, for the model's use: docs/related.md"),
    ] = None
    graph_method: Annotated[str, Field(description="how: docs/related.md")] = GRAPH_DEFAULT
    graph_window: Annotated[Duration, Field(gt=0, description="how far a purchase looks back at those before it")] = (
        30 * UNITS["d"]
    )
    graph_half_life: Annotated[Duration, Field(gt=0, description="after which a pair of products counts half")] = (
        90 * UNITS["d"]
    )
    mapping: Annotated[dict[str, Topic], Field(description="topics of foreign JSON: docs/mapping.md")] = {}

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        for name in self.methods:
            if name.startswith(RIVER):
                _usable(name.removeprefix(RIVER))
            elif name not in NAMES:
                raise ValueError(
                    f"method {name!r} is unknown; choose from {', '.join(NAMES)}, or a classifier of river's, such as "
                    f"{RIVER}LogisticRegression"
                )
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods {', '.join(self.methods)}: one is named twice; name each once")
        if self.frozen and not self.pretrain:
            raise ValueError(
                "frozen without pretrain: auxiliary models would never learn; give pretrain, or leave frozen out"
            )
        if self.graph_method not in GRAPH_NAMES:
            raise ValueError(f"graph_method {self.graph_method!r} is unknown; choose from {', '.join(GRAPH_NAMES)}")
        if self.wait >= self.window:
            raise ValueError(
                f"wait {spell(self.wait)} is not shorter than window {spell(self.window)}; "
                "the first look must fall inside the attribution window"
            )
        return self

    def told(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        unused = {"mapping"} | (set() if self.frozen else {"frozen"})
        unused |= set() if self.graph_every else {name for name in Settings.model_fields if name.startswith("graph_")}
        plain = self.model_dump(mode="json", exclude=unused)
        mapping = {name: topic.told() for name, topic in sorted(self.mapping.items())}
        return plain | ({"mapping": mapping} if mapping else {})

    def without_learners(self) -> "Settings":
        """The same records, in the same order, numbered and kept alike, for nobody to learn from."""
        return self.model_copy(update={"methods": (), "pretrain": None, "frozen": False, "keep": self.kept})

    @property
    def learners(self) -> tuple[str, ...]:
        """The learners of a run by name; a learner's number is its place."""
        return ("pretrained", *self.methods) if self.pretrain else self.methods

    @property
    def kept(self) -> int:
        """How long records are kept after they were known, ms: two attribution windows where nothing else is asked, and
        at least that long where a pre-training looks back at its gap; and two windows of the product graph, if there is one,
        so that who has been looked back at is still there when a purchase is taken back."""
        least = 2 * self.window if self.pretrain or self.keep is None else 0
        return max(self.keep or 0, least, 2 * self.graph_window if self.graph_every else 0)
