"""The label store against a naive oracle that recomputes everything from the full list of facts."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from sqlalchemy import ColumnElement, func, select

from labelstore import ledger
from labelstore.bulk import named, names, seqs, within
from labelstore.events import Adjustment, Conversion, Event, Impression, Item, Signal
from labelstore.observations import ALL, NEGATIVES, Look, Schedule
from labelstore.store import LabelStore, StoreError, existing
from labelstore.tables import conversions, impressions, items, looks, predictions, signals
from oracle import Oracle, Row, in_order, plain, read
from stores import FOREVER, WINDOW, Open
from strategies import DAY, HOUR, T0, lines, logs, timelines
from stream.sources import Record

WAIT = 5 * HOUR
SCHEDULES = (
    Schedule(WAIT, True, True),
    Schedule(0, True),
    Schedule(WINDOW),
    Schedule(WAIT),
    Schedule(WAIT, ages=(2 * WAIT, 4 * WAIT, WINDOW)),
    Schedule(0, outcomes=True, ages=(WAIT, WINDOW), every=True),
    Schedule(WAIT, True, True, confirm=ALL),
    Schedule(WAIT, True, confirm=NEGATIVES),
    Schedule(WAIT, outcomes=True, deadline=3 * WAIT),
)

spans = st.lists(st.one_of(st.integers(0, 9 * 24), st.integers(55, 75)).map(lambda h: T0 + h * HOUR), max_size=8)


def facts_of(events: list[dict[str, Any]]) -> list[tuple[int, Event]]:
    """(known_at, event) of one partition without lateness, in the order in which they pass."""
    records = [Record("log", 0, offset, None, None, line) for offset, line in enumerate(lines(events))]
    return [(known.known_at, known.event) for known in in_order(read(records))]


def steps(store: LabelStore, facts: list[tuple[int, Event]]) -> int:
    """How much of SQLite's machine it takes to let facts pass: hundreds of its steps."""
    taken: list[int] = []
    driver = store.connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(lambda: taken.append(1), 100)
    store.pass_on(facts)
    driver.set_progress_handler(None, 0)
    return len(taken)


def passed(store: LabelStore, facts: list[tuple[int, Event]], cuts: Sequence[int]) -> list[Row]:
    """Let facts pass in spans of event time that end at the cuts, and take the looks of each span."""
    target = store.target("purchase", SCHEDULES)
    found: list[Row] = []
    start = 0
    for stop in [*sorted(set(cuts)), FOREVER + T0]:
        ready = [fact for fact in facts if start <= fact[0] < stop]
        if ready:
            store.pass_on(ready)
        found += plain(target.due(start, stop))
        start = stop
    return found


@settings(max_examples=150)
@given(st.one_of(logs, timelines), spans)
def test_looks_equal_the_oracle(open_store: Open, events: list[dict[str, Any]], cuts: list[int]) -> None:
    """Looks and what was known at them equal a naive recomputation, in whatever spans event time advanced."""
    facts = facts_of(events)
    store = open_store()
    assert passed(store, facts, cuts) == Oracle(facts, SCHEDULES, WINDOW).looks


@settings(max_examples=50)
@given(st.one_of(logs, timelines), spans)
def test_looks_do_not_depend_on_the_spans(open_store: Open, events: list[dict[str, Any]], cuts: list[int]) -> None:
    """The same looks come in the same order, however event time was cut."""
    facts = facts_of(events)
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


def test_what_belongs_to_nobody_costs_nothing_later(tmp_path: Path) -> None:
    """A poll costs SQLite as much where forty thousand events that no impression has brought are kept as where none is."""
    store = LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": 100 * DAY}, FOREVER)
    taken = []
    for n in range(2):
        at = T0 + n * DAY
        fresh: list[tuple[int, Event]] = []
        for k in range(100):
            who: dict[str, Any] = {"user_id": f"u{k}", "item_id": "a"}
            fresh.append((at, impression(f"i{n}-{k}", at, **who)))
            fresh.append((at + 1, purchase(f"c{n}-{k}", at + 1, **who)))
            fresh.append((at + 2, Signal(event_id=f"s{n}-{k}", kind="cart", at=at + 2, **who)))
            fresh.append(
                (at + 3, Adjustment(event_id=f"a{n}-{k}", at=at + 3, conversion_id=f"c{n}-{k}", action="retract"))
            )
        taken.append(steps(store, fresh))
        organic: list[tuple[int, Event]] = []
        for k in range(10_000):
            who = {"user_id": f"organic{n}-{k}", "item_id": "b"}
            organic.append((at + 4, purchase(f"o{n}-{k}", at + 4, **who)))
            organic.append((at + 4, purchase(f"p{n}-{k}", at + 4, impression_id=f"gone{n}-{k}")))
            organic.append((at + 4, Signal(event_id=f"t{n}-{k}", kind="cart", at=at + 4, **who)))
            back = Adjustment(event_id=f"b{n}-{k}", at=at + 4, conversion_id=f"o{n}-{k}", action="retract")
            organic.append((at + 4, back))
        store.pass_on(organic)
    store.close()
    assert taken[1] < 1.2 * taken[0]


def test_one_user_for_all_who_have_no_name_costs_no_more_later(tmp_path: Path) -> None:
    """A poll costs SQLite as much where thousands of impressions and events of the same user and product are kept."""
    store = LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": WINDOW}, FOREVER)
    who: dict[str, Any] = {"user_id": "guest", "item_id": "a"}
    taken = []
    for n in range(6):
        at = T0 + n * 10 * DAY
        poll: list[tuple[int, Event]] = [(at + k, impression(f"i{n}-{k}", at + k, **who)) for k in range(500)]
        at += WINDOW + DAY
        for k in range(500):
            poll.append((at + k, purchase(f"c{n}-{k}", at + k, **who)))
            poll.append((at + k, Signal(event_id=f"s{n}-{k}", kind="cart", at=at + k, **who)))
        taken.append(steps(store, poll))
    store.close()
    assert taken[-1] < 1.5 * taken[1]


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
    assert {label for page in pages for label in page.label.tolist()} == {0}
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


def test_a_commit_outlives_a_power_cut(tmp_path: Path) -> None:
    """SQLite syncs each commit to the disk (2 is FULL): then the files of older checkpoints are removed."""
    store = LabelStore(f"sqlite:///{tmp_path}/s.db", {"purchase": WINDOW}, FOREVER)
    assert store.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


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


def one_by_one_and_at_once(open_store: Open, facts: list[tuple[int, Event]]) -> list[Any]:
    """What a store says that took each record in a call of its own, and one that took all at once."""
    found = []
    for calls in ([[fact] for fact in facts], [facts]):
        store = open_store()
        counts = sum((store.pass_on(call)[1] for call in calls), Counter())
        rows = store.connection.execute(select(conversions).order_by(conversions.c.seq)).all()
        found.append((+counts, store.seq, [tuple(row) for row in rows]))
    return found


def test_metadata_that_repeats_what_was_replaced(open_store: Open) -> None:
    """Only what repeats the newest metadata is a duplicate, whether the records pass at once or one by one."""
    facts: list[tuple[int, Event]] = [
        (T0 + n, Item(item_id="a", at=at)) for n, at in enumerate((T0, T0 + 5, T0, T0 + 5))
    ]
    one, other = one_by_one_and_at_once(open_store, facts)
    assert one == other == (Counter(items=3, duplicates=1), 3, [])


def test_past_the_window_is_judged_when_it_passes(open_store: Open) -> None:
    """A late impression takes a conversion that came past the window of an earlier one; that one is counted all the same."""
    touch, at = {"user_id": "u", "item_id": "a"}, T0 + WINDOW + HOUR
    facts: list[tuple[int, Event]] = [
        (T0, impression("long ago", T0, **touch)),
        (at, purchase("c", at, **touch)),
        (at + HOUR, impression("late", at - HOUR, **touch)),
    ]
    one, other = one_by_one_and_at_once(open_store, facts)
    assert one == other
    assert one[0]["past_window"] == 1


def test_a_second_retraction_changes_nothing() -> None:
    """A conversion stays taken back from when it first was, also where that retraction is past the horizon."""
    store = LabelStore("sqlite://", {"purchase": WINDOW}, 3 * DAY)
    back = Adjustment(event_id="first", at=T0, conversion_id="c", action="retract")
    store.pass_on([(T0, back)])
    store.pass_on([(T0 + 2 * DAY, purchase("c", T0 + 2 * DAY, impression_id="i"))])
    store.forget_before(T0 + 4 * DAY)
    store.pass_on([(T0 + 4 * DAY, back.model_copy(update={"event_id": "again"}))])
    assert store.connection.execute(select(conversions.c.retracted_at)).scalar() == T0 + 2 * DAY


def test_hours_of_many_years_at_once(open_store: Open) -> None:
    """Metrics of more hours than a statement has parameters are added to those that are there."""
    store, learned = open_store(), {hour: ledger.Hour(2, 1, 0.5, 0.25) for hour in range(70_000)}
    for _ in range(2):
        ledger.add_metrics(store.connection, "pq", learned)
    ledger.add_metrics(store.connection, "fsiw", {7: ledger.Hour(1, 0, 0.5, 0.25)})
    found = ledger.read_metrics(store.connection)
    assert found["fsiw"] == {7: ledger.Hour(1, 0, 0.5, 0.25)}
    assert found["pq"] == dict.fromkeys(learned, ledger.Hour(4, 2, 1.0, 0.5))


def test_a_whole_catalogue_at_once() -> None:
    """Metadata of more products than a statement may have parameters passes in one call."""
    store = LabelStore("sqlite://", {"purchase": WINDOW}, FOREVER)
    driver: Any = store.connection.connection.driver_connection
    driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 6000)
    catalogue: list[tuple[int, Event]] = [(T0, Item(item_id=f"p{n}", at=T0)) for n in range(10_000)]
    assert store.pass_on(catalogue)[1]["items"] == len(catalogue)
    store.close()


def test_an_outcome_does_not_know_what_comes_after_it(open_store: Open) -> None:
    """A conversion told before the first look is told as it was then, although it was taken back by the first look."""
    facts: list[tuple[int, Event]] = [
        (T0, impression("i", T0)),
        (T0 + HOUR, purchase("c", T0 + HOUR, impression_id="i")),
        (T0 + 2 * HOUR, Adjustment(event_id="a", at=T0 + 2 * HOUR, conversion_id="c", action="retract")),
    ]
    at_once, cut = (passed(open_store(), facts, cuts) for cuts in ([], [T0 + 2 * HOUR]))
    assert at_once == cut == Oracle(facts, SCHEDULES, WINDOW).looks
    assert (T0 + HOUR, 1, Look.CONVERSION, 0, 0, 1, 1, 0, 0, HOUR, 0, T0, 0) in cut


@pytest.mark.parametrize(("of", "keys"), [(within(impressions.c.seq), seqs([1])), (named(items.c.id), names(["a"]))])
def test_keys_are_looked_up_in_sqlite(of: ColumnElement[bool], keys: dict[str, Any]) -> None:
    """A list of keys is searched for by the table's own key; as a truth value, (.. IN ..) = 1, it would scan the table."""
    with closing(LabelStore("sqlite://", {"purchase": DAY}, FOREVER)) as store:
        query = select(func.count()).where(of).compile(dialect=store.engine.dialect)
        plan = store.connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {query}", (to_json(*keys.values()).decode(),)
        ).all()
    assert any(row.detail.startswith("SEARCH") for row in plan), plan
