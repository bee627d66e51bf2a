"""Which records are a user's: those with the user's id, and those that name one of the user's impressions or conversions.

Pure functions of the records' bytes; the same for rows that wait in a store and for lines of a log.
"""

import json
import re
from collections.abc import Callable, Collection
from typing import Any

from pydantic_core import from_json

NAMED = re.compile(rb'"(impression_id|conversion_id)"\s*:\s*"((?:[^"\\]|\\.)*)"')


class Traces:
    """A user, and the ids by which other records refer to the user: they grow as records are looked at.

    ``users``: what somebody's own JSON holds of users, by a mapping.

    >>> of = Traces("u1")
    >>> of.owns(b'{"type":"impression","impression_id":"i1","user_id":"u1"}')
    True
    >>> of.owns(b'{"type":"signal","event_id":"s","impression_id":"i1"}'), of.owns(b'{"type":"item","item_id":"u1"}')
    (True, False)
    """

    def __init__(self, user: str, users: Callable[[Any], Collection[str]] = lambda fields: ()) -> None:
        self.user, self._users = user, users
        self.impressions: set[str] = set()
        self.conversions: set[str] = set()
        spelled = {user.encode("utf-8", "surrogatepass"), json.dumps(user)[1:-1].encode()}
        either = b"|".join(re.escape(one) for one in sorted(spelled))
        self._word = re.compile(rb"(?<![\w\x80-\xff-])(?:%s)(?![\w\x80-\xff-])" % either)

    def __len__(self) -> int:
        """How many ids are known. What was looked at before the last of them has to be looked at again."""
        return len(self.impressions) + len(self.conversions)

    def owns(self, value: bytes) -> bool:
        """Whether a record is the user's, by its fields; the id of an impression or conversion is remembered."""
        return self._owns(_read(value))

    def mentions(self, value: bytes, key: bytes | None = None) -> bool:
        """Whether a record that is no event is the user's.

        Its key is the user's id, or its fields say so; or it is JSON that holds the id as a text anywhere, as a number in
        `user_id`, or where a mapping looks for users; or it is no JSON, and the id stands in it as a word of its own, or it
        names what is the user's.
        """
        if key is not None and key == self.user.encode("utf-8", "surrogatepass"):
            return True
        fields = _read(value)
        if fields is None:
            return bool(self._word.search(value)) or any(self._named(*found) for found in NAMED.findall(value))
        number = fields.get("user_id") if isinstance(fields, dict) else None
        mine = self._owns(fields) or (type(number) is int and str(number) == self.user) or self.user in _texts(fields)
        return mine or self.user in self._users(fields)

    def _owns(self, fields: Any) -> bool:
        if not isinstance(fields, dict):
            return False
        of = {name: value for name, value in fields.items() if isinstance(value, str)}
        mine = (
            of.get("user_id") == self.user
            or of.get("impression_id") in self.impressions
            or of.get("conversion_id") in self.conversions
            or (of.get("type") == "conversion" and of.get("event_id") in self.conversions)
        )
        if mine and of.get("type") == "impression" and "impression_id" in of:
            self.impressions.add(of["impression_id"])
        if mine and of.get("type") == "conversion" and "event_id" in of:
            self.conversions.add(of["event_id"])
        return mine

    def _named(self, field: bytes, name: bytes) -> bool:
        text = _read(b'"%s"' % name)
        return text in (self.impressions if field == b"impression_id" else self.conversions)


def _read(value: bytes) -> Any:
    try:
        return from_json(value)
    except ValueError:
        return None


def _texts(found: Any) -> set[str]:
    """All texts in a JSON value, names of fields among them."""
    texts: set[str] = set()
    open_ = [found]
    while open_:
        part = open_.pop()
        if isinstance(part, str):
            texts.add(part)
        elif isinstance(part, dict):
            open_ += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            open_ += part
    return texts
