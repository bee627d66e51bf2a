"""The events of the log: what a shop can say about a customer, as frozen models in one discriminated union.

    Impression  a product was shown, with the features known at that moment
    Signal      something happened before a conversion: click, cart, favourite, ...
    Conversion  what is to be predicted (a purchase), or another outcome that only feeds item pairs
    Adjustment  an earlier conversion is taken back (retract), or its value is corrected (restate)
    Item        metadata of a product

``at`` is the event time in milliseconds since 1970, UTC. When a record arrived is the order of the log.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

EARLIEST = 946_684_800_000  # 2000-01-01 UTC, ms
LATEST = 4_102_444_800_000  # 2100-01-01 UTC, ms
ATTRIBUTION = "give impression_id, or user_id and item_id"

LONGEST = 200  # characters of an id
Id = Annotated[str, Field(min_length=1, max_length=LONGEST)]
Kind = Annotated[str, Field(min_length=1, max_length=50)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Time = Annotated[int, Field(ge=EARLIEST, lt=LATEST, description="event time, ms since 1970, UTC")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1000)]
Texts = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]
Feature = Annotated[Number | Text | Texts, Field(union_mode="left_to_right")]
Features = Annotated[dict[Name, Feature], Field(max_length=256)]


class Model(BaseModel):
    """What all events share. A field that nobody knows is kept aside, to be counted, and never stored."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Served(Model):
    """What was really shown by the system in production, where it differs from this learner."""

    score: Annotated[float, Field(ge=0, le=1)]
    uncertainty: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    version: Name | None = None


class Impression(Model):
    """A product was shown to a customer."""

    type: Literal["impression"] = "impression"
    impression_id: Id
    at: Time
    features: Features = {}
    user_id: Id | None = None
    item_id: Id | None = None
    context_item_id: Id | None = None
    served: Served | None = None


class Referring(Model):
    """An event that belongs to an impression: named, or found as the last touch by (user, item)."""

    event_id: Id
    kind: Kind
    at: Time
    impression_id: Id | None = None
    user_id: Id | None = None
    item_id: Id | None = None
    session_id: Id | None = None

    @model_validator(mode="after")
    def _refers(self) -> Self:
        if self.impression_id is None and (self.user_id is None or self.item_id is None):
            raise ValueError(ATTRIBUTION)
        return self


class Signal(Referring):
    """Something a customer did before a conversion."""

    type: Literal["signal"] = "signal"


class Conversion(Referring):
    """An outcome. Conversions of the learner's target kind are labels; the value is stored and reported, not learned."""

    type: Literal["conversion"] = "conversion"
    value: Number | None = None
    basket_id: Id | None = None


class Adjustment(Model):
    """An earlier conversion is taken back, or its value corrected."""

    type: Literal["adjustment"] = "adjustment"
    event_id: Id
    at: Time
    conversion_id: Id
    action: Literal["retract", "restate"]
    value: Number | None = None

    @model_validator(mode="after")
    def _restates(self) -> Self:
        if (self.action == "restate") != (self.value is not None):
            raise ValueError("a restatement gives the corrected value; a retraction gives none")
        return self


class Item(Model):
    """Metadata of a product, from this moment on."""

    type: Literal["item"] = "item"
    item_id: Id
    at: Time
    features: Features = {}


Event = Impression | Signal | Conversion | Adjustment | Item

ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])

RANK: dict[type[Event], int] = {Item: 0, Impression: 1, Signal: 2, Conversion: 3, Adjustment: 4}


def identity(event: Event) -> str:
    """The id by which duplicates are known. An item's is its id and time: later metadata replaces, it does not repeat."""
    if isinstance(event, Impression):
        return event.impression_id
    if isinstance(event, Item):
        return f"{event.item_id}@{event.at}"
    return event.event_id
