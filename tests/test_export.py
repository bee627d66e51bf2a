"""The joined table as of a moment: what each column says, and that nothing of the future is in it."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_join
from labelstore.events import Adjustment, Conversion, Event, Impression, Signal
from labelstore.export import PAGE, Joined, Row
from labelstore.store import LabelStore
from oracle import Oracle
from stores import WINDOW, Open
from strategies import DAY, HOUR, T0, lines, logs
from stream.export import COLUMNS, GRAPH, writing
from stream.files import FileSource
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import ListSource, Partition, Source
from stream.watermark import Watermark
from stream.workspace import opened
from test_loop import EVENTS, split
from test_store import facts_of, impression, purchase

FOREVER = 400 * DAY
PLAIN = Settings(methods=("vanilla",), window=2 * DAY, wait=5 * HOUR, keep=FOREVER)
LATE = T0 + 100 * DAY  # long after everything is settled
Log = dict[tuple[str, int], list[bytes]]


@pytest.fixture
def store(open_store: Open) -> LabelStore:
    return open_store()


def rows(store: LabelStore, as_of: int = LATE, learners: int = 0) -> list[Row]:
    joined = Joined(store.connection, "purchase", WINDOW, as_of, learners)
    found = [row for page in joined.pages() for row in page]
    assert joined.size() == len(found)
    return found


def one(store: LabelStore, as_of: int = LATE) -> Row:
    (found,) = rows(store, as_of)
    return found


def cart(name: str, at: int) -> Signal:
    return Signal(event_id=name, kind="cart", at=at, impression_id="i")


def bought(name: str, at: int, value: float | None = None) -> tuple[int, Conversion]:
    return at, purchase(name, at, impression_id="i", value=value)


def restated(name: str, at: int, of: str, value: float) -> tuple[int, Adjustment]:
    return at, Adjustment(event_id=name, at=at, conversion_id=of, action="restate", value=value)


def retracted(name: str, at: int, of: str) -> tuple[int, Adjustment]:
    return at, Adjustment(event_id=name, at=at, conversion_id=of, action="retract")


SHOWN: tuple[int, Event] = (T0, impression("i", T0))


# every column ----------------------------------------------------------------------------------------------------


def test_what_was_shown(store: LabelStore) -> None:
    """Ids, event time and features are those of the impression, features as JSON."""
    store.pass_on([(T0 + 9, impression("i", T0 + 5, user_id="u", item_id="a", features={"x": 1.5, "tags": ["b"]}))])
    found = one(store)
    assert found[:4] == ("i", "u", "a", T0 + 5)
    assert json.loads(found.features) == {"x": 1.5, "tags": ["b"]}


def test_an_impression_is_there_once_it_was_known(store: LabelStore) -> None:
    """Impressions known before T are rows; one known at T is not, whenever it was shown."""
    store.pass_on([(T0 + 7, impression("i", T0))])
    assert rows(store, T0 + 7) == []
    assert one(store, T0 + 8).impression_id == "i"


def test_the_label_is_what_was_known(store: LabelStore) -> None:
    """A conversion makes the label 1 from the moment after it was known, and so its delay, from the impression on."""
    store.pass_on([SHOWN])
    store.pass_on([(T0 + 9, purchase("c", T0 + 3, impression_id="i"))])
    assert one(store, T0 + 9)[4:6] == (0, None)
    assert one(store, T0 + 10)[4:6] == (1, 9)


def test_a_conversion_is_known_with_its_impression(store: LabelStore) -> None:
    """A conversion that passed before its impression is known when the impression is."""
    store.pass_on([bought("c", T0 + 3)])
    store.pass_on([(T0 + 8, impression("i", T0))])
    assert one(store, T0 + 9)[4:6] == (1, 8)


def test_the_label_stands_at_the_close(store: LabelStore) -> None:
    """A conversion known at the close counts, one known after it does not, nor does a retraction after it."""
    close = T0 + WINDOW
    store.pass_on([SHOWN, (T0, impression("j", T0))])
    store.pass_on([bought("c", close), (close + 1, purchase("d", close, impression_id="j"))])
    store.pass_on([retracted("a", close + 1, "c")])
    assert [row.label for row in rows(store)] == [1, 0]


def test_an_impression_known_after_its_window_closes_then(store: LabelStore) -> None:
    """The close of an impression known after its window is the moment it was known."""
    known = T0 + WINDOW + DAY
    store.pass_on([bought("c", T0 + 3)])
    store.pass_on([(known, impression("i", T0))])
    assert one(store, known + 1)[4:7] == (1, known - T0, True)


def test_a_retraction_takes_the_label_back(store: LabelStore) -> None:
    """Known before T and by the close, a retraction leaves no label, delay or value; before it was known they stand."""
    store.pass_on([SHOWN, bought("c", T0 + 3, 5.0), retracted("a", T0 + 9, "c")])
    assert one(store, T0 + 9)[4:8] == (1, 3, False, 5.0)
    assert one(store, T0 + 10)[4:8] == (0, None, False, None)


def test_one_of_two_is_taken_back(store: LabelStore) -> None:
    """Delay and value are of the conversions that still make the label: one that was taken back counts for nothing."""
    store.pass_on([SHOWN, bought("c", T0 + 3, 5.0), retracted("a", T0 + 9, "c"), bought("d", T0 + 20, 7.0)])
    assert one(store)[4:6] == (1, 20)
    assert one(store).value == 7.0


def test_settled_is_when_the_close_lies_before_t(store: LabelStore) -> None:
    """A window that closes at T is still open as of T."""
    store.pass_on([SHOWN])
    assert not one(store, T0 + WINDOW).settled
    assert one(store, T0 + WINDOW + 1).settled


def test_values_are_summed(store: LabelStore, open_store: Open) -> None:
    """The value is the sum over the conversions that make the label; none where none of them has one."""
    store.pass_on([SHOWN, bought("c", T0 + 1, 2.5), bought("d", T0 + 2, 4.0), bought("e", T0 + 3)])
    assert [one(store, T0 + n).value for n in (1, 2, 3, 4)] == [None, 2.5, 6.5, 6.5]
    other = open_store()
    other.pass_on([SHOWN, bought("c", T0 + 1)])
    assert one(other)[4:8] == (1, 1, True, None)


def test_the_newest_restatement_counts(store: LabelStore) -> None:
    """Of the restatements known before T the last to pass gives the value, also after the close; of equal times the
    one that passed later. Its own event time does not matter."""
    store.pass_on([SHOWN, bought("c", T0 + 1, 2.0), restated("a", T0 + 5, "c", 3.0), restated("b", T0 + 5, "c", 4.0)])
    store.pass_on([(T0 + 9, Adjustment(event_id="d", at=T0, conversion_id="c", action="restate", value=5.0))])
    store.pass_on([restated("e", T0 + 9 * DAY, "c", 0.0)])
    assert [one(store, T0 + n).value for n in (2, 5, 6, 9, 10)] == [2.0, 2.0, 4.0, 4.0, 5.0]
    assert one(store, T0 + 9 * DAY).value == 5.0
    assert one(store, T0 + 9 * DAY + 1).value == 0.0


def test_a_restatement_makes_no_conversion(store: LabelStore) -> None:
    """What is restated has the new value only where it makes the label; a value may come by restatement alone."""
    store.pass_on([SHOWN, restated("a", T0 + 1, "c", 3.0)])
    assert one(store)[4:8] == (0, None, True, None)
    store.pass_on([bought("c", T0 + 2)])
    assert one(store).value == 3.0


def test_other_kinds_of_conversion_do_not_count(open_store: Open) -> None:
    """Only the target kind makes labels, also where the store has credited another."""
    both = open_store({"purchase": WINDOW, "basket": WINDOW})
    both.pass_on([SHOWN, (T0 + 1, Conversion(event_id="b", kind="basket", at=T0 + 1, impression_id="i", value=9.0))])
    assert one(both)[4:8] == (0, None, True, None)


def test_signals_are_counted_by_kind(store: LabelStore) -> None:
    """Signals known before T, kind by kind, in the order of their names; also those known after the close."""
    click = Signal(event_id="k", kind="click", at=T0 + 1, impression_id="i")
    store.pass_on([SHOWN, (T0 + 1, click), (T0 + 2, cart("s", T0 + 2)), (T0 + 5, cart("t", T0 + 3))])
    store.pass_on([(LATE - 1, cart("u", T0 + 4))])
    assert [one(store, T0 + n).signals for n in (1, 3, 6)] == [{}, {"cart": 1, "click": 1}, {"cart": 2, "click": 1}]
    assert list(one(store).signals.items()) == [("cart", 3), ("click", 1)]


def test_scores_are_as_they_were_given(store: LabelStore) -> None:
    """Each learner's score stands at its number; none where it gave none."""
    shown, _ = store.pass_on([SHOWN, (T0, impression("j", T0))])
    seqs = np.array([row.seq for row in shown])
    store.keep_predictions(0, seqs, np.array([0.25, 0.5]), 1)
    store.keep_predictions(1, seqs[1:], np.array([0.125]), 1)
    assert [row.scores for row in rows(store, learners=2)] == [(0.25, None), (0.5, 0.125)]


def test_rows_come_page_by_page_in_the_order_of_passing(store: LabelStore) -> None:
    """Rows are in the order in which impressions passed, at most a page at a time, each with what is its own."""
    count = PAGE + 500
    facts: list[tuple[int, Event]] = [(T0 + n, impression(f"i{count - n}", T0)) for n in range(count)]
    facts += [(T0 + count, purchase(f"c{n}", T0, impression_id=f"i{n}", value=float(n))) for n in range(1, count, 7)]
    store.pass_on(facts)
    pages = list(Joined(store.connection, "purchase", WINDOW, LATE, 0).pages())
    assert [len(page) for page in pages] == [PAGE, 500]
    found = [row for page in pages for row in page]
    assert [row.impression_id for row in found] == [f"i{count - n}" for n in range(count)]
    numbers = [int(row.impression_id[1:]) for row in found]
    assert [row.value for row in found] == [float(n) if n % 7 == 1 else None for n in numbers]


# nothing of the future -------------------------------------------------------------------------------------------


def valued(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Conversions and restatements get values of their own; some conversions none."""
    found = []
    for n, event in enumerate(events):
        worth = (event["type"] == "conversion" and n % 5) or event.get("action") == "restate"
        found.append(event | {"value": n + 0.5} if worth else event)
    return found


def naive(facts: list[tuple[int, Event]], as_of: int) -> list[Row]:
    """The table by loops over lists, from facts that were all known before T."""
    oracle = Oracle(facts, (), WINDOW)
    found = []
    for place, known_at, event in oracle.shown:
        assert isinstance(event, Impression)
        close = max(event.at + WINDOW, known_at)
        standing = list(_standing(oracle, place, min(as_of - 1, close)))
        values = [value for _, value in standing if value is not None]
        seen = Counter(
            e.kind for n, (_, e) in enumerate(oracle.facts) if isinstance(e, Signal) and _of(oracle, n, place)
        )
        found.append(
            Row(
                event.impression_id,
                event.user_id,
                event.item_id,
                event.at,
                int(bool(standing)),
                min(known for known, _ in standing) - event.at if standing else None,
                close < as_of,
                sum(values) if values else None,
                dict(seen),
                json.dumps(event.features, separators=(",", ":")),
                (),
            )
        )
    return found


def _of(oracle: Oracle, event: int, shown: int) -> bool:
    return oracle.credited.get(event) == shown


def _standing(oracle: Oracle, shown: int, until: int) -> Iterator[tuple[int, float | None]]:
    """(known, value) of the purchases of an impression that make its label."""
    changes = [(k, e) for k, e in oracle.facts if isinstance(e, Adjustment)]
    for place, (known_at, event) in enumerate(oracle.facts):
        if isinstance(event, Conversion) and event.kind == "purchase" and _of(oracle, place, shown):
            credited_at = max(known_at, oracle.facts[shown][0])
            mine = [(k, e) for k, e in changes if e.conversion_id == event.event_id]
            back = min((max(k, known_at) for k, e in mine if e.action == "retract"), default=until + 1)
            if credited_at <= until < back:
                yield credited_at, ([event.value] + [e.value for _, e in mine if e.action == "restate"])[-1]


@settings(max_examples=80)
@given(logs, st.integers(0, 12 * 24).map(lambda hours: T0 + hours * HOUR + hours % 2))
def test_the_table_equals_a_naive_one(open_store: Open, events: list[dict[str, Any]], as_of: int) -> None:
    """As of any moment, the table of the whole store is what loops over the records known before it find."""
    facts = facts_of(valued(events))
    store = open_store()
    store.pass_on(facts)
    assert rows(store, as_of) == naive([fact for fact in facts if fact[0] < as_of], as_of)


def known_at(log: Log, lateness: int) -> dict[tuple[str, int], list[int]]:
    """When each record is known, partition by partition."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, records in log.items():
        clocks = Watermark([Partition(*place)], lateness)
        found[place] = [clocks.read(Partition(*place), json.loads(line)["at"])[0] for line in records]
    return found


def cut(log: Log, as_of: int, lateness: int = 0) -> Log:
    """Each partition up to the last of its records that is known before T."""
    found: Log = {}
    for place, known in known_at(log, lateness).items():
        last = max((n for n, time in enumerate(known) if time < as_of), default=-1)
        found[place] = log[place][: last + 1]
    return found


def dropped(log: Log, as_of: int, lateness: int = 0) -> Log:
    """The log without the records known at T or later."""
    known = known_at(log, lateness)
    return {place: [v for v, k in zip(log[place], known[place], strict=True) if k < as_of] for place in log}


def written(source: Source, settings: Settings, moments: Sequence[int], folder: Path) -> list[bytes]:
    """The table in CSV as of each moment, from a store into which the log was replayed."""
    found = []
    with opened(None, settings) as (store, checkpoints):
        Loop(source, settings, store, checkpoints).run()
        for as_of in moments:
            joined = Joined(store.connection, settings.target, settings.window, as_of, len(settings.learners))
            with writing(folder / "t.csv", settings.learners) as put:
                for page in joined.pages():
                    put(page)
            found.append((folder / "t.csv").read_bytes())
    return found


def spread(events: list[dict[str, Any]], parts: int) -> Log:
    """Events over partitions, by their place."""
    found: Log = {("events", n): [] for n in range(parts)}
    for n, line in enumerate(lines(events)):
        found["events", n % parts].append(line)
    return found


def read_csv(content: bytes) -> list[dict[str, Any]]:
    """Cells as values of the column's type."""
    heads, *lines_ = csv.reader(io.StringIO(content.decode(), newline=""))
    kinds: dict[str, Callable[[str], Any]] = {"string": str, "int64": int, "int8": int, "float64": float}
    kinds["bool"] = {"true": True, "false": False}.__getitem__
    types = [kinds[(COLUMNS | GRAPH).get(head, "float64")] for head in heads]
    values = [[of(cell) if cell else None for of, cell in zip(types, line, strict=True)] for line in lines_]
    return [dict(zip(heads, line, strict=True)) for line in values]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@settings(max_examples=15)
@given(logs, st.integers(1, 3), st.integers(0, 12 * 24), st.sampled_from([0, 30 * HOUR]))
def test_any_log_and_the_same_log_cut(
    folder: Path, events: list[dict[str, Any]], parts: int, hours: int, lateness: int
) -> None:
    """As of T, the whole log and the log cut at T give the same bytes, of one partition and of several."""
    log, as_of = spread(valued(events), parts), T0 + hours * HOUR + hours % 2
    settings = PLAIN.model_copy(update={"lateness": lateness})
    shorter = cut(log, as_of, lateness)
    assert lateness or shorter == dropped(log, as_of)
    whole, part = (written(ListSource(one), settings, [as_of], folder) for one in (log, shorter))
    assert whole == part


def mixed(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Out of order by some twenty places."""
    places = np.arange(len(events)) + np.random.default_rng(7).normal(0, 20, len(events))
    return [events[n] for n in np.argsort(places)]


MOMENTS = [T0 + DAY, T0 + 2 * DAY + 7 * HOUR, T0 + 4 * DAY + 1, EVENTS[1500]["at"], EVENTS[1700]["at"] + 1]


@pytest.mark.parametrize(
    ("log", "asked"),
    [
        (split(EVENTS, 1), {"methods": ("settled", "esdfm", "pq_signals")}),
        (split(EVENTS, 4), {}),
        (split(mixed(EVENTS), 3), {}),
        (split(mixed(EVENTS), 3), {"lateness": 2 * HOUR}),
        (split(EVENTS, 2), {"methods": ("pq", "settled"), "pretrain": 2 * DAY, "window": DAY}),
    ],
    ids=["one partition", "four", "disorder", "lateness", "pretraining"],
)
def test_scores_too(tmp_path: Path, log: Log, asked: dict[str, Any]) -> None:
    """Where models have learned, whole and cut logs give the same bytes at five moments, scores included."""
    settings = PLAIN.model_copy(update={"methods": ("pq_signals",)} | asked)
    expected = written(ListSource(log), settings, MOMENTS, tmp_path)
    for as_of, bytes_ in zip(MOMENTS, expected, strict=True):
        shorter = ListSource(cut(log, as_of, settings.lateness))
        assert written(shorter, settings, [as_of], tmp_path) == [bytes_]
    scores = {line.rsplit(b",", 1)[1] for line in expected[-1].splitlines()}
    assert len(scores) > 100


def test_the_oracle_alone_knows_better(tmp_path: Path) -> None:
    """`oracle` has seen final labels: its column is of no moment, all others are."""
    from stream.hindsight import converted

    settings = PLAIN.model_copy(update={"methods": ("vanilla", "oracle")})
    found = []
    for log in (split(EVENTS, 1), cut(split(EVENTS, 1), MOMENTS[1])):
        hindsight = converted(ListSource(log), settings, 5000, lambda read: None)
        with opened(None, settings) as (store, checkpoints):
            Loop(ListSource(log), settings, store, checkpoints, hindsight=hindsight).run()
            found.append(next(Joined(store.connection, "purchase", WINDOW, MOMENTS[1], 2).pages()))
    whole, part = found
    assert [row._replace(scores=()) for row in whole] == [row._replace(scores=()) for row in part]
    assert [row.scores[0] for row in whole] == [row.scores[0] for row in part]
    assert [row.scores[1] for row in whole] != [row.scores[1] for row in part]


def test_dropping_is_not_cutting_where_records_may_be_late(tmp_path: Path) -> None:
    """With a lateness, a record known at T or later may have moved the clock that made a record before T late: so a log
    is cut after its last record known before T, and what lies before it stays."""
    shown = {"type": "impression", "impression_id": "i", "at": T0, "features": {}}
    ahead = {"type": "item", "item_id": "x", "at": T0 + 20 * HOUR, "features": {}}
    sale = {"type": "conversion", "event_id": "c", "kind": "purchase", "at": T0 + 5 * HOUR, "impression_id": "i"}
    log, as_of = {("events", 0): lines([shown, ahead, sale])}, T0 + 15 * HOUR
    late = PLAIN.model_copy(update={"lateness": 10 * HOUR})
    whole, shorter, fewer = (
        written(ListSource(one), late, [as_of], tmp_path)[0].decode().splitlines()[1].split(",")[5]
        for one in (log, cut(log, as_of, 10 * HOUR), dropped(log, as_of, 10 * HOUR))
    )
    assert (whole, shorter, fewer) == ("36000.0", "36000.0", "18000.0")


# real rows ---------------------------------------------------------------------------------------------------------


def test_taobao(data: Path, tmp_path: Path) -> None:
    """The table of 53,052 real impressions equals a naive join of the file, row by row, at its end and as of five
    moments; and there it equals, byte for byte, the table of the log cut at each."""
    from stream.convert import taobao

    source = data / "events" / "taobao_dev_timesorted.csv.gz"
    taobao.convert(source, tmp_path / "log", advance=lambda done, total: None)
    events, log = naive_join.read(source), (tmp_path / "log" / "events" / "0.jsonl").read_bytes().splitlines(True)
    times = [json.loads(line)["at"] for line in log]
    settings = Settings(methods=("vanilla",), window=3 * DAY, wait=HOUR, keep=FOREVER, base_rate=0.02)
    moments = [times[0] + hours * HOUR + 1 for hours in (5, 24, 41, 58, 77)]
    *early, whole = written(FileSource(tmp_path / "log"), settings, [*moments, times[-1] + 1], tmp_path)
    for as_of, content in zip([*moments, times[-1] + 1], [*early, whole], strict=True):
        views = naive_join.join([e for e in events if e.ts * 1000 < as_of], 3 * 86_400, as_of / 1000)
        assert [_view(row) for row in read_csv(content)] == views
    assert (len(views), sum(v.label for v in views), sum(v.settled for v in views)) == (53_052, 587, 32_632)
    for as_of, content in zip(moments, early, strict=True):
        (tmp_path / "cut.jsonl").write_bytes(b"".join(v for v, at in zip(log, times, strict=True) if at < as_of))
        assert written(FileSource(tmp_path / "cut.jsonl"), settings, [as_of], tmp_path) == [content]


def _view(row: dict[str, Any]) -> naive_join.View:
    delay, signals = row["delay_s"], json.loads(row["signals"])
    return naive_join.View(row["impression_id"], row["at"] // 1000, row["label"], delay, row["settled"], signals)
