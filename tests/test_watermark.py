"""Event time is defined per partition, whatever the order of reading; records pass in one order."""

from hypothesis import given
from hypothesis import strategies as st

from labelstore.events import RANK, Conversion, Event, Impression, Item, Signal, identity
from labelstore.ledger import Waiting
from strategies import T0
from stream.sources import Partition, Record
from stream.waiting import WaitingRoom
from stream.watermark import BEGINNING, Watermark

PLACES = [Partition("events", n) for n in range(3)]
times = st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 60)), max_size=60)


@given(times, st.integers(0, 20), st.randoms())
def test_known_at_does_not_depend_on_the_interleaving(
    records: list[tuple[Partition, int]], lateness: int, random: object
) -> None:
    """known_at is max(at, largest at of the partition before it, less the lateness), in any interleaving."""
    expected = {}
    for place in PLACES:
        mine = [at for p, at in records if p == place]
        for n, at in enumerate(mine):
            expected[place, n] = max([at, *(before - lateness for before in mine[:n])])
    queues = {place: [at for p, at in records if p == place] for place in PLACES}
    clocks, done = Watermark(PLACES, lateness), dict.fromkeys(PLACES, 0)
    while any(queues.values()):
        place = random.choice([p for p in PLACES if queues[p]])  # type: ignore[attr-defined]
        watermark = clocks.value
        known_at, late = clocks.read(place, at := queues[place].pop(0))
        assert known_at == expected[place, done[place]]
        assert late == (known_at > at)
        assert known_at >= watermark
        done[place] += 1


@given(times)
def test_the_watermark_never_falls_back(records: list[tuple[Partition, int]]) -> None:
    """It is the slowest clock, also after partitions were taken for exhausted and go on."""
    clocks, last = Watermark(PLACES, 0), BEGINNING
    for n, (place, at) in enumerate(records):
        clocks.read(place, at)
        clocks.exhaust(frozenset(PLACES[:1]) if n % 3 else frozenset())
        assert clocks.value >= last
        last = clocks.value


@given(times)
def test_a_restored_watermark_goes_on(records: list[tuple[Partition, int]]) -> None:
    """After state and restore, further records get the same known_at."""
    one = Watermark(PLACES, 3)
    for place, at in records:
        one.read(place, at)
    other = Watermark(PLACES, 3)
    state = one.state()
    other.restore(state["clocks"], state["latest"], state["watermark"])  # type: ignore[arg-type]
    assert other.value == one.value
    for place, at in records[::-1]:
        assert one.read(place, at) == other.read(place, at)
    assert one.finish() == other.finish()


def test_a_finished_log_is_past_its_last_record() -> None:
    """At the end the watermark is the largest `at` + 1 ms."""
    clocks = Watermark(PLACES, 10)
    clocks.read(PLACES[0], T0)
    assert clocks.finish() == T0 + 1
    assert clocks.slowest() == frozenset(PLACES)


def entries() -> list[tuple[Record, Event, int]]:
    """Records that tie in every way but one."""
    events: list[Event] = [
        Conversion(event_id="x", kind="k", at=T0, impression_id="i"),
        Signal(event_id="x", kind="k", at=T0, impression_id="i"),
        Impression(impression_id="b", at=T0),
        Impression(impression_id="a", at=T0),
        Impression(impression_id="a", at=T0),
        Item(item_id="z", at=T0),
        Conversion(event_id="y", kind="k", at=T0 - 1, impression_id="i"),
    ]
    found = []
    for offset, event in enumerate(events):
        found.append((Record("events", 0, offset, None, None, event.model_dump_json().encode()), event, event.at))
    return found


@given(st.permutations(entries()))
def test_records_pass_in_one_order(shuffled: list[tuple[Record, Event, int]]) -> None:
    """(known_at; item, impression, signal, conversion; id; offset), in whatever order they came to wait."""
    room = WaitingRoom()
    for record, event, known_at in shuffled:
        room.add(record, event, known_at)
    passed = [(known_at, RANK[type(event)], identity(event)) for known_at, event in room.take(T0 + 1)]
    assert passed == sorted(passed)
    assert len(passed) == len(shuffled)
    assert len(room) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, 30)), max_size=40))
def test_commits_keep_what_waits(steps: list[tuple[int, bool, int]]) -> None:
    """Over any commits, what the commits have and has not passed is exactly what waits."""
    room, saved, passed = WaitingRoom(), list[Waiting](), 0
    for offset, (at, commit, until) in enumerate(steps):
        event = Item(item_id=f"{offset}", at=T0 + at)
        known_at = max(T0 + at, T0 + passed)
        room.add(Record("events", 0, offset, None, None, event.model_dump_json().encode()), event, known_at)
        passed = max(passed, until)
        room.take(T0 + passed)
        if commit:
            saved = [row for row in saved if row.known_at >= T0 + passed] + room.unsaved()
            again = WaitingRoom()
            again.restore(saved)
            assert len(again) == len(room)
            assert again.first() == room.first()
            assert again.unsaved() == []
