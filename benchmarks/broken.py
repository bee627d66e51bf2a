"""The ways in which a line of a log can be wrong, or look wrong and be right. Each is seeded, and says what must come of it.

`FIELDS` change an event, `ENVELOPES` wrap it, `TEXTS` change a line, whatever is in it. The fate of the line of a good event
is True where it must be accepted, False where it must be refused, None where that depends on what was hit.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Event = dict[str, Any]
DAY = 86_400_000
EARLIEST, LATEST = 946_684_800_000, 4_102_444_800_000  # 2000 and 2100, ms
LIMIT = 1_000_000  # bytes of one record
NEEDED = {
    "impression": ("type", "impression_id", "at"),
    "signal": ("type", "event_id", "kind", "at"),
    "conversion": ("type", "event_id", "kind", "at"),
    "adjustment": ("type", "event_id", "at", "conversion_id", "action"),
    "item": ("type", "item_id", "at"),
}  # fmt: skip
WORDS = ("é", "日本", "\u202eabc", "😀", "a\u0301", "\uffff", "\u2028", "\x7f", "'; DROP TABLE looks; --", "a" * 200)


class Kind(NamedTuple):
    """A way of being wrong. ``change`` takes a generator and an event or a line; ``fate``: accepted, refused or either."""

    change: Callable[[Random, Any], Any]
    fate: bool | None


def seeded(seed: int) -> Random:
    """What decides what is hit."""
    return Random(seed)  # noqa: S311  # mistakes, not secrets


def text(event: Event) -> bytes:
    """An event as a line."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def needed(random: Random, event: Event) -> str:
    """A field without which the event is none."""
    return random.choice(NEEDED[event["type"]])


def name(random: Random, event: Event) -> str:
    """The field that says which event it is."""
    return next(field for field in ("impression_id", "event_id", "item_id") if field in NEEDED[event["type"]])


def put(value: Any, field: Callable[[Random, Event], str] | str) -> Callable[[Random, Event], Event]:
    """A field gets another value."""
    return lambda random, event: event | {field if isinstance(field, str) else field(random, event): value}


def one_of(values: tuple[Any, ...], field: Callable[[Random, Event], str] | str) -> Callable[[Random, Event], Event]:
    """A field gets one of these values."""
    return lambda random, event: put(random.choice(values), field)(random, event)


def feature(value: Any) -> Callable[[Random, Event], Event]:
    """An impression or product with this feature; other events become products."""

    def change(random: Random, event: Event) -> Event:
        if event["type"] not in ("impression", "item"):
            event = {"type": "item", "item_id": event["event_id"], "at": event["at"]}
        return event | {"features": event.get("features", {}) | {"odd": value}}

    return change


def without(random: Random, event: Event) -> Event:
    gone = needed(random, event)
    return {field: value for field, value in event.items() if field != gone}


def renamed(random: Random, event: Event) -> Event:
    old = needed(random, event)
    new = random.choice((old.upper(), old + " ", "x_" + old, old[:-1]))
    return {new if field == old else field: value for field, value in event.items()}


def nested(depth: int) -> Callable[[Random, bytes], bytes]:
    """A field that nobody knows, of so many lists within lists."""
    return lambda random, line: line[:-1] + b',"deep":' + b"[" * depth + b"]" * depth + b"}"


def raw(value: bytes) -> Callable[[Random, bytes], bytes]:
    """A feature whose value is written like this."""
    return lambda random, line: b'{"type":"item","item_id":"odd","at":1704067200000,"features":{"odd":' + value + b"}}"


def some(*values: bytes) -> Callable[[Random, bytes], bytes]:
    """A feature whose value is written like one of these."""
    return lambda random, line: raw(random.choice(values))(random, line)


def more(size: int) -> Callable[[Random, bytes], bytes]:
    """A field that nobody knows, of so many characters."""
    return lambda random, line: line[:-1] + b',"more":"' + b"x" * size + b'"}'


def far(random: Random, event: Event) -> bytes:
    """An envelope whose event says it happened decades later."""
    return enveloped(value=event | {"at": LATEST - 1 - random.randrange(DAY)})(random, event)


def flipped(random: Random, line: bytes) -> bytes:
    """Up to three bytes are others, were put in, or are gone."""
    found = bytearray(line)
    for _ in range(random.randint(1, 3)):
        place = random.randint(0, len(found))
        found[place : place + random.randint(0, 1)] = random.choice((b"", bytes([random.randrange(256)])))
    return bytes(found)


def enveloped(**parts: Any) -> Callable[[Random, Event], bytes]:
    """An event in an envelope; a part may be a function of the event."""

    def wrap(random: Random, event: Event) -> bytes:
        whole = {"timestamp": event["at"], "key": "k", "value": event} | parts
        return text({part: value(event) if callable(value) else value for part, value in whole.items()})

    return wrap


FIELDS: dict[str, Kind] = {
    "field gone": Kind(without, False),
    "field renamed": Kind(renamed, False),
    "field nobody knows": Kind(put({"a": [1, None]}, "colour"), True),
    "null": Kind(put(None, needed), False),
    "true for a value": Kind(put(True, needed), False),
    "number for a string": Kind(put(7, name), False),
    "list for a string": Kind(put(["a"], name), False),
    "object for a string": Kind(put({"a": 1}, name), False),
    "empty id": Kind(put("", name), False),
    "id of 201 characters": Kind(put("é" * 201, name), False),
    "id of a million characters": Kind(put("x" * 900_000, name), False),
    "words of the world": Kind(one_of(WORDS, name), True),
    "NUL in a string": Kind(put("a\0b", name), False),
    "string for at": Kind(lambda random, event: event | {"at": str(event["at"])}, False),
    "date for at": Kind(put("2024-01-01T00:00:00Z", "at"), False),
    "float for at": Kind(lambda random, event: event | {"at": float(event["at"])}, False),
    "half a millisecond": Kind(lambda random, event: event | {"at": event["at"] + 0.5}, False),
    "seconds for ms": Kind(lambda random, event: event | {"at": event["at"] // 1000}, False),
    "microseconds for ms": Kind(lambda random, event: event | {"at": event["at"] * 1000}, False),
    "at before 2000": Kind(one_of((EARLIEST - 1, 0, -1, -(10**20)), "at"), False),
    "at after 2099": Kind(one_of((LATEST, 2**63, 10**40, 10**400), "at"), False),
    "type nobody knows": Kind(one_of(("click", "", "Impression", "impression ", 1, None, [], {}), "type"), False),
    "type of another": Kind(lambda random, event: event | {"type": random.choice(tuple(NEEDED))}, None),
    "feature null": Kind(feature(None), False),
    "feature true": Kind(feature(True), False),
    "feature object": Kind(feature({"a": 1}), False),
    "feature list of numbers": Kind(feature([1, 2]), False),
    "feature of mixed list": Kind(feature(["a", None]), False),
    "feature list of strings": Kind(feature(["a", "", "日本"]), True),
    "feature of 101 strings": Kind(feature(["a"] * 101), False),
    "feature of 1001 characters": Kind(feature("x" * 1001), False),
    "feature huge": Kind(feature(1e308), True),
    "feature negative": Kind(feature(-(10**18)), True),
    "feature tiny": Kind(feature(5e-324), True),
    "features list": Kind(lambda random, event: feature(0)(random, event) | {"features": ["a"]}, False),
    "257 features": Kind(
        lambda random, event: feature(0)(random, event) | {"features": {f"f{n}": n for n in range(257)}}, False
    ),
    "feature without a name": Kind(lambda random, event: feature(0)(random, event) | {"features": {"": 1}}, False),
    "value of another kind": Kind(one_of(("12 EUR", [], True, {}), "value"), None),
}

TEXTS: dict[str, Kind] = {
    "nothing": Kind(lambda random, line: line, True),
    "blanks around": Kind(lambda random, line: b" \t" + line + b" \r", True),
    "at twice": Kind(lambda random, line: line[:-1] + b',"at":7}', False),
    "at twice, the last is right": Kind(lambda random, line: b'{"at":7,' + line[1:], True),
    "NaN": Kind(raw(b"NaN"), False),
    "Infinity": Kind(raw(b"-Infinity"), False),
    "too large for a float": Kind(raw(b"1e999"), False),
    "400 digits": Kind(raw(b"1" + b"0" * 400), False),
    "5000 digits": Kind(raw(b"1" * 5000), False),
    "number of other languages": Kind(some(b"+1", b"01", b"0x1", b"1_000", b"1.", b".5"), False),
    "words of other languages": Kind(some(b"None", b"True", b"undefined", b"'a'"), False),
    "half a character": Kind(raw(b'"\\ud800"'), False),
    "half a character, the second": Kind(raw(b'"\\udc00"'), False),
    "a whole one": Kind(raw(b'"\\ud83d\\ude00"'), True),
    "half a character as bytes": Kind(raw(b'"\xed\xa0\x80"'), False),
    "not UTF-8": Kind(raw(b'"\xff\xc0\x80"'), False),
    "NUL escaped": Kind(raw(b'"a\\u0000"'), False),
    "a backslash, not NUL": Kind(raw(b'"a\\\\u0000"'), True),
    "NUL as a byte": Kind(lambda random, line: line.replace(b":", b":\0", 1), False),
    "a control character": Kind(raw(b'"a\x01"'), False),
    "byte order mark": Kind(lambda random, line: b"\xef\xbb\xbf" + line, False),
    "UTF-16": Kind(lambda random, line: line.decode(errors="replace").encode("utf-16-le").replace(b"\n", b""), False),
    "cut off": Kind(lambda random, line: line[: random.randrange(1, max(2, len(line)))], False),
    "two at once": Kind(lambda random, line: line + random.choice((b"", b" ", b",")) + line, False),
    "in a list": Kind(lambda random, line: b"[" + line + b"]", False),
    "a string of it": Kind(lambda random, line: json.dumps(line.decode(errors="replace")).encode(), False),
    "a comma at the end": Kind(lambda random, line: line[:-1] + b",}", False),
    "a remark": Kind(lambda random, line: line + b" // late", False),
    "no object": Kind(lambda random, line: random.choice((b"null", b"1", b'"a"', b"[]", b"{}", b"   ", b"\t")), False),
    "deep": Kind(nested(100), True),
    "too deep": Kind(lambda random, line: nested(random.randint(300, 3000))(random, line), False),
    "empty": Kind(lambda random, line: b"", None),
    "noise": Kind(lambda random, line: random.randbytes(random.randrange(1, 200)), None),
    "bytes flipped": Kind(flipped, None),
    "large": Kind(more(LIMIT - 2000), True),
    "too large": Kind(more(LIMIT), False),
    "many times too large": Kind(more(5 * LIMIT), False),
}  # fmt: skip

ENVELOPES: dict[str, Kind] = {
    "envelope": Kind(enveloped(), True),
    "envelope, value first": Kind(lambda random, event: text({"value": event, "timestamp": event["at"]}), True),
    "envelope of text": Kind(enveloped(value=lambda event: text(event).decode()), True),
    "envelope with more": Kind(enveloped(headers={"a": 1}), False),
    "envelope without timestamp": Kind(lambda random, event: text({"value": event}), True),
    "envelope without value": Kind(lambda random, event: text({"timestamp": event["at"]}), False),
    "envelope with a type": Kind(enveloped(type="signal"), False),
    "envelope in an envelope": Kind(enveloped(value=lambda event: {"value": event}), False),
    "envelope of nothing": Kind(enveloped(value=None), False),
    "envelope of a number": Kind(enveloped(value=1e300), False),
    "envelope of a list": Kind(enveloped(value=lambda event: [event]), False),
    "envelope of bad text": Kind(enveloped(value=lambda event: text(event).decode()[:-1]), False),
    "envelope of empty text": Kind(enveloped(value=""), False),
    "key is a number": Kind(enveloped(key=1), True),
    "key is null": Kind(enveloped(key=None), True),
    "key is an object": Kind(enveloped(key={"a": 1}), True),
    "key is long": Kind(enveloped(key="k" * 20_000), True),
    "timestamp null": Kind(enveloped(timestamp=None), True),
    "timestamp is text": Kind(enveloped(timestamp=lambda event: str(event["at"])), True),
    "timestamp is a float": Kind(enveloped(timestamp=lambda event: event["at"] + 0.5), True),
    "timestamp true": Kind(enveloped(timestamp=True), True),
    "timestamp negative": Kind(enveloped(timestamp=-5), True),
    "timestamp huge": Kind(enveloped(timestamp=10**30), True),
    "timestamp NaN": Kind(enveloped(timestamp=float("nan")), True),
    "at a day past the timestamp": Kind(enveloped(timestamp=lambda event: event["at"] - DAY), True),
    "at more than a day past it": Kind(enveloped(timestamp=lambda event: event["at"] - DAY - 1), False),
    "at years past it": Kind(far, False),
    "at long before it": Kind(enveloped(timestamp=lambda event: event["at"] + 3000 * DAY), True),
    "envelope cut off": Kind(lambda random, event: enveloped()(random, event)[: -random.randrange(1, 30)], False),
    "envelope flipped": Kind(lambda random, event: flipped(random, enveloped()(random, event)), None),
}  # fmt: skip

KINDS: dict[str, Kind] = FIELDS | TEXTS | ENVELOPES
HUGE = {"large", "too large", "many times too large", "id of a million characters"}  # a megabyte each


def broken(random: Random, event: Event, kind: str) -> bytes:
    """The line of an event, wrong in this way."""
    if kind in FIELDS:
        return text(FIELDS[kind].change(random, event))
    return tampered(random, text(event), kind) if kind in TEXTS else bytes(ENVELOPES[kind].change(random, event))


def tampered(random: Random, line: bytes, kind: str) -> bytes:
    """A line, wrong in this way of `TEXTS`."""
    return bytes(TEXTS[kind].change(random, line))
