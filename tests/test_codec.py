"""bytes -> event or dead letter: nothing else can happen, and the reason can be acted on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelstore.events import ADAPTER, Event, Impression, Item, identity
from labelstore.letters import Alike
from strategies import T0, adjustments, impressions, referring
from stream.codec import LIMIT, Codec, DeadLetter
from stream.foreign import Ignored
from stream.sources import Record

SHOWN = {"type": "impression", "impression_id": "i", "at": T0}
BOUGHT = {"type": "conversion", "event_id": "c", "kind": "purchase", "at": T0, "impression_id": "i"}
BACK = {"type": "adjustment", "event_id": "a", "at": T0, "conversion_id": "c"}


def decode(
    value: bytes | dict[str, Any], timestamp: int | None = None, strict: bool = False
) -> Event | Ignored | DeadLetter:
    line = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Codec(strict).decode(Record("events", 3, 7, timestamp, None, line))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", ["not JSON"]),
        (b"", ["no value (a tombstone)"]),
        (b"\xff\xfe\x00", ["not UTF-8"]),
        (
            SHOWN | {"features": {"n" * 900_000: 1}},
            ["impression.features: a name of a feature has 1 to 100 characters"],
        ),
        (SHOWN | {"features": {"": 1}}, ["impression.features: a name of a feature has 1 to 100 characters, got ''"]),
        (b"\xef\xbb\xbf{}", ["not JSON: begins with a byte order mark"]),
        (b"[1]", ["one JSON object"]),
        (b"{}", ["type:", "impression, signal, conversion, adjustment or item", "got nothing"]),
        (b'{"type":"click"}', ["type:", "got 'click'"]),
        ({"type": "impression", "at": T0}, ["impression.impression_id: missing"]),
        (SHOWN | {"at": "2024-01-01"}, ["impression.at", "milliseconds since 1970", "'2024-01-01'", "docs/mapping.md"]),
        (SHOWN | {"at": 1_700_000_000}, ["impression.at", "milliseconds", "1700000000"]),
        (SHOWN | {"at": T0 + 0.5}, ["impression.at"]),
        (SHOWN | {"impression_id": 7}, ["impression.impression_id: expected a string, got 7", "docs/mapping.md"]),
        (SHOWN | {"impression_id": "x" * 201}, ["impression_id", "200"]),
        (SHOWN | {"features": {"price": None}}, ["impression.features.price", "a finite number, a string", "None"]),
        (SHOWN | {"features": {"ok": True}}, ["impression.features.ok", "True"]),
        (SHOWN | {"features": {"text": "x" * 1001}}, ["impression.features.text"]),
        (SHOWN | {"features": {f"f{n}": 1 for n in range(257)}}, ["impression.features", "256"]),
        (SHOWN | {"served": {"score": 1.5}}, ["impression.served.score", "1.5"]),
        (b'{"type":"impression","impression_id":"i","at":%d,"features":{"p":NaN}}' % T0, ["features.p"]),
        ({k: v for k, v in BOUGHT.items() if k != "impression_id"}, ["impression_id, or user_id and item_id"]),
        (BOUGHT | {"value": "12 EUR"}, ["conversion.value", "'12 EUR'"]),
        (BACK | {"action": "restate"}, ["restatement gives the corrected value"]),
        (BACK | {"action": "undo"}, ["adjustment.action", "'undo'"]),
        (SHOWN | {"impression_id": "a\0b"}, ["NUL"]),
        (b'{"type":1' + b"0" * 5000 + b"}", ["not JSON: number out of range"]),
        (b'{"type":"item","item_id":"x","at":1' + b"0" * 5000 + b"}", ["not JSON: number out of range"]),
        (b'{"type":"item","item_id":"\\ud800","at":%d}' % T0, ["not JSON"]),
    ],
)
def test_the_reason_says_what_is_wrong(line: bytes | dict[str, Any], says: list[str]) -> None:
    """A dead letter names the place, what was expected and what is there."""
    found = decode(line)
    assert isinstance(found, DeadLetter)
    assert len(found.reason) < 300
    for words in says:
        assert words in found.reason
    assert (found.record.topic, found.record.partition, found.record.offset) == ("events", 3, 7)
    assert len(found.reason) < 400


def test_a_time_past_the_records_own_is_refused() -> None:
    """`at` may be up to a day past the timestamp of its record, not more."""
    assert isinstance(decode(SHOWN, timestamp=T0 - 86_400_000), Impression)
    refused = decode(SHOWN, timestamp=T0 - 86_400_001)
    assert isinstance(refused, DeadLetter)
    assert "more than a day past" in refused.reason
    later = decode(SHOWN, timestamp=T0 - 86_400_002)
    assert isinstance(later, DeadLetter)
    alike = Alike()
    assert alike(refused.reason) == alike(later.reason)


def test_a_record_over_the_limit_is_refused() -> None:
    """A record of more than a million bytes is a dead letter, whatever is in it."""
    found = decode(b" " * (LIMIT + 1))
    assert isinstance(found, DeadLetter)
    assert "1,000,000" in found.reason


def test_unknown_fields_are_counted_or_refused() -> None:
    """A field nobody knows is ignored and counted; strict refuses it by name."""
    codec = Codec()
    event = codec.decode(Record("events", 0, 0, None, None, json.dumps(SHOWN | {"colour": 1, "shop": 2}).encode()))
    assert isinstance(event, Impression)
    assert codec.unknown == {"impression.colour": 1, "impression.shop": 1}
    refused = decode(SHOWN | {"colour": 1}, strict=True)
    assert isinstance(refused, DeadLetter)
    assert "impression.colour" in refused.reason


def test_events_are_frozen_and_have_identities() -> None:
    """An event cannot be changed; an item's identity includes its time."""
    event = decode(SHOWN)
    assert isinstance(event, Impression)
    with pytest.raises(ValueError, match="frozen"):
        event.at = 1
    assert identity(event) == "i"
    assert identity(Item(item_id="a", at=T0)) == f"a@{T0}"


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_a_dead_letter(line: bytes) -> None:
    """No bytes make the codec fail."""
    found = decode(line)
    assert isinstance(found, DeadLetter)
    assert found.reason


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@settings(max_examples=500)
@given(st.one_of(impressions(), referring(), adjustments()), st.data())
def test_mutated_events_are_read_or_refused(event: dict[str, Any], data: st.DataObject) -> None:
    """Any field replaced, removed or nested wrongly gives an event or a reason; the untouched event is read."""
    assert not isinstance(decode(event), DeadLetter)
    name = data.draw(st.sampled_from(sorted(event)))
    if data.draw(st.booleans()):
        event[name] = data.draw(WRONG)
    else:
        del event[name]
    line = json.dumps(event).encode()
    cut = data.draw(st.integers(0, len(line)))
    for mutated in (line, line[:cut]):
        found = decode(mutated)
        assert found.reason if isinstance(found, DeadLetter) else ADAPTER.validate_json(mutated) == found


def test_a_backslash_before_u0000_is_a_backslash() -> None:
    """Text that only spells an escape is no NUL."""
    assert isinstance(decode(SHOWN | {"impression_id": "a\\u0000"}), Impression)


def test_unknown_fields_inside_served_are_counted_and_refused() -> None:
    """What nobody knows is noticed at any depth."""
    codec = Codec()
    line = json.dumps(SHOWN | {"served": {"score": 0.5, "model": "x"}, "shop": 1}).encode()
    assert isinstance(codec.decode(Record("events", 0, 0, None, None, line)), Impression)
    assert codec.unknown == {"impression.served.model": 1, "impression.shop": 1}
    refused = decode(line, strict=True)
    assert isinstance(refused, DeadLetter)
    assert "unknown field" in refused.reason


def test_names_of_unknown_fields_do_not_fill_the_memory() -> None:
    """Past a bound, further names are counted together; none is lost."""
    codec = Codec()
    for n in range(1500):
        codec.decode(Record("events", 0, n, None, None, json.dumps(SHOWN | {f"f{n}": 1}).encode()))
    assert len(codec.unknown) == 1001
    assert sum(codec.unknown.values()) == 1500
