"""Lines of a log on disk: an event as it is, or in an envelope with timestamp and key."""

import re
from base64 import b64decode, b64encode
from codecs import BOM_UTF8
from typing import Any

from pydantic_core import from_json, to_json

ENVELOPE = re.compile(rb'\s*\{\s*"(?:timestamp|key|value|key_base64|value_base64)"\s*:')
NAMES = {"timestamp", "key", "value", "key_base64", "value_base64"}  # a line with any other is an event
LONGER = 1.5  # than the value an envelope with it as text may be


def parse(line: bytes) -> tuple[int | None, bytes | None, bytes]:
    """(timestamp, key, value) of a line: those of its envelope, or the line itself as the value.

    >>> parse(b'{"timestamp": 5, "key": "u", "value": {"type": "item"}}')
    (5, b'u', b'{"type":"item"}')
    """
    return (ENVELOPE.match(line) and _unwrap(line)) or (None, None, line)


def spell(timestamp: int | None, key: bytes | None, value: bytes) -> bytes:
    """The line of an event: the inverse of `parse`.

    >>> spell(5, b"u", b'{"type":"item"}'), spell(None, None, b'{"type":"item"}')
    (b'{"timestamp":5,"key":"u","value":{"type":"item"}}', b'{"type":"item"}')
    """
    value = value.replace(b"\r", b" ").replace(
        b"\n", b" "
    )  # in JSON these are space between words, and a line has one end
    named = {"timestamp": timestamp, "key": key and key.decode("utf-8", "replace")}
    head = b"".join(b'"%s":%s,' % (name.encode(), to_json(part)) for name, part in named.items() if part is not None)
    return b'{%s"value":%s}' % (head, value) if head else value


def exact(timestamp: int | None, key: bytes | None, value: bytes) -> bytes:
    r"""A line that `parse` reads as just these bytes: the value as JSON where that is so, else as text, else in base64.

    >>> exact(5, None, b'{"n":1}'), exact(5, None, b'{"n": 1}'), exact(5, None, bytes([255]))
    (b'{"timestamp":5,"value":{"n":1}}', b'{"timestamp":5,"value":"{\\"n\\": 1}"}', b'{"timestamp":5,"value_base64":"/w=="}')
    """
    head: dict[str, Any] = {} if timestamp is None else {"timestamp": timestamp}
    if key is not None:
        head |= _bytes("key", key)
    for told in (_json(value), _bytes("value", value)):
        line = to_json(head | told)
        if told and len(line) < LONGER * len(value) + 1000 and parse(line) == (timestamp, key, value):
            return line
    return to_json(head | {"value_base64": b64encode(value).decode()})


def _json(value: bytes) -> dict[str, Any]:
    try:
        return {"value": from_json(value, allow_inf_nan=False)}
    except ValueError:
        return {}


def _bytes(name: str, value: bytes) -> dict[str, Any]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}


def _unwrap(line: bytes) -> tuple[int | None, bytes | None, bytes] | None:
    try:
        envelope = from_json(line)
    except ValueError:
        return None
    if not envelope.keys() <= NAMES or not envelope.keys() & {"value", "value_base64"}:
        return None
    timestamp = envelope.get("timestamp")
    value = _packed(envelope.get("value_base64"))
    if value is None and "value" in envelope:
        value = envelope["value"].encode() if isinstance(envelope["value"], str) else to_json(envelope["value"])
    if value is None:
        return None
    key = envelope.get("key")
    return (
        timestamp if type(timestamp) is int and 0 <= timestamp < 2**62 else None,
        key.encode() if isinstance(key, str) else _packed(envelope.get("key_base64")),
        value,
    )


def _packed(text: Any) -> bytes | None:
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def not_json(value: bytes, why: str) -> str:
    """What is wrong with bytes that are no JSON.

    >>> not_json(b"\\xef\\xbb\\xbf{}", ""), not_json(b"gr\\xfc\\xdfe", "")
    ('not JSON: begins with a byte order mark; save the file as UTF-8 without one', 'not UTF-8, as JSON is')
    """
    if value.startswith(BOM_UTF8):
        return "not JSON: begins with a byte order mark; save the file as UTF-8 without one"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "not UTF-8, as JSON is"
    return f"not JSON: {why}"
