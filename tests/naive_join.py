"""The joined table of the Taobao file the naive way: plain Python over its rows, and nothing of the project.

    python tests/naive_join.py taobao.csv.gz 259200 > joined.csv

A purchase, cart or favourite belongs to the last view of the same user and item that is not after it, if that was at
most a window ago. Rows of one second count views first, and views of one second in the order of their ids.
"""

import csv
import gzip
import sys
from pathlib import Path
from typing import NamedTuple

SIGNALS = {"cart": "cart", "fav": "favourite"}


class Event(NamedTuple):
    """A row of the file; ``name`` is user.item.row."""

    ts: int
    rank: int
    name: str
    user: str
    item: str
    behaviour: str


class View(NamedTuple):
    """What became of a view by the end of the rows. ``delay``: seconds to the first purchase."""

    name: str
    ts: int
    label: int
    delay: int | None
    settled: bool
    signals: dict[str, int]


def read(path: Path) -> list[Event]:
    """The rows of the file in the order in which they count."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    events = [
        Event(
            int(row["ts"]),
            0 if row["behavior"] == "pv" else 1,
            f"{row['user_id']}.{row['item_id']}.{number}",
            row["user_id"],
            row["item_id"],
            row["behavior"],
        )
        for number, row in enumerate(rows, 1)
    ]
    return sorted(events)


def join(events: list[Event], window: int, now: float) -> list[View]:
    """Every view with what came back, seconds; settled if more than a window before ``now``."""
    last: dict[tuple[str, str], Event] = {}
    bought: dict[str, list[int]] = {}
    signals: dict[str, dict[str, int]] = {}
    views = [event for event in events if event.behaviour == "pv"]
    for event in events:
        key = event.user, event.item
        if event.behaviour == "pv":
            last[key] = event
        elif key in last and event.ts - last[key].ts <= window:
            name = last[key].name
            if event.behaviour == "buy":
                bought.setdefault(name, []).append(event.ts - last[key].ts)
            else:
                seen = signals.setdefault(name, {})
                seen[SIGNALS[event.behaviour]] = seen.get(SIGNALS[event.behaviour], 0) + 1
    return [
        View(
            v.name,
            v.ts,
            int(v.name in bought),
            min(bought.get(v.name, [None])),  # type: ignore[type-var]  # one None alone
            v.ts + window < now,
            signals.get(v.name, {}),
        )
        for v in views
    ]


def main() -> None:
    """Write the table of a file whose rows are all known."""
    path, window = Path(sys.argv[1]), int(sys.argv[2])
    events = read(path)
    out = csv.writer(sys.stdout)
    out.writerow(View._fields)
    out.writerows(join(events, window, events[-1].ts + 0.001))


if __name__ == "__main__":
    main()
