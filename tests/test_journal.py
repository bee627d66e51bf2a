"""Silence: a live run raises the clocks of silent partitions, writes that down, and a replay that obeys it is the same."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelstore import ledger
from labelstore.ledger import Advance
from labelstore.stats import digest
from strategies import DAY, HOUR, T0, lines, logs
from stream import journal
from stream.files import FileSource
from stream.journal import Journal
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import ListSource, LiveListSource, Partition, Source, SourceError
from stream.watermark import BEGINNING, Watermark
from stream.workspace import opened
from test_loop import EVENTS, split

NOBODY = Settings(window=2 * DAY, wait=5 * HOUR).model_copy(update={"methods": ()})  # facts alone: fast
ONE = Settings(methods=("pq_signals",), window=2 * DAY, wait=5 * HOUR)
A, B, C = (Partition("events", n) for n in range(3))
Log = dict[tuple[str, int], list[bytes]]


class Step(NamedTuple):
    """What happens between two polls: records arrive in a partition, time passes, or the process is killed."""

    partition: int
    records: int
    seconds: int
    killed: bool


class Killed(Exception):
    """The process ends here."""


class End(NamedTuple):
    """Where a run ended: all that it knows, and the journal."""

    facts: str
    learners: list[str]
    watermark: int
    late: int
    journal: list[Advance]


def end(loop: Loop) -> End:
    connection = loop.store.connection
    learners = [learner.trainer.digest() for learner in loop.learners]
    now = loop.reading.clocks.value
    return End(digest(connection), learners, now, loop.counts["late"], ledger.load_journal(connection))


def live(url: str, source: LiveListSource, steps: Iterator[Step], settings: Settings, every: int) -> End | None:
    """One process of a live run: until the steps are over and all is read, or it is killed (None)."""
    done = False

    def told(read: int) -> None:
        nonlocal done
        step = next(steps, None)
        if step is None:
            done = source.positions() == source.end_offsets() and loop.passed == loop.reading.clocks.value
            return
        source.now += step.seconds
        if step.records:
            source.arrive(Partition("events", step.partition), step.records)
        if step.killed:
            raise Killed

    source.seek({})
    with opened(url, settings) as (store, checkpoints):
        loop = Loop(source, settings, store, checkpoints, poll=7, every=every)
        try:
            loop.run(told, lambda: done)
        except Killed:
            return None
        return end(loop)


def lived(url: str, source: LiveListSource, plan: Sequence[Step], settings: Settings = NOBODY, every: int = 5) -> End:
    """A live run through all processes that it takes."""
    steps = iter(plan)
    while (found := live(url, source, steps, settings, every)) is None:
        pass
    return found


def replayed(source: Source, settings: Settings = NOBODY, poll: int = 5000, finished: bool = False) -> End:
    """A replay; unless it is finished, it stops where its log does, without taking that for the end of time."""
    with opened(None, settings) as (store, checkpoints):
        loop = Loop(source, settings, store, checkpoints, poll, finished=finished)
        loop.run()
        return end(loop)


def arrived(log: Log, source: LiveListSource) -> Log:
    """What of a log a live run has seen."""
    return {place: log[place][:count] for place, count in source.end_offsets().items()}


def spread(events: list[dict[str, Any]], parts: int = 3) -> Log:
    """Events in three partitions, in any order."""
    return {("events", n): lines(events[n::parts]) for n in range(parts)}


steps = st.builds(Step, st.integers(0, 2), st.integers(0, 8), st.sampled_from([0, 10, 31, 40]), st.just(False))
deaths = st.builds(Step, st.integers(0, 2), st.just(0), st.just(0), st.just(True))
plans = st.lists(st.one_of(steps, steps, steps, deaths), max_size=25)


@settings(max_examples=5)
@given(logs, plans, st.integers(1, 9), st.booleans())
def test_a_replay_with_the_journal_is_the_live_run(
    events: list[dict[str, Any]], plan: list[Step], poll: int, new: bool
) -> None:
    """Whatever arrives when, whoever is silent, and wherever it is killed: the replay knows the same, known at the same
    event times; so does one that is read in small polls; and both end alike when the log is then taken for finished."""
    log = spread(events)
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        source = LiveListSource(log, later=[C] if new else [])
        found = lived(url, source, plan)
        seen = arrived(log, source)
        assert replayed(ListSource(seen, found.journal)) == found
        assert replayed(ListSource(seen, found.journal), poll=poll) == found
        with opened(url, NOBODY) as (store, checkpoints):
            loop = Loop(ListSource(seen), NOBODY, store, checkpoints)
            loop.run()
            assert end(loop)[:4] == replayed(ListSource(seen, found.journal), poll=poll, finished=True)[:4]


def trickle() -> list[Step]:
    """Partition 2 falls silent for long in the middle, and comes back with what is late by then; one kill on the way."""
    plan = [Step(n % 3, 60, 1, False) for n in range(6)]
    plan += [Step(n % 2, 60, 20, False) for n in range(8)]
    for n in range(8):  # time for small polls to read it all
        plan += [*[Step(0, 0, 0, False)] * 20, Step(n % 2, 60, 20, n == 5)]
    return [*plan, *[Step(0, 0, 0, False)] * 50, Step(2, 500, 0, False)]


def test_the_weights_are_the_same(tmp_path: Path) -> None:
    """A live run in which a silent partition comes back late, and is killed once, learns the bytes of its replay."""
    log = split(EVENTS, 3)
    source = LiveListSource(log)
    found = lived(f"sqlite:///{tmp_path}/store.db", source, trickle(), ONE, every=300)
    assert found.late > 50
    assert [row.partition for row in found.journal].count(2) >= 1
    assert replayed(ListSource(arrived(log, source), found.journal), ONE) == found


def test_without_the_journal_it_is_another_run(tmp_path: Path) -> None:
    """The journal is needed: a replay without it calls nothing late that was late live."""
    log = split(EVENTS, 3)
    source = LiveListSource(log)
    found = lived(f"sqlite:///{tmp_path}/store.db", source, trickle(), every=300)
    assert replayed(ListSource(arrived(log, source))).late < found.late


def item(at: int) -> bytes:
    return json.dumps({"type": "item", "item_id": f"p{at}", "at": T0 + at, "features": {}}).encode()


def test_a_silent_partition_holds_nothing_back(tmp_path: Path) -> None:
    """After idle_after the watermark is the clock of the partition that still shows records; the journal says where."""
    source = LiveListSource({A: [item(5)], B: [item(3), item(50)]})
    plan = [Step(0, 1, 0, False), Step(1, 2, 0, False), Step(1, 0, 29, False), Step(1, 0, 0, False)]
    found = lived(f"sqlite:///{tmp_path}/a.db", source, plan)
    assert (found.watermark, found.journal) == (T0 + 5, [])
    source = LiveListSource({A: [item(5)], B: [item(3), item(50)]})
    plan = [Step(0, 1, 0, False), Step(1, 1, 31, False), Step(1, 1, 0, False)]
    found = lived(f"sqlite:///{tmp_path}/b.db", source, plan)
    assert (found.watermark, found.journal) == (T0 + 50, [Advance("events", 0, 1, T0 + 50)])


def test_where_all_are_silent_nothing_moves(tmp_path: Path) -> None:
    """Silence of all partitions is no time that passes."""
    source = LiveListSource({A: [item(5)], B: [item(50)]})
    plan = [Step(0, 1, 0, False), Step(1, 1, 0, False), Step(0, 0, 100, False), Step(0, 0, 100, False)]
    found = lived(f"sqlite:///{tmp_path}/store.db", source, plan)
    assert (found.watermark, found.journal) == (T0 + 5, [])


def test_a_partition_without_an_answer_yet_holds_all_back() -> None:
    """One that has shown nothing and is not known to be silent keeps every clock where it is."""
    clocks = Watermark([A, B, C], 0)
    clocks.read(A, 100)
    assert clocks.quiet(frozenset({B})) == {}
    assert clocks.quiet(frozenset({B, C})) == {B: 100, C: 100}


def test_a_new_partition_starts_at_the_watermark(tmp_path: Path) -> None:
    """A partition added at run time is noticed, and what it shows from before the watermark is known from there on."""
    source = LiveListSource({A: [item(n) for n in range(20)], B: [item(3), item(50)]}, later=[B])
    plan = [Step(0, 20, 0, False), *[Step(0, 0, 0, False)] * 5, Step(1, 2, 0, False)]
    found = lived(f"sqlite:///{tmp_path}/store.db", source, plan)
    assert found.journal == [Advance("events", 1, 0, T0 + 19)]
    assert (found.late, found.watermark) == (1, T0 + 19)


def test_a_file_beside_the_log_is_obeyed(tmp_path: Path) -> None:
    """`journal.jsonl` in the folder of a log: late by the journal's clock, however the files are read."""
    log = {A: [item(5), item(7)], B: [item(50)]}
    for place, values in log.items():
        (tmp_path / place.topic).mkdir(exist_ok=True)
        (tmp_path / place.topic / f"{place.partition}.jsonl").write_bytes(b"\n".join(values) + b"\n")
    assert replayed(FileSource(tmp_path)).late == 0
    journal.write(tmp_path / journal.NAME, [Advance("events", 0, 1, T0 + 40)])
    assert journal.read(tmp_path) == [Advance("events", 0, 1, T0 + 40)]
    assert [replayed(FileSource(tmp_path), poll=poll).late for poll in (1, 100)] == [1, 1]


@pytest.mark.parametrize("line", ["{", "[]", '{"topic": "a"}', '{"topic":"a","partition":0,"offset":"1","clock":2}'])
def test_a_journal_that_cannot_be_read_is_refused(tmp_path: Path, line: str) -> None:
    """The message names the file and the line."""
    (tmp_path / journal.NAME).write_text('{"topic":"a","partition":0,"offset":1,"clock":2}\n' + line + "\n")
    with pytest.raises(SourceError, match=r"journal\.jsonl, line 2: expected"):
        journal.read(tmp_path)


def test_of_one_place_the_highest_counts() -> None:
    """A clock raised again and again while a partition is silent is one row."""
    book = Journal()
    for clock in (5, 9, 7):
        book.note(A, 3, clock)
    assert book.unsaved() == [Advance("events", 0, 3, 9)]
    assert book.unsaved() == []
    assert book.obey(A, 10) == BEGINNING


def test_a_gap_in_the_offsets_hides_no_advance() -> None:
    """Where the record at an advance's offset is missing (compacted, or a mark of a transaction), the next one counts."""
    book = Journal([Advance("events", 0, 3, 9)])
    assert [book.obey(A, offset) for offset in (2, 6, 7)] == [BEGINNING, 9, BEGINNING]
