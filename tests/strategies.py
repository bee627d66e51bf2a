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


def lines(events: list[dict[str, Any]]) -> list[bytes]:
    """Events as lines of a log."""
    return [json.dumps(event).encode() for event in events]


logs = st.lists(
    st.one_of(impressions(), impressions(), referring(), referring(), adjustments()), min_size=1, max_size=40
)
"""A log of one partition, in any order: most of it comes late."""
