"""What a log says, by loops over lists: when each record may be known, whose it is, and every look there must be.

Nothing here is shared with the code that is tested but the models of the events: no clock objects, no SQL, no spans.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from labelstore.events import ADAPTER, RANK, Adjustment, Conversion, Event, Impression, Item, Signal, identity
from labelstore.observations import Look, Observations, Schedule
from stream.sources import Record

DAY = 86_400_000
FOREVER = 1000 * DAY
Row = tuple[int, ...]


class Known(NamedTuple):
    """A record that can be read: when it may be known, and whether it was late."""

    known_at: int
    event: Event
    place: tuple[str, int, int]
    late: bool


@cache
def event_of(record: Record) -> Event | None:
    """The event of a record; None where it is to become a dead letter."""
    try:
        event = ADAPTER.validate_json(record.value)
    except ValidationError:
        return None
    return None if record.timestamp is not None and event.at > record.timestamp + DAY else event


def read(records: Sequence[Record], lateness: int = 0, raised: Sequence[tuple[int, int]] = ()) -> list[Known]:
    """The readable records of one partition with known_at = max(at, largest at before it less the lateness).

    ``raised``: (offset, time) pairs; from the record with this offset on, the clock is at least that.
    """
    found: list[Known] = []
    for n, record in enumerate(records):
        event = event_of(record)
        if event is not None:
            clock = clock_of(records[:n], lateness, [time for offset, time in raised if offset <= n])
            known_at = event.at if clock is None else max(event.at, clock)
            found.append(Known(known_at, event, record[:3], known_at > event.at))
    return found


def clock_of(records: Sequence[Record], lateness: int, raised: Sequence[int] = ()) -> int | None:
    """The clock of a partition that has shown these records; None before the first that can be read."""
    times = [event.at - lateness for record in records if (event := event_of(record)) is not None]
    return max([*times, *raised], default=None)


def in_order(found: Sequence[Known]) -> list[Known]:
    """In the one order in which records pass."""
    return sorted(found, key=lambda k: (k.known_at, RANK[type(k.event)], identity(k.event), k.place))


def plain(pages: Iterable[Observations]) -> list[Row]:
    """Observations as plain rows, as `Oracle.looks` has them."""
    found: list[Row] = []
    for page in pages:
        signals, now = (
            np.bincount([row for row, _, _ in marks], minlength=len(page.at))
            for marks in (page.signals, page.signalled)
        )
        columns = (page.at, page.impression, page.look, page.schedule, page.learn, page.label, page.first_label)
        rest = (signals, page.final, page.delay, page.before, page.before_at, now)
        found += zip(*(c.astype(int).tolist() for c in (*columns, *rest)), strict=True)
    return found


class Oracle:
    """What the store should say of records in their one order.

    Args:
        facts: (known_at, event). schedules: what is asked for. window: of the target "purchase", ms.
        keep: how long a record counts after it was known, in whole days of event time, ms.
    """

    def __init__(
        self, facts: Sequence[tuple[int, Event]], schedules: Sequence[Schedule], window: int, keep: int = FOREVER
    ) -> None:
        self.schedules, self.window, self.keep = schedules, window, max(keep, window + DAY)
        self.facts: list[tuple[int, Event]] = []  # without duplicates; seq is the place here and one
        self.duplicates: list[int] = []  # their known_at
        for known_at, event in facts:
            if self._repeats(known_at, event):
                self.duplicates.append(known_at)
            else:
                self.facts.append((known_at, event))
        self.shown = [(n, k, e) for n, (k, e) in enumerate(self.facts) if isinstance(e, Impression)]

    def _repeats(self, known_at: int, event: Event) -> bool:
        """Whether the record is one that is kept. Of an item only the newest is, and for ever."""
        if isinstance(event, Item):
            times = [e.at for _, e in self.facts if isinstance(e, Item) and e.item_id == event.item_id]
            return bool(times) and event.at == max(times)
        same = [n for n, (_, e) in enumerate(self.facts) if type(e) is type(event) and identity(e) == identity(event)]
        return any(self._kept(n, known_at) for n in same)

    def _kept(self, place: int, time: int) -> bool:
        """Whether a record is still there at a time: what was known `keep` before the last midnight is not."""
        return self.facts[place][0] >= time - time % DAY - self.keep

    def _together(self, one: int, other: int) -> bool:
        """Whether the earlier of two records is still there when the later passes."""
        return self._kept(min(one, other), self.facts[max(one, other)][0])

    @cached_property
    def credited(self) -> dict[int, int]:
        """Place of a signal or conversion -> place of its impression."""
        owners = ((n, self._owner(n, e)) for n, (_, e) in enumerate(self.facts) if isinstance(e, (Signal, Conversion)))
        return {place: owner for place, owner in owners if owner is not None}

    def _candidates(self, place: int, event: Signal | Conversion) -> list[tuple[int, Impression]]:
        """The impressions an event could belong to, if all times fitted."""
        if isinstance(event, Conversion) and event.kind != "purchase":
            return []
        found = []
        for n, _, e in self.shown:
            if event.impression_id is not None:
                belongs = e.impression_id == event.impression_id
            else:
                belongs = (e.user_id, e.item_id) == (event.user_id, event.item_id)
            if belongs and self._together(n, place):
                found.append((n, e))
        return found

    def _owner(self, place: int, event: Signal | Conversion) -> int | None:
        """The last touch among what had passed; else the first that passes later."""
        inside = [(n, e) for n, e in self._candidates(place, event) if e.at <= event.at <= e.at + self.window]
        before = [(e.at, n) for n, e in inside if n < place]
        return max(before)[1] if before else min((n for n, _ in inside), default=None)

    def credits(self, shown: int) -> list[tuple[int, int | None]]:
        """(known, taken back) of the purchases of an impression."""
        found = []
        for place, owner in self.credited.items():
            known_at, event = self.facts[place]
            if owner == shown and isinstance(event, Conversion):
                backs = [
                    max(k, known_at)
                    for n, (k, e) in enumerate(self.facts)
                    if isinstance(e, Adjustment) and e.action == "retract" and e.conversion_id == event.event_id
                    if self._together(n, place)
                ]
                found.append((max(known_at, self.facts[shown][0]), min(backs, default=None)))
        return found

    def signals(self, shown: int, time: int) -> int:
        """How many signals of the impression were known."""
        mine = [self.facts[place] for place, owner in self.credited.items() if owner == shown]
        return sum(1 for known_at, event in mine if isinstance(event, Signal) and known_at <= time)

    @cached_property
    def looks(self) -> list[Row]:
        """(at, impression, look, schedule, learn, label, label and signals at the first look, final, delay, label and time
        of the learned look before, signals at this look), in order."""
        found = sorted({row for shown in self.shown for row in self._looks(*shown)})
        return sorted(found, key=lambda row: (row[0], row[1] * 2_654_435_761 % 2**32, *row[1:]))

    def _looks(self, place: int, known_at: int, event: Impression) -> list[Row]:
        """The looks at one impression: first those that are learned, then what is told beside them."""
        credits, close = self.credits(place), max(event.at + self.window, known_at)
        flips = [k for k in sorted(k for k, _ in credits) if label(credits, k) and k <= close]
        found: list[Row] = []
        for s, schedule in enumerate(self.schedules):
            first = max(event.at + schedule.first, known_at)
            learned = [(first, Look.FIRST)]
            late = [k for k in flips if k > first]
            if schedule.conversion and late and not label(credits, first):
                learned.append((late[0], Look.CONVERSION))
            for age in schedule.ages:
                last, seen = learned[-1][0], [label(credits, time) for time, _ in learned]
                if event.at + age > last and (schedule.every or not any(seen)):
                    learned.append((event.at + age, Look.AGE))
            if (schedule.confirm == "all" and len(learned) == 1) or (
                schedule.confirm == "negatives" and not label(credits, close)
            ):
                learned.append((close, Look.CLOSE))
            told = set()
            if schedule.outcomes:
                told = {(close, Look.CLOSE)} | {(k, Look.CONVERSION) for k in flips[:1]}
            if schedule.deadline:
                told.add((max(event.at + schedule.deadline, known_at), Look.AGE))
            for n, (at, why) in enumerate(learned):
                before = learned[n - 1][0] if n else None
                found.append(self._row(place, event, (at, why, s, 1), first, before))
            for at, why in told - set(learned):
                earlier = [time for time, _ in learned if time < at] or [first] * (first <= at)
                found.append(self._row(place, event, (at, why, s, 0), first, earlier[-1] if earlier else None))
        return found

    def _row(self, place: int, event: Impression, due: tuple[int, Look, int, int], first: int, last: int | None) -> Row:
        """What was known at a look; ``last``: the time of the learned one before it."""
        at, why, schedule, learn = due
        credits, known_at = self.credits(place), self.facts[place][0]
        flips = [k for k in sorted(k for k, _ in credits) if k <= at and label(credits, k)]
        return (
            at,
            place + 1,
            why,
            schedule,
            learn,
            label(credits, at),
            label(credits, min(first, at)),
            self.signals(place, min(first, at)),
            int(at >= max(event.at + self.window, known_at)),
            (at if why is Look.CONVERSION else flips[0]) - event.at if flips else -1,
            0 if last is None else label(credits, last),
            event.at if last is None else last,
            self.signals(place, at),
        )

    def past_window(self, until: int) -> int:
        """How many events, known before ``until``, came past the window of what they belong to."""
        return sum(
            self._is_past(n, e)
            for n, (k, e) in enumerate(self.facts)
            if k < until and isinstance(e, (Signal, Conversion))
        )

    def _is_past(self, place: int, event: Signal | Conversion) -> bool:
        """Judged when it passes: its impression is too long ago, or known to be closed."""
        owner = self.credited.get(place)
        if owner is not None and owner < place:
            known_at, shown = self.facts[owner]
            return self.facts[place][0] > max(shown.at + self.window, known_at)
        earlier = [e for n, e in self._candidates(place, event) if n < place]
        return any(e.at + self.window < event.at for e in earlier)

    def counts(self, until: int) -> Counter[str]:
        """What of each type is known before ``until``, with ``duplicates`` and ``past_window``."""
        found = Counter(f"{event.type}s" for known_at, event in self.facts if known_at < until)
        found["duplicates"] = sum(known_at < until for known_at in self.duplicates)
        found["past_window"] = self.past_window(until)
        return found

    def settled(self, until: int) -> dict[int, tuple[int, int]]:
        """Hour of the impressions, since 1970 -> (rows, positives) of those whose window closed before ``until``."""
        found: dict[int, tuple[int, int]] = {}
        for place, known_at, event in self.shown:
            close = max(event.at + self.window, known_at)
            if close < until:
                rows, positives = found.get(event.at // 3_600_000, (0, 0))
                found[event.at // 3_600_000] = (rows + 1, positives + label(self.credits(place), close))
        return found


def label(credits: Sequence[tuple[int, int | None]], time: int) -> int:
    """1 if a conversion is known at this time and not taken back."""
    return int(any(k <= time and (back is None or back > time) for k, back in credits))
