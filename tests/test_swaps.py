"""A replay that is told the swaps of a live run: as long as they are of its versions, and what it does from there on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labelstore import ledger
from labelstore.ledger import Swap
from labelstore.store import existing
from strategies import DAY, HOUR, T0
from stream.loop import Loop
from stream.sources import ListSource
from stream.swaps import Swaps
from stream.workspace import opened
from test_refresh import SETTINGS, parts, quick, shop

__all__ = ["quick"]  # a fixture

LOG = parts(shop(days=20), 1)
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
