"""The joined table as it was known at a moment T of event time: one row per impression.

Nothing takes part that was known at T or later. What a store says of the time before T never changes: a conversion is
credited once, on what has passed by then, and retractions and restatements are dated. Only retention takes away.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from labelstore.bulk import seqs, within
from labelstore.observations import Credit, label_at, look_at
from labelstore.tables import adjustments, conversions, impressions, predictions, signals

PAGE = 4096  # rows handed over at a time
A, C, I, P, S = adjustments.c, conversions.c, impressions.c, predictions.c, signals.c  # noqa: E741  # letters as in due

_AS_OF: BindParameter[int] = bindparam("as_of")
_KIND: BindParameter[str] = bindparam("kind")
_KNOWN = select(func.count()).select_from(impressions).where(I.known_at < _AS_OF)
_SHOWN = (
    select(I.seq, I.known_at, I.id, I.user_id, I.item_id, I.at, I.features, I.graph)
    .where(I.seq > bindparam("after"), I.known_at < _AS_OF)
    .order_by(I.seq)
    .limit(PAGE)
)
_CONVERTED = (
    select(C.impression, C.seq, C.value, C.at, C.credited_at, C.retracted_at)
    .where(within(C.impression), C.kind == _KIND, C.credited_at < _AS_OF)
    .order_by(C.seq)
)
_RESTATED = (
    select(C.seq, A.value)
    .join_from(conversions, adjustments, A.conversion_id == C.id)
    .where(within(C.impression), C.kind == _KIND, A.action == "restate", A.known_at < _AS_OF)
    .order_by(A.known_at, A.seq)
)
_SIGNALS = (
    select(S.impression, S.kind, func.count())
    .where(within(S.impression), S.known_at < _AS_OF)
    .group_by(S.impression, S.kind)
    .order_by(S.impression, S.kind)
)
_SCORES = select(P.impression, P.learner, P.score).where(within(P.impression))


class Row(NamedTuple):
    """What was known of one impression.

    ``label``: 1 if a conversion makes it so; then ``delay``, ms from the impression to the moment the first of these
    was known, and ``value``, the sum over all of them (None where none has one).
    ``settled``: the attribution window had closed. ``signals``: kind -> how many. ``features``: JSON, as shown.
    ``scores``: of each learner by its number, as it was given; None where it gave none. ``graph``: what the product graph
    said of it then, JSON; None where it said nothing.
    """

    impression_id: str
    user_id: str | None
    item_id: str | None
    at: int
    label: int
    delay: int | None
    settled: bool
    value: float | None
    signals: dict[str, int]
    features: str
    scores: tuple[float | None, ...]
    graph: str | None = None


class Credited(NamedTuple):
    """A conversion credited to an impression, and what it was worth."""

    credit: Credit
    value: float | None


class Joined:
    """The table of one kind of conversion with its attribution window (ms), as it was known at ``as_of`` (ms).

    ``learners``: how many have scores in the store.
    """

    def __init__(self, connection: Connection, kind: str, window: int, as_of: int, learners: int) -> None:
        self.connection, self.window, self.as_of, self._learners = connection, window, as_of, learners
        self._given = {"as_of": as_of, "kind": kind}

    def size(self) -> int:
        """How many rows there are."""
        return self.connection.execute(_KNOWN, self._given).scalar_one()

    def pages(self) -> Iterator[list[Row]]:
        """The rows in the order in which the impressions passed, at most `PAGE` at a time."""
        after = 0
        while shown := self.connection.execute(_SHOWN, self._given | {"after": after}).all():
            after = shown[-1].seq
            keys = [row.seq for row in shown]
            converted, seen, scores = self._converted(keys), self._signals(keys), self._scores(keys)
            yield [
                Row(name, user, item, at, *self._outcome(at, known_at, converted.get(seq, ())), seen.get(seq, {}),
                    features, tuple(scores[seq]), graph)
                for seq, known_at, name, user, item, at, features, graph in shown
            ]  # fmt: skip

    def _outcome(
        self, at: int, known_at: int, converted: Sequence[Credited]
    ) -> tuple[int, int | None, bool, float | None]:
        """Label, delay, settled and value of an impression."""
        close = look_at(self.window, at, known_at)
        until = min(self.as_of - 1, close)
        standing = [one for one in converted if label_at(until, [one.credit])]
        known = min((one.credit.credited_at - at for one in standing), default=None)
        values = [one.value for one in standing if one.value is not None]
        return int(known is not None), known, close < self.as_of, sum(values) if values else None

    def _converted(self, keys: Sequence[int]) -> dict[int, list[Credited]]:
        """The conversions credited to these impressions, as they passed, each with its newest value."""
        given = self._given | seqs(keys)
        restated = dict(tuple(row) for row in self.connection.execute(_RESTATED, given))  # the last one stays
        found: dict[int, list[Credited]] = {}
        for impression, seq, value, *credit in self.connection.execute(_CONVERTED, given):
            found.setdefault(impression, []).append(Credited(Credit(*credit), restated.get(seq, value)))
        return found

    def _signals(self, keys: Sequence[int]) -> dict[int, dict[str, int]]:
        """Impression -> kind of signal, in the order of their names -> how many."""
        found: dict[int, dict[str, int]] = {}
        for impression, kind, times in self.connection.execute(_SIGNALS, self._given | seqs(keys)):
            found.setdefault(impression, {})[kind] = times
        return found

    def _scores(self, keys: Sequence[int]) -> dict[int, list[float | None]]:
        """Impression -> the score of each learner."""
        found: dict[int, list[float | None]] = {key: [None] * self._learners for key in keys}
        for impression, learner, score in self.connection.execute(_SCORES, seqs(keys)):
            found[impression][learner] = score
        return found
