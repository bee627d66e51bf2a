"""Versions of the product graph that go wrong: corrupt files, processes that are killed, graphs that say nothing."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import belated
from labelstore import ledger
from labelstore.events import LONGEST
from labelstore.item_pairs import Pair
from labelstore.store import existing
from strategies import DAY, HOUR, T0, lines
from stream import bundle, prequential, snapshot
from stream.aside import TRIES, Aside
from stream.backtest import backtest
from stream.bundle import Serving
from stream.loop import Loop
from stream.refresh import Refresh
from stream.related import refresh, roll_back, stand
from stream.sources import ListSource
from stream.workspace import opened
from test_refresh import EVENTS, SETTINGS, Live, mine, parts, quick, shop, taken, whole

__all__ = ["mine", "quick", "whole"]  # fixtures


def broken(store: str, version: int) -> None:
    """The file of a version is cut."""
    file = Path(store.removeprefix("sqlite:///")).parent / "store.checkpoints" / f"graph-{version}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def test_rolling_back_twice_never_goes_forward(mine: str) -> None:
    """There is one version before; what was rolled back is not served again by that, and is still evaluated."""
    both = json.loads(belated("graph", "evaluate", "--store", mine, "--json")[1])
    assert belated("graph", "rollback", "--store", mine)[0] == 0
    assert re.search(r"served: version 2, .*\nrolled back: version 3, ", belated("graph", "status", "--store", mine)[1])
    status, _, why = belated("graph", "rollback", "--store", mine)
    assert (status, "version 2 is served, and none before it is kept" in why) == (2, True)
    assert "`belated graph refresh` learns a new one now" in why
    assert json.loads(belated("graph", "evaluate", "--store", mine, "--json")[1]) == both


def test_a_corrupt_version_stands_in_the_way_of_nothing_else(mine: str) -> None:
    """The older one is not asked for what follows a product; the one that is served can be left by rolling back."""
    broken(mine, 2)
    assert belated("related", "p1", "--store", mine)[0] == 0
    status, _, why = belated("graph", "rollback", "--store", mine)
    assert (status, "graph-2" in why) == (2, True)


def test_rolling_back_from_a_corrupt_version(mine: str) -> None:
    broken(mine, 3)
    status, _, why = belated("related", "p1", "--store", mine)
    assert (status, "graph-3" in why) == (2, True)
    assert belated("graph", "rollback", "--store", mine)[:2] == (0, "version 2 is served again\n")
    assert belated("related", "p1", "--store", mine)[0] == 0


def test_before_the_first_version(tmp_path: Path) -> None:
    """There is nothing to evaluate, and nothing to go back to; and a log that cannot be read is told."""
    url, log = f"sqlite:///{tmp_path}/store.db", tmp_path / "log.jsonl"
    backtest("log", ListSource(parts(EVENTS[:50], 1)), SETTINGS, url)
    status, found, _ = belated("graph", "evaluate", "--store", url)
    assert (status, "no version yet that anything came after: event time has not passed" in found) == (0, True)
    status, _, why = belated("graph", "rollback", "--store", url)
    assert (status, "no version of the product graph yet; `belated graph status`" in why) == (2, True)
    log.write_bytes(b'{"nope":1}\n' * 5 + b"\n".join(lines(EVENTS[:50])) + b"\n")
    _, found, warned = belated("graph", "evaluate", str(log))
    assert "no version yet" in found
    assert "5 of 55 records could not be read" in " ".join(warned.split())


@pytest.mark.parametrize(
    ("days", "kinds", "every", "why"),
    [
        (0, (), "3d", "the log holds no record"),
        (1, ("item",), "3d", "event time has not passed a midnight"),
        (9, ("item", "impression"), "3d", "pairs: none; at each midnight of event time"),
        (2, ("conversion",), "3d", "none was learned; event time has reached 2023-11-15"),
        (5, ("conversion",), "3d", "version 1 is the last, and none was learned after it: a shorter --graph-every"),
        (9, ("signal",), "3d", "the last one was refused: the graph has no co-purchase edges"),
    ],
)
def test_why_nothing_is_judged(tmp_path: Path, days: int, kinds: tuple[str, ...], every: str, why: str) -> None:
    """A log that is empty, too short, or without pairs; as JSON it is told beside the list."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(row + b"\n" for row in lines([
        event for event in EVENTS if event["type"] in kinds and event["at"] < T0 + days * DAY
    ])))  # fmt: skip
    status, found, _ = belated("graph", "evaluate", log, "--graph-every", every)
    assert (status, f"no version yet that anything came after: {why}" in found) == (0, True), found
    status, found, told = belated("graph", "evaluate", log, "--graph-every", every, "--json")
    assert (status, found, why in " ".join(told.split())) == (0, "[]\n", True)


def test_an_item_that_is_none(tmp_path: Path) -> None:
    """No id, or more than an id can be, is refused and shown in short; any other name may be asked for."""
    url = f"sqlite:///{tmp_path}/store.db"
    backtest("log", ListSource(parts(EVENTS, 1)), SETTINGS, url)
    status, _, why = belated("related", "", "--store", url)
    assert (status, "ITEM is empty: give the item_id" in why) == (2, True)
    status, _, why = belated("related", "\x1b" + "é" * LONGEST, "--store", url)
    assert (status, "has 201 characters, and an item_id at most 200" in why) == (2, True)
    assert len(why) < 250
    assert belated("related", "é" * LONGEST, "--store", url)[0] == 0


def test_a_mapped_log_is_evaluated(tmp_path: Path) -> None:
    """With the file of settings that makes events of its records."""
    log, file = tmp_path / "log.jsonl", tmp_path / "b.toml"
    events = [
        {"what": e["event_id"], "who": e["user_id"], "sku": e["item_id"], "at": e["at"]}
        for e in EVENTS
        if e["type"] == "conversion"
    ]
    log.write_bytes(b"\n".join(lines(events)) + b"\n")
    names = 'event_id = "what"\nuser_id = "who"\nitem_id = "sku"\nat = "at"\n'
    file.write_text(f'[mapping.log]\ntype = "conversion"\nkind = "purchase"\n{names}')
    assert (
        len(json.loads(belated("graph", "evaluate", str(log), "-c", str(file), "--graph-every", "3d", "--json")[1]))
        == 2
    )


def test_a_replay_goes_on_by_itself_after_a_version_of_a_person(tmp_path: Path) -> None:
    """It cannot make that one, and numbers differ from there on: it serves its own, when they are learned."""
    log = parts(shop(days=20), 1)
    url, some = f"sqlite:///{tmp_path}/live.db", sum(e["at"] < T0 + 5 * DAY for e in shop(days=20))
    with opened(url, SETTINGS) as (store, checkpoints):
        loop = Loop(Live({place: rows[:some] for place, rows in log.items()}), SETTINGS, store, checkpoints, poll=50)
        loop.run(stop=lambda: sum(loop.reading.offsets.values()) == some and loop.passed == loop.reading.clocks.value)
    assert refresh(url).version == 2
    with opened(url, SETTINGS) as (store, checkpoints):
        Loop(ListSource(log), SETTINGS, store, checkpoints).run()
    with existing(url) as connection:
        lived = ledger.load_swaps(connection)
    with opened(f"sqlite:///{tmp_path}/again.db", SETTINGS) as (store, checkpoints):
        source = ListSource(log)
        source.swaps = lambda: lived  # type: ignore[method-assign]
        loop = Loop(source, SETTINGS, store, checkpoints)
        loop.run()
    with existing(f"sqlite:///{tmp_path}/again.db") as connection:
        again = ledger.load_swaps(connection)
    assert (again[0], lived[1].version) == (lived[0], 2)
    assert [(row.at, row.version) for row in again] == [(T0 + 3 * n * DAY, n) for n in range(1, 7)]


def until(aside: Aside, number: int) -> Any:
    deadline = time.monotonic() + 60
    while (found := aside.result(number)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_process_that_is_killed_begins_again(tmp_path: Path) -> None:
    """Whoever interrupts the daemon does not interrupt it; killed, it begins again; killed each time, that is the reason."""
    (tmp_path / "s").write_bytes(snapshot.to_bytes(taken()._replace(method="none")))
    aside = Aside(tmp_path)
    aside.begin("s", None)
    assert aside._process is not None
    assert os.getpgid(aside._process) != os.getpgid(0)
    os.kill(aside._process, signal.SIGKILL)
    assert "ended with 1, 2 times" in until(aside, 1)  # the second came to an end of its own
    aside.begin("s", None)
    for _ in range(TRIES - 1):
        os.kill(aside._process, signal.SIGKILL)
        killed = aside._process
        while aside._process == killed:
            assert aside.result(1) is None
    os.kill(aside._process, signal.SIGKILL)
    assert until(aside, 1) == f"its process was killed by signal 9, {TRIES} times"


def test_features_that_all_share_say_nothing() -> None:
    """A method that knows products by their features alone finds none: refused, and not served in silence."""
    pairs = [Pair("co-purchase", f"p{a}", f"p{a + 1}", 1.0, T0) for a in range(100, 180)]
    alike = [(f"p{a}", '{"currency":"EUR"}') for a in range(100, 181)]
    with pytest.raises(snapshot.Refused, match="no product has a place"):
        snapshot.learn(snapshot.take(pairs, alike, 1, 0, "daemon", T0 + DAY), None)


def test_after_what_nobody_knows_comes_what_is_bought_most() -> None:
    """A product that the version does not know is told what the biases say, and judged by that; without any, nothing."""
    then = taken()
    before = snapshot.learn(then, None)
    places = before.embeddings._replace(target_bias=torch.tensor([float(name[1:]) % 999 for name in then.ids]))
    before = before._replace(embeddings=places)
    pairs = [Pair("co-purchase", then.ids[u], then.ids[v], 1.0, T0) for u, v in then.bought.T.tolist()]
    new = [Pair("co-purchase", "q", f"p{n}", 1.0, T0 + 2 * DAY) for n in range(110, 120)]
    later = snapshot.take([*pairs, *new], [], 2, 0, "dual", T0 + 3 * DAY)
    for bias, hits in ((places.target_bias, 1.0), (torch.zeros(len(then.ids)), 0.0)):
        served = before._replace(embeddings=places._replace(target_bias=bias))
        found = prequential.interval(served, later)
        assert found is not None
        assert (found.warm, found.figures["version 1"].hits) == (10, hits)
        told = Serving(served).related("q", 10)
        assert [name for name, _ in told] == [f"p{n}" for n in range(119, 109, -1)] * bool(hits)


def test_ids_of_any_length_and_letters() -> None:
    """They are no part of the header, which is bounded; files of before, where they were, are read."""
    ids = tuple(f'{"товар " * 6}{n}\n"' for n in range(50_000))
    for some in (ids, ("\ud800", "")):
        assert bundle.ids_of({"ids": bundle.of_ids(some)}, {}) == some
        assert bundle.ids_of({}, {"ids": list(some)}) == some
    told = taken()
    assert len(snapshot.to_bytes(told._replace(ids=ids))) > 3_000_000
    made = snapshot.learn(told, None)
    data = bundle.to_bytes(made)
    assert "ids" not in bundle.header(data, "bundle")
    assert bundle.from_bytes(data).ids == made.ids


def test_rolled_back_while_the_next_version_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon is stopped over version 3, and version 2 is rolled back: the older one is served, and version 3 is still
    learned from the one that was served when its snapshot was taken, as a replay learns it."""
    settings, url = SETTINGS.model_copy(update={"graph_every": 3 * DAY}), f"sqlite:///{tmp_path}/store.db"
    first = [event for event in EVENTS if event["at"] < T0 + 9 * DAY + HOUR]
    monkeypatch.setattr(Refresh, "_start", lambda graph: None)
    with opened(url, settings) as (store, checkpoints):
        loop = Loop(Live(parts(first, 1)), settings, store, checkpoints, poll=50, aside=True)

        def done() -> bool:
            graph = loop.graph
            if graph._pending and graph.number < 3:
                taken = snapshot.from_bytes((checkpoints.folder / graph._pending["file"]).read_bytes())
                graph._pending = None
                graph._learn(taken, graph.served.bundle if graph.served else None)
            return sum(loop.reading.offsets.values()) == len(first) and loop.passed == loop.reading.clocks.value

        loop.run(stop=done)
    assert roll_back(url) == 1
    with existing(url) as connection:
        newest = ledger.newest(connection)
        assert newest is not None
        *versions, pending = newest.progress["graph"]["bundles"]
        assert [one["version"] for one in versions] == [1, 2]
        assert (pending["number"], pending["before"]["version"]) == (3, 2)
        assert ledger.load_swaps(connection)[-1].version == 1
    with opened(url, settings) as (store, checkpoints):
        Loop(ListSource(parts(first, 1)), settings, store, checkpoints, poll=50).run()
    found = {one["version"]: one["metrics"] for one in stand(url).bundles}
    assert found[3]["started_from"] == 2
