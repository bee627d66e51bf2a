"""Settings: durations as people write them, and errors that name thing, value and remedy."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from strategies import T0
from stream.check import check
from stream.settings import UNITS, Settings, duration, moment, spell
from stream.sources import ListSource


@given(st.integers(0, 10**12))
def test_a_duration_is_spelled_as_it_is_read(ms: int) -> None:
    """Reading what was spelled gives the same number of milliseconds."""
    assert duration(spell(ms)) == ms


@pytest.mark.parametrize("unit", UNITS)
def test_units(unit: str) -> None:
    """Every unit is what it says."""
    assert duration(f"2.5 {unit}") == 2.5 * UNITS[unit] or unit == "ms"


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"window": "7 days"}, ["'7 days' is not a duration", "7d"]),
        ({"methods": ("pq", "pq")}, ["named twice"]),
        ({"methods": ("best",)}, ["'best' is unknown", "choose from"]),
        ({"window": "1d", "wait": "1d"}, ["wait 1d is not shorter than window 1d"]),
        ({"base_rate": 1.0}, ["base_rate"]),
        ({"windows": "1d"}, ["windows", "not permitted"]),
        ({"frozen": True}, ["frozen without pretrain"]),
        ({"seed": -1}, ["seed"]),
    ],
)
def test_errors_say_what_to_do(given_: dict[str, Any], says: list[str]) -> None:
    """A setting that cannot be is refused with its name, its value and what would do."""
    with pytest.raises(ValidationError) as error:
        Settings(**given_)
    for words in says:
        assert words in str(error.value)


def test_a_log_is_checked_without_a_store() -> None:
    """Every problem of a small log is found, and the counts add up to the records."""
    at = 1_700_000_000_000
    shown = b'{"type":"impression","impression_id":"i","at":%d,"user_id":"u","item_id":"a"}' % at
    lines = [
        shown,
        shown,
        b'{"type":"signal","event_id":"s","kind":"cart","at":%d,"user_id":"u","item_id":"a","x":1}' % (at - 5000),
        b'{"type":"conversion","event_id":"c","kind":"purchase","at":%d,"impression_id":"gone"}' % (at + 1),
        b'{"type":"adjustment","event_id":"r","at":%d,"conversion_id":"none","action":"retract"}' % (at + 2),
        b"oops",
    ]
    found = check(ListSource({("events", 0): lines}))
    assert found.counts == {
        "impressions": 1, "duplicates": 1, "signals": 1, "conversions": 1, "adjustments": 1, "dead_letters": 1, "late": 1,
    }  # fmt: skip
    assert sum(found.counts.values()) - found.counts["late"] == len(lines)
    assert found.lateness == 5000
    assert found.span == (at - 5000, at + 2)
    assert found.kinds == {"signal cart": 1, "conversion purchase": 1}
    assert found.lost == {"conversion purchase": 1, "adjustment": 1}
    assert found.unknown == {"signal.x": 1}
    assert list(found.reasons.values()) == [[("events", 0, 5)]]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2023-11-14", T0),
        ("2023-11-14T00:00", T0),
        ("2023-11-14 00:00:00Z", T0),
        ("2023-11-14T02:00:00+02:00", T0),
        (f" {T0} ", T0),
        ("2023-11-14T00:00:00.0001", T0 + 1),
        ("2023-11-14T00:00:00.001", T0 + 1),
    ],
)
def test_moments(text: str, ms: int) -> None:
    """ISO 8601 is UTC where it has no offset, a date its midnight, a number ms; a part of a ms is the next ms, as what
    is known before one is known before the other."""
    assert moment(text) == ms


@pytest.mark.parametrize(
    "text", ["", "now", "2023-13-01", "2023-11", "-1", "1e12", "1699920000", "1999-12-31", "٣" * 13]
)
def test_no_moments(text: str) -> None:
    """What is no time, or none that an event can have, is refused."""
    with pytest.raises(ValueError, match="is not"):
        moment(text)
