"""Random logs: small worlds of few customers and products, so that events meet, repeat, and come late."""

import json
from typing import Any

from hypothesis import strategies as st

T0 = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000  # a midnight
HOUR = 3_600_000
DAY = 24 * HOUR

times = st.integers(0, 9 * 24).map(lambda hours: T0 + hours * HOUR)
users, items = st.sampled_from(["u1", "u2", None]), st.sampled_from(["a", "b"])
names = st.integers(0, 12).map(lambda n: f"i{n}")


@st.composite
def impressions(draw: st.DrawFn) -> dict[str, Any]:
    """An impression; ids repeat now and then."""
    user = draw(users)
    features = {"x": draw(st.integers(-3, 3)), "who": user or "nobody", "tags": draw(st.lists(items, max_size=2))}
    event: dict[str, Any] = {
        "type": "impression",
        "impression_id": draw(names),
        "at": draw(times),
        "features": features,
    }
    return event | ({"user_id": user, "item_id": draw(items)} if user else {})


@st.composite
def referring(draw: st.DrawFn) -> dict[str, Any]:
    """A signal or conversion, that names its impression or only user and item."""
    kind = draw(st.sampled_from(["cart", "click", "purchase", "purchase", "redemption"]))
    type_ = "signal" if kind in ("cart", "click") else "conversion"
    event: dict[str, Any] = {"type": type_, "kind": kind, "event_id": f"e{draw(st.integers(0, 20))}", "at": draw(times)}
    user = draw(users)
    return event | ({"user_id": user, "item_id": draw(items)} if user else {"impression_id": draw(names)})


@st.composite
def adjustments(draw: st.DrawFn) -> dict[str, Any]:
    """A retraction or restatement of one of the conversions that may be there."""
    action = draw(st.sampled_from(["retract", "restate"]))
    event: dict[str, Any] = {"type": "adjustment", "action": action, "event_id": f"a{draw(st.integers(0, 5))}"}
    event |= {"conversion_id": f"e{draw(st.integers(0, 20))}", "at": draw(times)}
    return event | ({"value": 2.5} if action == "restate" else {})


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, Any]:
    """Metadata of a product."""
    return {"type": "item", "item_id": draw(items), "at": draw(times), "features": {"stock": draw(st.integers(0, 3))}}


REFERENCE = ("impression_id", "user_id", "item_id")


@st.composite
def journeys(draw: st.DrawFn) -> list[tuple[dict[str, Any], int]]:
    """One customer: shown, then signals, purchases and their adjustments, each with its hour. Now and then an id repeats."""
    number, hour = draw(st.integers(0, 99)), draw(st.one_of(st.integers(-3, 9), st.integers(-60, 3)))
    shown = draw(impressions()) | {"impression_id": f"i{number}"}
    names = {name: shown[name] for name in REFERENCE[1:] if name in shown}
    journey = [(shown, hour)]
    for n, after in enumerate(draw(st.lists(st.sampled_from([0, 1, 3, 5, 6, 20, 47, 48, 49]), min_size=1, max_size=4))):
        event = {name: value for name, value in draw(referring()).items() if name not in REFERENCE}
        named = draw(st.booleans()) or not names
        event |= {"impression_id": f"i{number}"} if named else names
        journey.append((event | {"event_id": f"{number}.{n}"}, hour + after))
        if event["type"] == "conversion" and draw(st.booleans()):
            adjustment = draw(adjustments()) | {"conversion_id": f"{number}.{n}", "event_id": f"{number}.{n}"}
            journey.append((adjustment, hour + after + draw(st.integers(0, 4))))
    return journey


def lines(events: list[dict[str, Any]]) -> list[bytes]:
    """Events as lines of a log."""
    return [json.dumps(event).encode() for event in events]


logs = st.lists(
    st.one_of(impressions(), impressions(), referring(), referring(), adjustments()), min_size=1, max_size=40
)
"""A log of one partition, in any order: most of it comes late."""


def _timeline(told: list[list[tuple[dict[str, Any], int]]]) -> list[dict[str, Any]]:
    found = [event | {"at": T0 + (60 + hour) * HOUR} for journey in told for event, hour in journey]
    return sorted(found, key=lambda event: int(event["at"]))


timelines = st.lists(journeys(), min_size=1, max_size=6).map(_timeline)
"""Customers side by side, in the order of time: nothing comes late."""
