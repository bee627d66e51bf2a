"""Looks out: which looks fall in a span of event time, and what was known at each."""

from collections.abc import Iterator, Sequence, Set

import numpy as np
from sqlalchemy import BindParameter, Connection, and_, bindparam, select

from labelstore.bulk import seqs, within
from labelstore.observations import (
    Credit,
    Due,
    Look,
    Observations,
    Schedule,
    conversion_look,
    converted_at,
    label_at,
    look_at,
    turn,
)
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
_FEATURES = select(I.seq, I.at, I.known_at, I.features).where(within(I.seq)).order_by(I.seq)


class Target:
    """A kind of conversion that is learned, with its attribution window (ms) and the schedules of its learners.

    ``hindsight``: the impressions (by seq) whose final label is 1, for the schedules that may know it.
    """

    def __init__(
        self,
        connection: Connection,
        kind: str,
        window: int,
        schedules: Sequence[Schedule],
        hindsight: Set[int] = frozenset(),
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

    def shown(self, age: int, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(seq, at, known_at) of the impressions whose look at this age falls in [start, stop)."""
        span = {"age": age, "start": start, "stop": stop}
        return [tuple(row) for query in (_SHOWN_EARLY, _SHOWN_LATE) for row in self.connection.execute(query, span)]

    def _at_ages(self, start: int, stop: int) -> list[Due]:
        found: list[Due] = []
        for age in sorted({s.first for s in self.schedules} | {self.window}):
            first = [i for i, s in enumerate(self.schedules) if s.first == age]
            close = [i for i, s in enumerate(self.schedules) if s.outcomes and age == self.window]
            for seq, at, known_at in self.shown(age, start, stop) if first or close else ():
                time = look_at(age, at, known_at)
                found += [Due(time, turn(seq), seq, Look.FIRST, i, True) for i in first]
                found += [Due(time, turn(seq), seq, Look.CLOSE, i, False) for i in close]
        return found

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
        for chunk in range(0, len(keys), PAGE):
            given = {**seqs(keys[chunk : chunk + PAGE]), "kind": self.kind}
            for impression, *credit in self.connection.execute(_CREDITS, given):
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
        rows: list[tuple[int, int, int, int, bool, int]] = []
        marks: list[tuple[int, str, int]] = []
        for n, look in enumerate(due):
            _, at, known_at, _ = shown[look.impression]
            first = look_at(self.schedules[look.schedule].first, at, known_at)
            until = min(first, look.at)
            final = look.at >= look_at(self.window, at, known_at)
            if self.schedules[look.schedule].hindsight:
                label = int(look.impression in self._hindsight)
                rows.append((at, first, label, label, True, -1))
            elif credit := credits.get(look.impression):
                known = converted_at(look.at, credit)
                delay = -1 if known is None else known - at
                rows.append((at, first, label_at(until, credit), label_at(look.at, credit), final, delay))
            else:
                rows.append((at, first, 0, 0, final, -1))
            for kind, signal_at, signal_known in seen.get(look.impression, ()):
                if signal_known <= until:
                    marks.append((n, kind, until - signal_at))
        features = {seq: row[3] for seq, row in shown.items()}
        columns = np.array(due, dtype=np.int64).reshape(-1, 6).T
        known_ = np.array(rows, dtype=np.int64).reshape(-1, 6).T
        return Observations(
            at=columns[0],
            impression=columns[2],
            look=columns[3],
            schedule=columns[4],
            learn=columns[5].astype(bool),
            shown_at=known_[0],
            first_at=known_[1],
            first_label=known_[2],
            label=known_[3],
            final=known_[4].astype(bool),
            delay=known_[5],
            signals=marks,
            features=features,
        )
