"""OTTO sessions (RecSys data set of a shop) into a log: one event of a session, one event, in order of time.

    {"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}, ...]}     ts in ms; one line each

    clicks   impression, id ``session.product.place``, where it is the session's first click on the product;
             signal `click` where the session has clicked on it before
    carts    signal `cart`
    orders   conversion `purchase`; those of one moment are one basket, id ``session.ts``

What was shown is not recorded: an impression is the first thing known of a product in a session, and it is
optimistic. A session is all that is known of a customer (up to four weeks of one), so it is the ``user_id`` and the
``session_id``. A cart or an order without a click before it has no impression.

Features of an impression: the product, hour and weekday in Germany in summer (UTC+2, when it was recorded), and what
the session did before: ``clicks``, ``products`` clicked, ``carts``, ``buys``, ``minutes`` since its last event.
``context_item_id`` is the product of the click before. A session's events are sorted; sessions must be by start, as
published, and an event waits in memory (about 0.4 kB) until they have started past it: the longest take four weeks.

Source: https://github.com/otto-de/recsys-dataset (CC BY 4.0)
"""

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from labelstore.events import EARLIEST, LATEST
from stream.convert.log import Advance, Log, Summary, rows, writing
from stream.convert.times import clock
from stream.sources import SourceError

GERMANY = 2 * 3600  # seconds ahead of UTC, in August
MINUTE = 60_000  # ms
KINDS = {"clicks": "click", "carts": "cart", "orders": "purchase"}
ABOUT = (
    "the OTTO data set (https://github.com/otto-de/recsys-dataset): "
    "give its .jsonl file, a session on each line, as text or .gz"
)


class Step(NamedTuple):
    """An event of a session; ``place`` is its number in it, from 0."""

    at: int
    place: int
    aid: str
    type: str


class Pending(NamedTuple):
    """An event that waits to be written; of one line no two have one place, so that no two events are compared."""

    at: int
    session: int
    place: int
    line: int
    event: dict[str, object]


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (.jsonl or .gz) to the new folder ``dst``.

    ``rows`` counts the events of sessions, and lines that hold none: they are the log's events + refused.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
        SourceError: its first line is no session.
    """
    summary = Summary()
    waiting: list[Pending] = []
    with writing(dst, summary) as log:
        for line, text in enumerate(rows(src, summary, advance)):
            session = _session(text)
            if line == 0 and session is None:
                raise SourceError(f"{src}: its first line is no session, so this is no file of {ABOUT}")
            if not session or not session[1]:
                summary.refuse("a line without a session and its events", text)
                continue
            summary.rows += len(session[1]) - 1
            for event in (events := list(_events(session[0], _steps(*session, summary), line))):
                heappush(waiting, event)
            if events:
                summary.passes(events[0].at)
                _release(log, waiting, summary.latest)
        _release(log, waiting, None)
    if summary.backwards:
        summary.notes.append(f"{summary.backwards:,} sessions start before one before them; sort the lines by first ts")
    return summary


def _session(text: str) -> tuple[str, list[Any]] | None:
    """Id and events of a line, as they are; None if it is no session."""
    try:
        read = from_json(text)
    except ValueError:
        return None
    if not isinstance(read, dict) or not isinstance(read.get("events"), list):
        return None
    return (str(read["session"]), read["events"]) if _whole(read.get("session")) else None


def _steps(session: str, events: list[Any], summary: Summary) -> list[Step]:
    """The session's events in order of time; what is none is refused."""
    steps = []
    for place, event in enumerate(events):
        if wrong := _wrong(event):
            summary.refuse(wrong, f"session {session}: {event}")
        else:
            steps.append(Step(event["ts"], place, str(event["aid"]), event["type"]))
    return sorted(steps)


def _wrong(event: Any) -> str | None:
    """What is wrong with an event of a session."""
    if not isinstance(event, dict) or not {"aid", "ts", "type"} <= event.keys():
        return "an event without aid, ts and type"
    if not isinstance(event["type"], str) or event["type"] not in KINDS:
        return "the type is none of clicks, carts, orders"
    if not _whole(event["aid"]):
        return "aid is not a whole number"
    if not _whole(event["ts"]) or not EARLIEST <= event["ts"] < LATEST:
        return "ts is not a time in ms in the years 2000 to 2099"
    return None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _events(session: str, steps: list[Step], line: int) -> Iterator[Pending]:
    """Events of the log, from the steps of a session in order of time."""
    clicked: set[str] = set()
    counts = Counter[str]()
    before: Step | None = None
    last: str | None = None  # the product clicked before
    for step in steps:
        both: dict[str, object] = {"at": step.at, "user_id": session, "item_id": step.aid}
        identity = f"{session}.{step.aid}.{step.place}"
        if step.type == "clicks" and step.aid not in clicked:
            shown = {"type": "impression", "impression_id": identity} | both
            shown |= {"context_item_id": last} if last else {}
            event = shown | {"features": _features(step, counts, len(clicked), before)}
        else:
            kind = KINDS[step.type]
            told = {"type": "conversion" if kind == "purchase" else "signal", "event_id": identity, "kind": kind}
            event = told | both | {"session_id": session}
            event |= {"basket_id": f"{session}.{step.at}"} if kind == "purchase" else {}
        yield Pending(step.at, int(session), step.place, line, event)
        if step.type == "clicks":
            clicked.add(step.aid)
            last = step.aid
        counts[step.type] += 1
        before = step


def _features(step: Step, counts: Counter[str], products: int, before: Step | None) -> dict[str, str | float]:
    since = {"minutes": round((step.at - before.at) / MINUTE, 3)} if before else {}
    return {
        "item": step.aid,
        **clock(step.at, GERMANY),
        "clicks": counts["clicks"],
        "products": products,
        "carts": counts["carts"],
        "buys": counts["orders"],
        **since,
    }


def _release(log: Log, waiting: list[Pending], before: int | None) -> None:
    """Write the events earlier than ``before``; all that are left when it is None."""
    while waiting and (before is None or waiting[0].at < before):
        log.write(heappop(waiting).event)
