"""A replay that is told the swaps of a live run: as long as they are of its versions, and what it does from there on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import select

from labelstore import ledger
from labelstore.ledger import Swap
from labelstore.store import existing
from labelstore.tables import impressions
from strategies import DAY, HOUR, T0
from stream import bundle, snapshot
from stream.aside import Aside
from stream.loop import Loop
from stream.related import roll_back
from stream.sources import ListSource
from stream.swaps import Swaps
from stream.workspace import opened
from test_refresh import SETTINGS, Live, parts, quick, shop

__all__ = ["quick"]  # a fixture

EVENTS, PLACE = shop(days=20), ("events", 0)
LOG = parts(EVENTS, 1)
OWN = [(T0 + 3 * n * DAY, n) for n in range(1, 7)]  # when versions are learned


class Cut(Exception):
    """Where a replay is ended."""


def replayed(folder: Path, told: Sequence[Swap], records: int | None = None) -> list[tuple[int, int]]:
    """Swaps that a replay makes, which may be ended after some ``records``; nothing that was learned is left waiting."""

    class Log(ListSource):
        def poll(self, limit: int, paused: Any = frozenset()) -> Any:
            if records and sum(self.positions().values()) >= records:
                raise Cut
            return super().poll(limit, paused)

    url = f"sqlite:///{folder}/store.db"
    with opened(url, SETTINGS) as (store, checkpoints):
        loop = Loop(Log(LOG, swaps=told), SETTINGS, store, checkpoints, poll=50, every=200)
        if records:
            with pytest.raises(Cut):
                loop.run()
        else:
            loop.run()
            assert loop.graph.idle
    with existing(url) as connection:
        return [(row.at, row.version) for row in ledger.load_swaps(connection)]


def test_the_swaps_are_over(tmp_path: Path) -> None:
    """The log goes on past what the live run had served: a version that nobody swaps waits for the next midnight at most."""
    told = Swap(T0 + 3 * DAY + HOUR, 1)
    assert replayed(tmp_path, [told]) == [told, *OWN[2:]]


def test_there_are_none_yet(tmp_path: Path) -> None:
    """The live run had a graph and no version."""
    assert replayed(tmp_path, []) == OWN[1:]


def test_swaps_of_other_settings(tmp_path: Path) -> None:
    """The live run learned half as often, so its versions are not those of the same numbers here."""
    assert replayed(tmp_path, [Swap(T0 + 6 * n * DAY + HOUR, n) for n in (1, 2, 3)]) == OWN[1:]


@pytest.mark.parametrize("records", [800, 1100, 1500])
def test_a_replay_that_is_continued_knows_that_it_is_alone(tmp_path: Path, records: int) -> None:
    """A person had version 2 learned: from there on swaps are of other versions, before a restart and after it."""
    told = [Swap(OWN[0][0] + HOUR, 1), Swap(T0 + 4 * DAY, 2), *(Swap(at + HOUR, n + 1) for at, n in OWN[1:5])]
    assert len(replayed(tmp_path, told, records)) < 6
    assert replayed(tmp_path, told) == [told[0], *OWN[1:]]


def test_a_version_that_the_live_run_refused() -> None:
    """Its process was killed: the next one is swapped, and the swaps are still of this run."""
    swaps = Swaps([Swap(1, 1), Swap(5, 3)])
    assert list(swaps.due(1, 1)) == [Swap(1, 1)]
    assert not swaps.outrun(2)
    assert list(swaps.due(5, 3)) == [Swap(5, 3)]
    assert swaps.outrun(3)


class Slow(Aside):
    """Makes a version when it is told to, or is killed."""

    done: ClassVar[list[bool]] = []  # whether the next versions are made

    def begin(self, snapshot: str, before: str | None) -> None:
        self.names = snapshot, before

    def result(self, number: int) -> bundle.Bundle | str | None:
        if not self.done:
            return None
        if not self.done.pop(0):
            return "killed"
        taken, before = (name and (self._folder / name).read_bytes() for name in self.names)
        return snapshot.learn(snapshot.from_bytes(taken or b""), bundle.from_bytes(before) if before else None)


def so_far(days: float) -> Live:
    """The log of so many days."""
    return Live({PLACE: LOG[PLACE][: sum(event["at"] < T0 + days * DAY for event in EVENTS)]})


def live(url: str, days: float, *done: bool) -> None:
    """A daemon, stopped after so many days; ``done``: versions for which it waits."""
    Slow.done = list(done)
    with opened(url, SETTINGS) as (store, checkpoints):
        loop = Loop(source := so_far(days), SETTINGS, store, checkpoints, poll=20, aside=True)

        def over() -> bool:
            read = loop.reading.offsets == source.end_offsets() and loop.passed == loop.reading.clocks.value
            return read and not Slow.done

        loop.run(stop=over)


def said(url: str) -> tuple[list[Any], list[Swap], int]:
    """What versions said of impressions, swaps, and how far event time is."""
    with existing(url) as connection:
        newest, I = ledger.newest(connection), impressions.c  # noqa: E741
        assert newest is not None
        rows = connection.execute(select(I.id, I.graph).order_by(I.id)).all()
        return list(rows), ledger.load_swaps(connection), newest.progress["passed"]


def check_replay(url: str, days: float, again: str) -> None:
    """A replay as far as the live run came is told its swaps, makes them, and says the same of each impression."""
    lived = said(url)
    with opened(again, SETTINGS) as (store, checkpoints):
        source = so_far(days)
        source.swaps = lambda: lived[1]  # type: ignore[method-assign]
        loop = Loop(source, SETTINGS, store, checkpoints)
        loop.run(stop=lambda: loop.passed == lived[2])
    assert said(again) == lived


def test_what_a_swap_of_the_same_moment_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 is served again while 4 is learned, 4 before a record passes, and then 1 once more: it is still there."""
    monkeypatch.setattr("stream.refresh.Aside", Slow)
    url = f"sqlite:///{tmp_path}/live.db"
    live(url, 3.1, True)
    live(url, 6.1, True)
    assert roll_back(url) == 1
    live(url, 9.1, True)
    live(url, 12.1)
    assert roll_back(url) == 1
    live(url, 12.1, True)
    live(url, 13)
    assert roll_back(url) == 1
    live(url, 14)
    assert [row.version for row in said(url)[1]] == [1, 2, 1, 3, 4, 1]
    check_replay(url, 14, f"sqlite:///{tmp_path}/again.db")


def test_what_is_rolled_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record has passed with it: a replay does not serve it either, nor when it has left the swaps behind."""
    monkeypatch.setattr("stream.refresh.Aside", Slow)
    url = f"sqlite:///{tmp_path}/live.db"
    live(url, 3.1, True)
    live(url, 6.1)
    live(url, 6.1, True)
    assert roll_back(url) == 1
    live(url, 9.1)
    assert [row.version for row in said(url)[1]] == [1, 1]
    check_replay(url, 9.1, f"sqlite:///{tmp_path}/again.db")


def test_what_is_killed_is_not_learned_by_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first version and after it, up to the end."""
    monkeypatch.setattr("stream.refresh.Aside", Slow)
    url = f"sqlite:///{tmp_path}/live.db"
    for days, done in ((3.1, False), (6.1, True), (9.1, False), (12.1, False)):
        live(url, days, done)
    assert [row.version for row in said(url)[1]] == [0, 2, 2, 2]
    check_replay(url, 12.1, f"sqlite:///{tmp_path}/again.db")
