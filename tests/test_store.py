"""The label store against a naive oracle that recomputes everything from the full list of facts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from labelstore.events import ADAPTER, RANK, Adjustment, Conversion, Event, Impression, Item, Signal, identity
from labelstore.observations import Look, Observations, Schedule
from labelstore.store import LabelStore, StoreError, existing
from labelstore.tables import conversions, impressions, items, looks, predictions, signals
from stores import FOREVER, WINDOW, Open
from strategies import DAY, HOUR, T0, lines, logs
from stream.sources import Partition
from stream.watermark import Watermark

WAIT = 5 * HOUR
SCHEDULES = (Schedule(WAIT, True, True), Schedule(0, True), Schedule(WINDOW), Schedule(WAIT))
Row = tuple[int, ...]


def in_order(events: list[dict[str, Any]]) -> list[tuple[int, Event]]:
    """(known_at, event) of one partition without lateness, in the order in which they pass."""
    clocks = Watermark([Partition("log", 0)], 0)
    found = []
    for offset, line in enumerate(lines(events)):
        event = ADAPTER.validate_json(line)
        known_at, _ = clocks.read(Partition("log", 0), event.at)
        found.append((known_at, RANK[type(event)], identity(event), offset, event))
    return [(entry[0], entry[4]) for entry in sorted(found, key=lambda entry: entry[:4])]


class Oracle:
    """What the store should say, by loops over lists."""

    def __init__(self, facts: list[tuple[int, Event]]) -> None:
        seen: set[tuple[type, str]] = set()
        self.facts = []
        for known_at, event in facts:
            if (type(event), identity(event)) not in seen:
                seen.add((type(event), identity(event)))
                self.facts.append((known_at, event))
        self.shown = [(n, k, e) for n, (k, e) in enumerate(self.facts) if isinstance(e, Impression)]

    def impression_of(self, place: int) -> tuple[int, int] | None:
        """(place of the impression, when the credit is known) of the event at a place."""
        known_at, event = self.facts[place]
        assert isinstance(event, (Signal, Conversion))
        inside = [s for s in self.shown if s[2].at <= event.at <= s[2].at + WINDOW]
        if event.impression_id:
            found = [s for s in inside if s[2].impression_id == event.impression_id]
        else:
            touched = [s for s in inside if (s[2].user_id, s[2].item_id) == (event.user_id, event.item_id)]
            before = [s for s in touched if s[0] < place]
            found = [max(before, key=lambda s: (s[2].at, s[0]))] if before else touched[:1]
        return (found[0][0], max(known_at, found[0][1])) if found else None

    def credits(self, shown: int) -> list[tuple[int, int | None]]:
        """(known, taken back) of the purchases of an impression."""
        found = []
        for place, (known_at, event) in enumerate(self.facts):
            if isinstance(event, Conversion) and event.kind == "purchase":
                credit = self.impression_of(place)
                if credit and credit[0] == shown:
                    backs = [
                        max(k, known_at)
                        for k, e in self.facts
                        if isinstance(e, Adjustment) and e.action == "retract" and e.conversion_id == event.event_id
                    ]
                    found.append((credit[1], min(backs) if backs else None))
        return found

    def looks(self) -> set[Row]:
        """(at, number of the impression, look, schedule, learn, label, label at the first look, signals then)."""
        found: set[Row] = set()
        for number, (place, known_at, event) in enumerate(self.shown):
            credits = self.credits(place)

            def label(time: int, credits: list[tuple[int, int | None]] = credits) -> int:
                return int(any(k <= time and (back is None or back > time) for k, back in credits))

            close = max(event.at + WINDOW, known_at)
            flips = [k for k in sorted(k for k, _ in credits) if label(k) and k <= close]
            for s, schedule in enumerate(SCHEDULES):
                first = max(event.at + schedule.first, known_at)
                then = (label(first), self.signals(place, first))
                late = [k for k in sorted(k for k, _ in credits) if first < k <= close and label(k)]
                found.add((first, number, Look.FIRST, s, 1, label(first), *then))
                if schedule.conversion and not label(first) and late:
                    found.add((late[0], number, Look.CONVERSION, s, 1, 1, *then))
                if schedule.outcomes:
                    found.add((close, number, Look.CLOSE, s, 0, label(close), *then))
                    if flips and (flips[0], number, Look.CONVERSION, s, 1, 1, *then) not in found:
                        found.add(
                            (
                                flips[0],
                                number,
                                Look.CONVERSION,
                                s,
                                0,
                                1,
                                label(first),
                                self.signals(place, min(first, flips[0])),
                            )
                        )
        return found

    def signals(self, shown: int, time: int) -> int:
        """How many signals of the impression were known."""
        places = [n for n, (k, e) in enumerate(self.facts) if isinstance(e, Signal) and k <= time]
        return sum(1 for n in places if (credit := self.impression_of(n)) is not None and credit[0] == shown)


def rows(pages: Sequence[Observations], numbers: dict[int, int]) -> list[Row]:
    """Observations as plain rows, with the number of the impression for its key."""
    found = []
    for page in pages:
        signals = [0] * len(page.at)
        for row, _, _ in page.signals:
            signals[row] += 1
        columns = (page.at, page.impression, page.look, page.schedule, page.learn, page.label, page.first_label)
        for n, (at, key, *rest) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            found.append((at, numbers[key], *(int(value) for value in rest), signals[n]))
    return found


def passed(store: LabelStore, facts: list[tuple[int, Event]], cuts: Sequence[int]) -> list[Row]:
    """Let facts pass in spans of event time that end at the cuts, and take the looks of each span."""
    target = store.target("purchase", SCHEDULES)
    numbers: dict[int, int] = {}
    found: list[Row] = []
    start = 0
    for stop in [*sorted(set(cuts)), FOREVER + T0]:
        ready = [fact for fact in facts if start <= fact[0] < stop]
        if ready:
            shown, _ = store.pass_on(ready)
            numbers |= {row.seq: len(numbers) + n for n, row in enumerate(shown)}
        found += rows(list(target.due(start, stop)), numbers)
        start = stop
    return found


@settings(max_examples=150)
@given(logs, st.lists(st.integers(0, 9 * 24).map(lambda h: T0 + h * HOUR), max_size=5))
def test_looks_equal_the_oracle(open_store: Open, events: list[dict[str, Any]], cuts: list[int]) -> None:
    """Looks and what was known at them equal a naive recomputation, in whatever spans event time advanced."""
    facts = in_order(events)
    store = open_store()
    found = passed(store, facts, cuts)
    assert len(set(found)) == len(found)
    assert set(found) == Oracle(facts).looks()


@settings(max_examples=50)
@given(logs, st.lists(st.integers(0, 9 * 24).map(lambda h: T0 + h * HOUR), max_size=8))
def test_looks_do_not_depend_on_the_spans(open_store: Open, events: list[dict[str, Any]], cuts: list[int]) -> None:
    """The same looks come in the same order, however event time was cut."""
    facts = in_order(events)
    whole, cut = open_store(), open_store()
    assert passed(whole, facts, []) == passed(cut, facts, cuts)


def impression(name: str, at: int, **more: Any) -> Impression:
    return Impression(impression_id=name, at=at, **more)


def purchase(name: str, at: int, **more: Any) -> Conversion:
    return Conversion(event_id=name, kind="purchase", at=at, **more)


def credited(store: LabelStore) -> dict[str, str | None]:
    """Conversion -> impression it is credited to."""
    query = select(conversions.c.id, impressions.c.id).join_from(
        conversions, impressions, conversions.c.impression == impressions.c.seq, isouter=True
    )
    return {name: shown for name, shown in store.connection.execute(query)}


def test_last_touch_wins(open_store: Open) -> None:
    """A conversion by user and item belongs to the latest impression of both that is not after it."""
    store = open_store()
    touch = {"user_id": "u", "item_id": "a"}
    facts: list[tuple[int, Event]] = [(T0 + n, impression(f"i{n}", T0 + n, **touch)) for n in range(3)]
    facts.append((T0 + 3, impression("other", T0 + 3, user_id="u", item_id="b")))
    facts.append((T0 + HOUR, purchase("c", T0 + 1, **touch)))
    store.pass_on(facts)
    assert credited(store) == {"c": "i1"}


def test_attribution_never_moves(open_store: Open) -> None:
    """A later impression that would have been the last touch does not take a conversion that is decided."""
    store = open_store()
    touch = {"user_id": "u", "item_id": "a"}
    store.pass_on([(T0, impression("i0", T0, **touch)), (T0 + 9, purchase("c", T0 + 9, **touch))])
    store.pass_on([(T0 + 20, impression("late", T0 + 5, **touch))])
    assert credited(store) == {"c": "i0"}


def test_a_purchase_may_pass_before_its_impression(open_store: Open) -> None:
    """A conversion that finds nothing is credited when its impression passes."""
    store = open_store()
    store.pass_on(
        [(T0 + 9, purchase("c", T0 + 9, impression_id="i")), (T0 + 9, purchase("d", T0 + 9, user_id="u", item_id="a"))]
    )
    store.pass_on([(T0 + 20, impression("i", T0, user_id="u", item_id="a"))])
    assert credited(store) == {"c": "i", "d": "i"}


def test_past_the_window_is_counted_and_not_credited(open_store: Open) -> None:
    """Events more than a window after their impression, or known after its close, are counted as past_window."""
    store = open_store()
    _, first = store.pass_on([(T0, impression("i", T0, user_id="u", item_id="a"))])
    late = T0 + WINDOW + 1
    _, counts = store.pass_on(
        [
            (late, Signal(event_id="s", kind="cart", at=late, impression_id="i")),
            (late, purchase("named", late, impression_id="i")),
            (late, purchase("touch", late, user_id="u", item_id="a")),
            (late, purchase("in time, known late", T0 + HOUR, impression_id="i")),
            (late, purchase("of nobody", late, impression_id="never shown")),
        ]
    )
    assert first["past_window"] == 0
    assert counts["past_window"] == 4
    assert credited(store) == {"named": None, "touch": None, "in time, known late": "i", "of nobody": None}


def test_only_the_target_is_credited(open_store: Open) -> None:
    """Conversions of kinds that are no target are kept and credited to nothing."""
    store = open_store()
    basket = Conversion(event_id="b", kind="basket", at=T0 + 1, impression_id="i")
    store.pass_on([(T0, impression("i", T0)), (T0 + 1, basket)])
    assert credited(store) == {"b": None}


def test_each_target_has_its_window(open_store: Open) -> None:
    """Two targets are credited inside windows of their own."""
    store = open_store({"purchase": DAY, "redemption": 3 * DAY})
    at = T0 + 2 * DAY
    facts: list[tuple[int, Event]] = [(T0, impression("i", T0)), (at, purchase("p", at, impression_id="i"))]
    facts.append((at, Conversion(event_id="r", kind="redemption", at=at, impression_id="i")))
    store.pass_on(facts)
    assert credited(store) == {"p": None, "r": "i"}


def test_duplicates_are_counted_and_the_first_stays(open_store: Open) -> None:
    """Of equal ids the first that passes counts, within one call and across calls."""
    store = open_store()
    _, counts = store.pass_on([(T0, impression("i", T0, user_id="first")), (T0, impression("i", T0, user_id="again"))])
    _, more = store.pass_on([(T0 + 1, impression("i", T0 + 1, user_id="later"))])
    assert (counts["duplicates"], more["duplicates"], more["impressions"]) == (1, 1, 0)
    assert store.connection.execute(select(impressions.c.user_id)).scalars().all() == ["first"]


def test_a_retraction_may_pass_before_its_conversion(open_store: Open) -> None:
    """A conversion taken back before it passed is never known as a conversion."""
    store = open_store()
    back = Adjustment(event_id="a", at=T0 + 1, conversion_id="c", action="retract")
    store.pass_on([(T0, impression("i", T0)), (T0 + 1, back)])
    store.pass_on([(T0 + 2, purchase("c", T0 + 2, impression_id="i"))])
    pages = list(store.target("purchase", SCHEDULES).due(T0, T0 + FOREVER))
    assert [page.label.tolist() for page in pages] == [[0] * 5]
    assert store.connection.execute(select(conversions.c.retracted_at)).scalar() == T0 + 2


def test_only_the_newest_metadata_is_kept(open_store: Open) -> None:
    """Of a product's metadata the newest by event time stays, in whatever order it passes."""
    store = open_store()
    for at, colour in ((T0, "red"), (T0 + 5, "blue"), (T0 + 2, "green")):
        store.pass_on([(at, Item(item_id="a", at=at, features={"colour": colour}))])
    _, counts = store.pass_on([(T0 + 9, Item(item_id="a", at=T0 + 5, features={"colour": "blue"}))])
    assert store.connection.execute(select(items.c.features)).scalars().all() == ['{"colour":"blue"}']
    assert counts["duplicates"] == 1


def test_retention_deletes_by_event_time(open_store: Open) -> None:
    """At midnight everything known for longer than `keep` is deleted, from every table, and nothing else."""
    store = open_store(keep=3 * DAY)
    for day in range(6):
        at = T0 + day * DAY
        shown, _ = store.pass_on(
            [
                (at, impression(f"i{day}", at)),
                (at, Signal(event_id=f"s{day}", kind="cart", at=at, impression_id=f"i{day}")),
                (at, purchase(f"c{day}", at, impression_id=f"i{day}")),
            ]
        )
        seqs = np.array([row.seq for row in shown])
        store.keep_predictions(0, seqs, np.array([0.5]), 1)
        ones = np.ones(1, dtype=np.int64)
        store.keep_looks(0, {"impression": seqs, "look": ones, "at": ones, "label": ones, "weight": np.ones(1)})
    store.forget_before(T0 + 5 * DAY)
    for table in (impressions, signals, conversions, predictions, looks):
        assert store.connection.execute(select(func.count()).select_from(table)).scalar() == 4
    assert store.connection.execute(select(func.min(impressions.c.id))).scalar() == "i2"


def test_what_is_not_committed_is_gone(store_url: str) -> None:
    """A store that is left without a commit comes back as it was at the last one."""
    store = LabelStore(store_url, {"purchase": WINDOW}, FOREVER)
    store.pass_on([(T0, impression("kept", T0))])
    store.commit()
    store.pass_on([(T0 + 1, impression("lost", T0 + 1))])
    store.close()
    with existing(store_url) as connection:
        assert connection.execute(select(impressions.c.id)).scalars().all() == ["kept"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "expected a URL"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
        ("oracle://x", "expected a URL"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(url: str, says: str) -> None:
    """A URL that cannot be used gives one sentence with the URL and the remedy."""
    with pytest.raises(StoreError, match=says) as error:
        LabelStore(url, {"purchase": WINDOW}, FOREVER)
    assert url in str(error.value)


def test_reading_a_store_that_is_not_there(tmp_path: Any) -> None:
    """Looking into a store does not create one."""
    with pytest.raises(StoreError, match="no such file"), existing(f"sqlite:///{tmp_path}/none.db"):
        pass
    assert not (tmp_path / "none.db").exists()
