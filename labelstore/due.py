"""Looks out: which looks fall in a span of event time, and what was known at each."""

from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

import numpy as np
from sqlalchemy import BindParameter, Connection, and_, bindparam, select

from labelstore.bulk import chunks, seqs, within
from labelstore.observations import (
    Credit,
    Due,
    Look,
    Observations,
    Schedule,
    age_looks,
    conversion_look,
    converted_at,
    is_confirmed,
    label_at,
    look_at,
    look_before,
    turn,
)
from labelstore.retention import DAY
from labelstore.tables import conversions, impressions, signals

PAGE = 4096  # looks handed over at a time
C, I, S = conversions.c, impressions.c, signals.c  # noqa: E741  # the relations' letters in the queries below

_START: BindParameter[int] = bindparam("start")
_STOP: BindParameter[int] = bindparam("stop")
_AGE: BindParameter[int] = bindparam("age")
_SHOWN = select(I.seq, I.at, I.known_at)
_SHOWN_EARLY = _SHOWN.where(and_(I.at >= _START - _AGE, I.at < _STOP - _AGE, I.known_at <= I.at + _AGE))
_SHOWN_LATE = _SHOWN.where(and_(I.known_at > I.at, I.known_at > I.at + _AGE, I.known_at >= _START, I.known_at < _STOP))
_CREDITED = (
    _SHOWN.join_from(conversions, impressions, C.impression == I.seq)
    .where(C.kind == bindparam("kind"), C.credited_at >= _START, C.credited_at < _STOP)
    .distinct()
)
_CREDITS = (
    select(C.impression, C.at, C.credited_at, C.retracted_at)
    .where(within(C.impression), C.kind == bindparam("kind"))
    .order_by(C.seq)
)
_SIGNALS = select(S.impression, S.kind, S.at, S.known_at).where(within(S.impression)).order_by(S.seq)
_FEATURES = select(I.seq, I.at, I.known_at, I.features, I.graph, I.id).where(within(I.seq)).order_by(I.seq)


class Target:
    """A kind of conversion that is learned, with its attribution window (ms) and the schedules of its learners.

    ``hindsight``: the impressions (id, at) whose final label is 1, for the schedules that may know it.
    """

    def __init__(
        self,
        connection: Connection,
        kind: str,
        window: int,
        schedules: Sequence[Schedule],
        hindsight: Set[tuple[str, int]] = frozenset(),
    ) -> None:
        self.connection, self.kind, self.window, self.schedules = connection, kind, window, tuple(schedules)
        self._hindsight = hindsight

    def due(self, start: int, stop: int) -> Iterator[Observations]:
        """The looks that fall in [start, stop), in their one order (see `Due`), page by page.

        Every record with known_at < stop must have passed.
        """
        found = sorted(self._at_ages(start, stop) + self._at_conversions(start, stop))
        for page in range(0, len(found), PAGE):
            yield self.observe(found[page : page + PAGE])

    def due_by_days(self, start: int, stop: int) -> Iterator[Observations]:
        """The same of a long span: all looks of one day are in memory, not those of all."""
        for day in range(start, stop, DAY):
            yield from self.due(day, min(day + DAY, stop))

    def shown(self, age: int, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(seq, at, known_at) of the impressions whose look at this age falls in [start, stop)."""
        span = {"age": age, "start": start, "stop": stop}
        return [tuple(row) for query in (_SHOWN_EARLY, _SHOWN_LATE) for row in self.connection.execute(query, span)]

    def _at_ages(self, start: int, stop: int) -> list[Due]:
        found: list[Due] = []
        for age in sorted({self.window}.union(*map(_ages, self.schedules))):
            closes = age == self.window
            asked = [
                (i, s)
                for i, s in enumerate(self.schedules)
                if age in _ages(s) or (closes and (s.outcomes or s.confirm))
            ]
            shown = self.shown(age, start, stop) if asked else []
            depends = any((age in s.ages and not s.every) or s.confirm for _, s in asked)
            credits = self.credits([seq for seq, _, _ in shown]) if depends else {}
            for seq, at, known_at in shown:
                time = look_at(age, at, known_at)
                for i, schedule in asked:
                    for look, learn in self._looks(age, at, known_at, schedule, credits.get(seq, ())):
                        found.append(Due(time, turn(seq), seq, look, i, learn))
        return found

    def _looks(
        self, age: int, at: int, known_at: int, schedule: Schedule, credits: Sequence[Credit]
    ) -> Iterator[tuple[Look, bool]]:
        """The looks of a schedule at this age, and whether they are learned."""
        if age == schedule.first:
            yield Look.FIRST, True
        if age in schedule.ages and look_at(age, at, known_at) in age_looks(at, known_at, schedule, credits):
            yield Look.AGE, True
        elif age == schedule.deadline > 0:
            yield Look.AGE, False
        if age == self.window and (schedule.outcomes or schedule.confirm):
            learn = bool(schedule.confirm) and is_confirmed(at, known_at, self.window, schedule, credits)
            if learn or schedule.outcomes:
                yield Look.CLOSE, learn

    def _at_conversions(self, start: int, stop: int) -> list[Due]:
        """Looks at delayed positives, and first conversions as outcomes. Few rows: one impression at a time."""
        span = {"kind": self.kind, "start": start, "stop": stop}
        shown = [tuple(row) for row in self.connection.execute(_CREDITED, span)]
        credits = self.credits([seq for seq, _, _ in shown])
        found: list[Due] = []
        for seq, at, known_at in shown:
            known = converted_at(look_at(self.window, at, known_at), credits[seq])
            for i, schedule in enumerate(self.schedules):
                look = conversion_look(at, known_at, self.window, schedule, credits[seq])
                if look is not None and start <= look < stop:
                    found.append(Due(look, turn(seq), seq, Look.CONVERSION, i, True))
                if schedule.outcomes and known is not None and known != look and start <= known < stop:
                    found.append(Due(known, turn(seq), seq, Look.CONVERSION, i, False))
        return found

    def credits(self, keys: Sequence[int]) -> dict[int, list[Credit]]:
        """The conversions credited to these impressions; only impressions that have some."""
        found: dict[int, list[Credit]] = {}
        for some in chunks(keys):
            for impression, *credit in self.connection.execute(_CREDITS, {**seqs(some), "kind": self.kind}):
                found.setdefault(impression, []).append(Credit(*credit))
        return found

    def _signals(self, keys: Sequence[int]) -> dict[int, list[tuple[str, int, int]]]:
        """(kind, at, known_at) of the signals of these impressions, as they passed."""
        found: dict[int, list[tuple[str, int, int]]] = {}
        for impression, kind, at, known_at in self.connection.execute(_SIGNALS, seqs(keys)):
            found.setdefault(impression, []).append((kind, at, known_at))
        return found

    def observe(self, due: Sequence[Due]) -> Observations:
        """What was known at each of these looks: at most `PAGE` of them."""
        keys = sorted({look.impression for look in due})
        shown = {row[0]: tuple(row) for row in self.connection.execute(_FEATURES, seqs(keys))}
        credits, seen = self.credits(keys), self._signals(keys)
        rows: list[_Known] = []
        marks: list[tuple[int, str, int]] = []
        signalled: list[tuple[int, str, int]] = []
        for n, look in enumerate(due):
            _, at, known_at, _, _, name = shown[look.impression]
            rows.append(self._known(look, name, at, known_at, credits.get(look.impression, ())))
            until = min(rows[-1].first, look.at)
            for kind, signal_at, signal_known in seen.get(look.impression, ()):
                if signal_known <= until:
                    marks.append((n, kind, until - signal_at))
                if signal_known <= look.at:
                    signalled.append((n, kind, signal_known - at))
        columns = np.array(due, dtype=np.int64).reshape(-1, 6).T
        known = np.array(rows, dtype=np.int64).reshape(-1, 8).T
        return Observations(
            at=columns[0],
            impression=columns[2],
            look=columns[3],
            schedule=columns[4],
            learn=columns[5].astype(bool),
            shown_at=known[0],
            first_at=known[1],
            first_label=known[2],
            label=known[3],
            final=known[4].astype(bool),
            delay=known[5],
            before=known[6],
            before_at=known[7],
            signals=marks,
            signalled=signalled,
            features={seq: row[3] for seq, row in shown.items()},
            graph={seq: row[4] for seq, row in shown.items() if row[4] is not None},
        )

    def _known(self, look: Due, name: str, at: int, known_at: int, credits: Sequence[Credit]) -> "_Known":
        """What was known of an impression at a look; ``name``: its id."""
        schedule = self.schedules[look.schedule]
        first, final = look_at(schedule.first, at, known_at), look.at >= look_at(self.window, at, known_at)
        if schedule.hindsight:
            label = int((name, at) in self._hindsight)
            return _Known(at, first, label, label, True, -1, 0, at)
        last = None
        if look.look != Look.FIRST:
            last = look_before(look.at, at, known_at, self.window, schedule, credits)
        if not credits:
            return _Known(at, first, 0, 0, final, -1, 0, at if last is None else last)
        converted = look.at if look.look == Look.CONVERSION else converted_at(look.at, credits)
        before = (0, at) if last is None else (label_at(last, credits), last)
        delay = -1 if converted is None else converted - at
        seen = label_at(min(first, look.at), credits)
        return _Known(at, first, seen, label_at(look.at, credits), final, delay, *before)


class _Known(NamedTuple):
    """The columns of `Observations` from ``shown_at`` to ``before_at``, of one look."""

    at: int
    first: int
    first_label: int
    label: int
    final: bool
    delay: int
    before: int
    before_at: int


def _ages(schedule: Schedule) -> set[int]:
    """The ages at which a schedule looks, but for the close."""
    return {schedule.first, *schedule.ages, *((schedule.deadline,) if schedule.deadline else ())}
