"""Pairs of products: what the table says at a midnight is the sum over what is known by then, computed here by loops."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from labelstore import item_pairs, pair_counts, tables
from labelstore.bulk import insert_rows
from labelstore.events import Adjustment, Conversion, Event, Impression, Signal
from labelstore.item_pairs import CO_PURCHASE, CO_VIEW, LEAST, Rules, close_day, load
from labelstore.retention import DAY
from labelstore.store import LabelStore
from oracle import Known, in_order, read
from stores import FOREVER, Open
from strategies import HOUR, T0, lines
from stream.sources import Record

RULES = Rules(window=2 * DAY, half_life=3 * DAY)
DAYS = 9
Weights = dict[tuple[str, str, str], float]

products = st.sampled_from(["a", "b", "c", "d"])
hours = st.integers(0, 7 * 24)


@st.composite
def shown(draw: st.DrawFn) -> dict[str, Any]:
    event = {"type": "impression", "impression_id": f"i{draw(st.integers(0, 3))}", "features": {}}
    return event | {
        "at": T0 + draw(hours) * HOUR // 4,
        "user_id": draw(st.sampled_from(["u", "v"])),
        "item_id": draw(products),
    }


def or_named(draw: st.DrawFn, event: dict[str, Any]) -> dict[str, Any]:
    """Now and then an impression in place of user and product."""
    if draw(st.integers(0, 3)):
        return event
    rest = {name: value for name, value in event.items() if name not in ("user_id", "item_id")}
    return rest | {"impression_id": f"i{draw(st.integers(0, 3))}"}


@st.composite
def bought(draw: st.DrawFn) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "conversion", "kind": "purchase", "event_id": f"c{draw(st.integers(0, 30))}"}
    basket = draw(st.sampled_from([None, None, "k1", "k2"]))
    event |= {"at": T0 + draw(hours) * HOUR, "user_id": draw(st.sampled_from(["u", "v"])), "item_id": draw(products)}
    return or_named(draw, event | ({"basket_id": basket} if basket else {}))


@st.composite
def clicked(draw: st.DrawFn) -> dict[str, Any]:
    event = {"type": "signal", "kind": draw(st.sampled_from(["click", "click", "cart"]))}
    event |= {"event_id": f"s{draw(st.integers(0, 30))}", "item_id": draw(products), "user_id": "u"}
    session = draw(st.sampled_from([None, "x", "y"]))
    at = {"at": T0 + draw(hours) * HOUR // 4}
    return or_named(draw, event | at | ({"session_id": session} if session else {}))


@st.composite
def taken_back(draw: st.DrawFn) -> dict[str, Any]:
    event = {"type": "adjustment", "action": "retract", "event_id": f"a{draw(st.integers(0, 9))}"}
    return event | {"conversion_id": f"c{draw(st.integers(0, 30))}", "at": T0 + draw(hours) * HOUR}


events = st.lists(st.one_of(bought(), bought(), clicked(), taken_back(), shown()), min_size=2, max_size=40)
"""A partition in any order: much of it comes late."""


def known(log: Sequence[dict[str, Any]]) -> list[Known]:
    return in_order(read([Record("events", 0, n, None, None, line) for n, line in enumerate(lines(list(log)))]))


def count(store: LabelStore, facts: Sequence[tuple[int, Event]], days: int = DAYS, rules: Rules = RULES) -> Weights:
    """Records pass day by day; the table at the last midnight."""
    for day in range(days):
        start, stop, first = T0 + day * DAY, T0 + (day + 1) * DAY, store.seq
        store.pass_on([(k, e) for k, e in facts if start <= k < stop])
        close_day(store.connection, stop, first, store.keep, rules)
    return {(p.kind, p.source, p.target): p.weight for p in load(store.connection, T0 + days * DAY, rules.half_life)}


def live(facts: Sequence[Known]) -> list[Event]:
    """Conversions that stand and clicks, each id once, in the order in which they passed; those that name an impression
    with its user and product, if it passed before."""
    back = {e.conversion_id for _, e, *_ in facts if isinstance(e, Adjustment)}
    found: dict[tuple[type, str], Signal | Conversion] = {}
    places: dict[str | None, Impression] = {}
    for _, event, *_ in facts:
        if isinstance(event, Impression):
            places.setdefault(event.impression_id, event)
        if isinstance(event, (Conversion, Signal)):
            of = None if event.item_id else places.get(event.impression_id)
            names = {"user_id": of.user_id, "item_id": of.item_id} if of else {}
            found.setdefault((type(event), event.event_id), event.model_copy(update=names))
    return [e for e in found.values() if e.item_id and (not isinstance(e, Conversion) or e.event_id not in back)]


def earliest(v: Any, among: Sequence[Any]) -> int:
    """How far v looks back, as its last records before it say."""
    times = sorted((e.at for e in among if e.at <= v.at), reverse=True)
    return times[pair_counts.RECENT] if len(times) > pair_counts.RECENT else 0


def of_its_time(v: Any, among: Sequence[Any]) -> set[int]:
    """Places of those that v looks at among all of its own time: as many before it as after it, in the order they passed."""
    times = [n for n, e in enumerate(among) if e.at == v.at]
    here = times.index(next(n for n, e in enumerate(among) if e is v))
    return set(times[max(0, here - pair_counts.RECENT) : here + pair_counts.RECENT + 1])


def looks_back(v: Any, u: Any) -> bool:
    if u.item_id == v.item_id or u.user_id != v.user_id or abs(u.at - v.at) > RULES.window:
        return False
    same = u.at == v.at or (u.basket_id is not None and u.basket_id == v.basket_id)
    return bool(same or u.at < v.at)


def views(clicks: Sequence[Any], place: int) -> list[Any]:
    """The clicks before one, in its session or near it."""
    v, found = clicks[place], []
    of = "session_id" if v.session_id else "user_id"
    mine = [u for u in clicks if getattr(u, of) == getattr(v, of) and bool(u.session_id) == bool(v.session_id)]
    begin, same = earliest(v, mine), [mine[n] for n in sorted(of_its_time(v, mine))]
    for n, u in enumerate(clicks):
        near = (v.session_id or v.at - u.at <= item_pairs.TOGETHER) and (u.at != v.at or any(u is w for w in same))
        if (u.at, n) < (v.at, place) and u in mine and near and u.at >= begin and u.item_id != v.item_id:
            found.append(u)
    return found


def expected(facts: Sequence[Known], end: int) -> Weights:
    """The sum of the docstring, over all that stands at the end."""
    standing, total = live(facts), Weights()
    conversions = [e for e in standing if isinstance(e, Conversion)]
    clicks = [e for e in standing if isinstance(e, Signal) and e.kind == "click"]
    looks: list[tuple[str, Any, list[Any]]] = []
    for v in conversions:
        mine = [u for u in conversions if u.user_id == v.user_id]
        begin, same = earliest(v, mine), of_its_time(v, mine)
        near = [u for n, u in enumerate(mine) if u.at >= begin and (u.at != v.at or n in same)]
        looks.append((CO_PURCHASE, v, [u for u in near if looks_back(v, u)]))
    looks += [(CO_VIEW, v, views(clicks, n)) for n, v in enumerate(clicks)]
    for kind, v, before in looks:
        assert v.item_id
        products = {u.item_id for u in before if u.item_id}
        day = v.at - v.at % DAY + DAY
        for product in products:
            ends = (product, v.item_id) if kind == CO_PURCHASE else tuple(sorted((product, v.item_id)))
            pair = (kind, ends[0], ends[1])
            total[pair] = total.get(pair, 0) + 2 ** (-(end - day) / RULES.half_life) / math.sqrt(len(products))
    return total


@given(log=events)
@settings(max_examples=60)
def test_the_table_is_the_sum(open_store: Open, log: list[dict[str, Any]]) -> None:
    """However late records come and whatever is taken back: at the end it is the sum over what stands."""
    check_sum(open_store, log)


@given(log=events)
@settings(max_examples=40)
def test_a_user_who_buys_on_and_on_is_looked_at_for_a_while(open_store: Open, log: list[dict[str, Any]]) -> None:
    """The same where a record looks back at the last two of its user or session, and those of the same time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_counts, "RECENT", 2)
        for name, by, ordered in (("_BOUGHT", "user_id", True), ("_IN_SESSION", "session_id", False)):
            patch.setattr(item_pairs, name, pair_counts.counts(by, ordered=ordered))
        patch.setattr(item_pairs, "_BY_USER", pair_counts.counts("user_id", ordered=False))
        check_sum(open_store, log)


@pytest.mark.parametrize(("names", "seq"), [(1, 0), (-1, 0), (1, 2_000_000_000), (-1, 2**32 - 40)])
def test_a_large_basket_has_no_direction(open_store: Open, names: int, seq: int) -> None:
    """Of sixty products bought at once each has pairs, nearly all of them both ways, whatever they are called and however
    many records have passed."""
    log = [
        {"type": "conversion", "kind": "purchase", "event_id": f"c{n:02}", "user_id": "u", "at": T0, "basket_id": "k",
         "item_id": f"p{names * n:03}"}
        for n in range(60)
    ]  # fmt: skip
    store = open_store()
    store.seq = seq
    found = {pair[1:] for pair in count(store, [(k.known_at, k.event) for k in known(log)], 1)}
    assert len(found) == 60 * pair_counts.NEAREST
    assert {source for source, _ in found} == {target for _, target in found} == {event["item_id"] for event in log}
    one_way = [(u, v) for u, v in found if (v, u) not in found]
    assert len(one_way) < 0.05 * len(found)


def test_the_last_hundred_are_looked_at(open_store: Open) -> None:
    """What was bought before the last hundred is not; and a pair that has all but faded is seen again in time."""
    for among, found in ((99, 2), (100, 1)):
        log = [{"at": T0 + n * 1000, "item_id": "a"} for n in range(1, among + 1)]
        log = [{"at": T0, "item_id": "x"}, *log, {"at": T0 + HOUR, "item_id": "b"}]
        for n, event in enumerate(log):
            event |= {"type": "conversion", "kind": "purchase", "event_id": f"c{n}", "user_id": "u"}
        weights = count(open_store(), [(k.known_at, k.event) for k in known(log)], 1)
        assert len([pair for pair in weights if pair[2] == "b"]) == found


@pytest.mark.parametrize("kind", [CO_PURCHASE, CO_VIEW])
def test_a_pair_that_fades_is_seen_again(open_store: Open, kind: str) -> None:
    """On the day on which it would be dropped, what is added adds to it."""
    event = {"type": "signal", "kind": "click"} if kind == CO_VIEW else {"type": "conversion", "kind": "purchase"}
    lasts = int(RULES.half_life / DAY * math.log2(1 / LEAST))
    log = [
        event | {"at": T0 + day * DAY + n * 60_000, "event_id": f"{day}.{n}", "user_id": f"u{day}", "item_id": item}
        for day in (0, 1 + lasts)
        for n, item in enumerate("ab")
    ]
    weights = count(open_store(keep=FOREVER), [(k.known_at, k.event) for k in known(log)], 2 + lasts)
    assert weights == {(kind, "a", "b"): pytest.approx(1 + 2 ** (-(1 + lasts) * DAY / RULES.half_life))}


def check_sum(open_store: Open, log: list[dict[str, Any]]) -> None:
    facts = known(log)
    found, end = count(open_store(keep=FOREVER), [(k.known_at, k.event) for k in facts]), T0 + DAYS * DAY
    wanted = expected(facts, end)
    for pair in found.keys() | wanted.keys():
        assert found.get(pair, 0.0) == pytest.approx(wanted.get(pair, 0.0), abs=2 * LEAST), (pair, found, wanted)
    for pair, weight in found.items():
        assert weight == pytest.approx(wanted.get(pair, 0.0), abs=LEAST)


def test_what_is_light_goes(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source with too many pairs keeps the heaviest; and what has decayed is dropped at its midnight, not before."""
    monkeypatch.setattr(item_pairs, "MOST", 3)
    monkeypatch.setattr(item_pairs, "HEAVIEST", 2)
    log = [{"at": T0 + n * HOUR, "user_id": f"u{n // 2}"} for n in range(12)]
    for n, event in enumerate(log):
        event |= {"type": "conversion", "kind": "purchase", "event_id": f"c{n}"}
        event["item_id"] = "a" if n % 2 == 0 else f"b{min(n // 2, 4)}"  # b4 twice
    facts = [(k.known_at, k.event) for k in known(log)]
    assert count(open_store(), facts, 1) == {("co-purchase", "a", "b0"): 1.0, ("co-purchase", "a", "b4"): 2.0}
    lasts = int(RULES.half_life / DAY * math.log2(1 / LEAST))
    assert len(count(open_store(), facts, 1 + lasts)) == 2
    assert len(count(open_store(), facts, 2 + lasts)) == 1


def test_what_cannot_be_counted_again_stays(open_store: Open) -> None:
    """A purchase is taken back when what it looked back at is deleted: its pairs stay, and those of others as well."""
    bought_ = [("u", "a", 0), ("u", "b", 36), ("u", "c", 44), ("v", "b", 130), ("v", "c", 131)]
    log: list[dict[str, Any]] = [
        {
            "type": "conversion",
            "kind": "purchase",
            "event_id": f"c{n}",
            "user_id": user,
            "item_id": item,
            "at": T0 + at * HOUR,
        }
        for n, (user, item, at) in enumerate(bought_)
    ]
    back = {"type": "adjustment", "action": "retract", "event_id": "x", "conversion_id": "c2", "at": T0 + 150 * HOUR}
    facts = [(k.known_at, k.event) for k in known([*log, back])]
    weights = count(open_store(keep=5 * DAY), facts)
    kept = count(open_store(keep=5 * DAY), [fact for fact in facts if not isinstance(fact[1], Adjustment)])
    assert weights == kept
    others = 2 ** (-(T0 + DAYS * DAY - (T0 + 6 * DAY)) / RULES.half_life)
    assert weights[CO_PURCHASE, "b", "c"] > others


@pytest.mark.parametrize("hub", ["a", "z"])
def test_a_product_viewed_with_many_keeps_the_heaviest_whatever_it_is_called(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    """A co-view is kept under the smaller id, and counts for both ends."""
    monkeypatch.setattr(item_pairs, "MOST", 3)
    monkeypatch.setattr(item_pairs, "HEAVIEST", 2)
    log = [
        {"type": "signal", "kind": "click", "event_id": f"{n}.{item}", "user_id": f"u{n}", "item_id": item,
         "at": T0 + n * HOUR + k}
        for n in range(6) for k, item in enumerate((hub, f"m{min(n, 4)}"))
    ]  # fmt: skip
    weights = count(open_store(keep=FOREVER), [(k.known_at, k.event) for k in known(log)], 1)
    assert {other for _, *ends in weights for other in ends if other != hub} == {"m0", "m4"}


def test_many_products_with_too_many_pairs_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps the heaviest of what those before it have left; how many they are costs no more queries."""
    monkeypatch.setattr(item_pairs, "MOST", 3)
    monkeypatch.setattr(item_pairs, "HEAVIEST", 2)
    asked = []
    for hubs in (1, 3):
        store = LabelStore("sqlite://", {"purchase": DAY}, FOREVER)
        rows = [
            (CO_VIEW, f"h{hub}", other, 1.0 + (7 * n + hub) % 11, T0, T0, T0 + 90 * DAY)
            for hub in range(hubs)
            for n, other in enumerate([*(f"h{k}" for k in range(hub + 1, hubs)), *(f"m{k}" for k in range(5))])
        ]
        insert_rows(store.connection, tables.item_pairs, item_pairs.COLUMNS, rows)
        expected = {row[1:3]: row[3] for row in rows}
        for hub in [f"h{k}" for k in range(hubs)]:
            mine = sorted((pair for pair in expected if hub in pair), key=lambda pair: (-expected[pair], pair))
            for pair in mine[2:]:
                del expected[pair]
        queries: list[str] = []
        sqlalchemy.event.listen(store.engine, "before_cursor_execute", lambda *told, to=queries: to.append(told[2]))
        item_pairs._cap(store.connection, CO_VIEW, {name for row in rows for name in row[1:3]}, RULES.half_life)
        asked.append(len(queries))
        assert {(p.source, p.target) for p in load(store.connection, T0, RULES.half_life)} == set(expected)
        store.close()
    assert asked[0] == asked[1]
