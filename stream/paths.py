"""Paths into JSON: what is there, and where nothing is, why not."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

STEPS = 16  # of a path
STEP = re.compile(r'(?:^|\.)(?P<name>[^.\[\]{}"]+)|\[(?P<index>\d{1,4})\]|\["(?P<quoted>[^"]+)"\]')
PATH = 'write names with dots, places in brackets and odd names in quotes: payload.items[0].sku, ctx["user.id"]'
Step = str | int


@lru_cache(maxsize=4096)
def steps(path: str) -> tuple[Step, ...]:
    """The steps of a path into JSON.

    >>> steps('payload.items[0]["odd.name"]')
    ('payload', 'items', 0, 'odd.name')
    """
    found: list[Step] = []
    place = 0
    while place < len(path):
        step = STEP.match(path, place)
        if not step:
            raise ValueError(f"{path!r} is not a path: {PATH}")
        found.append(int(step["index"]) if step["index"] else step["name"] or step["quoted"])
        place = step.end()
    if not 0 < len(found) <= STEPS:
        raise ValueError(f"{path!r} has {len(found)} steps, expected 1 to {STEPS}: {PATH}")
    return tuple(found)


def walk(told: Any, path: tuple[Step, ...]) -> Any:
    """What is at a path; None where it does not lead anywhere."""
    for step in path:
        if isinstance(step, int):
            told = told[step] if isinstance(told, list) and step < len(told) else None
        else:
            told = told.get(step) if isinstance(told, dict) else None
        if told is None:
            return None
    return told


def absent(paths: Iterable[str], spelled: str, told: Any) -> str:
    """Why there is nothing at one of these paths: what is where it ends.

    >>> absent(["user.id"], "user.id", {"user": {"name": "Ada"}})
    "user.id: missing (there is 'name')"
    """
    for path in paths:
        walked = steps(path)
        ends = next((n for n in range(len(walked)) if walk(told, walked[: n + 1]) in (None, "")), None)
        if ends is None:
            continue
        there = walk(told, walked[:ends])
        if not isinstance(there, dict):
            return f"{path}: missing (got {shown(there)})"
        if walked[ends] in there:
            return f"{path}: missing (it is {shown(there[walked[ends]])})"
        return f"{path}: missing (there is {', '.join(shown(name) for name in list(there)[:6]) or 'an empty object'})"
    return f"{spelled}: missing"


def shown(value: Any) -> str:
    """A value, short; numbers beyond all bounds have no text."""
    if isinstance(value, int) and not -(2**200) < value < 2**200:
        return "a number beyond all bounds"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return repr(value)[:60]
