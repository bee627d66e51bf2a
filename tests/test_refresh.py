"""The product graph under a learner: the same bytes however the log is cut, killed or run beside, and features as scored."""

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from pydantic_core import from_json
from sqlalchemy import select

from command_line import belated
from labelstore import ledger
from labelstore.item_pairs import CO_PURCHASE, CO_VIEW, Pair
from labelstore.ledger import Swap
from labelstore.stats import digest
from labelstore.store import existing
from labelstore.tables import impressions, item_pairs
from learner.graph import training
from learner.graph.dual import Settings as Dual
from learner.graph.embeddings import Embeddings
from learner.graph.methods import GRAPH_METHODS, GraphMethod
from strategies import DAY, HOUR, T0, lines
from stream import bundle, prequential, snapshot
from stream.aside import Aside
from stream.backtest import backtest
from stream.bundle import Serving
from stream.erasure import forget
from stream.learning import Learner
from stream.loop import Loop
from stream.related import stand
from stream.settings import Settings
from stream.snapshot import Refused
from stream.sources import ListSource
from stream.workspace import opened

SETTINGS = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR, keep=10 * DAY, graph_every=3 * DAY)
GROUPS, SIZE = 4, 5
USUAL = GRAPH_METHODS["dual"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model that is learned in no time."""

    monkeypatch.setitem(GRAPH_METHODS, "dual", GraphMethod(training.train, *small(3, 2)))


def small(cold: int, warm: int) -> tuple[dict[str, Dual], Callable[[Dual], Dual]]:
    """Settings by epochs."""
    return {"links": Dual(width=8, epochs=cold)}, lambda settings: settings._replace(epochs=warm)


def shop(users: int = 60, days: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Users buy of group g, then of group g + 1; they are shown the second beside the first, and click in sessions."""
    chance = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for product in range(GROUPS * SIZE):
        features = {"group": f"g{product // SIZE}", "price": float(product)}
        found.append({"type": "item", "item_id": f"p{product}", "at": T0, "features": features})
    for n in range(users * 6):
        at, group = T0 + int(chance.integers(0, days * DAY - 8 * HOUR)), int(chance.integers(GROUPS - 1))
        first, second = (f"p{g * SIZE + int(chance.integers(SIZE))}" for g in (group, group + 1))
        user: dict[str, Any] = {"user_id": f"u{n % users}"}
        bought = {"type": "conversion", "kind": "purchase", **user}
        found.append({**bought, "event_id": f"a{n}", "at": at, "item_id": first})
        shown = {"type": "impression", "impression_id": f"i{n}", "context_item_id": first, "item_id": second, **user}
        found.append({**shown, "at": at + HOUR, "features": {"n": float(n % 7)}})
        click = {"type": "signal", "kind": "click", "session_id": f"s{n}", **user}
        found += [
            {**click, "event_id": f"k{n}.{m}", "at": at + HOUR + m, "item_id": item}
            for m, item in enumerate((first, second))
        ]
        if chance.random() < 0.7:
            found.append({**bought, "event_id": f"b{n}", "at": at + 2 * HOUR, "item_id": second})
        if chance.random() < 0.1:
            back = {"type": "adjustment", "action": "retract", "event_id": f"r{n}", "conversion_id": f"a{n}"}
            found.append({**back, "at": at + 5 * HOUR})
    return sorted(found, key=lambda event: event["at"])


class Live(ListSource):
    """Never over."""

    def exhausted(self) -> frozenset[Any]:
        return frozenset()

    def poll(self, limit: int, paused: Any = frozenset()) -> Any:
        if not (found := super().poll(limit, paused)):
            time.sleep(0.02)
        return found


EVENTS = shop()
Log = dict[tuple[str, int], list[bytes]]


def parts(events: Sequence[dict[str, Any]], count: int) -> Log:
    """Users spread over partitions; products and retractions in the first."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {("events", n): [] for n in range(count)}
    for event in events:
        number = int((event.get("conversion_id") or event.get("user_id") or "x0")[1:]) % 60 % count
        found["events", number].append(event)
    return {place: lines(some) for place, some in found.items()}


def told(url: str, folder: Path) -> tuple[str, list[tuple[int, int]], dict[str, bytes]]:
    """Digest of the tables, swaps, and the bundles that the last commit names."""
    with existing(url) as connection:
        swaps = [(row.at, row.version) for row in ledger.load_swaps(connection)]
        newest = ledger.newest(connection)
        assert newest is not None
        names = [one["file"] for one in newest.progress.get("graph", {}).get("bundles", ())]
        return digest(connection), swaps, {name: (folder / name).read_bytes() for name in sorted(names)}


def run(folder: Path, log: Log, settings: Settings = SETTINGS, **how: Any) -> tuple[Any, dict[str, Any]]:
    url = f"sqlite:///{folder}/store.db"
    result = backtest("log", ListSource(log), settings, url, **how)
    return told(url, folder / "store.checkpoints"), result.summary["methods"]["settled"]["digest"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The log in one go."""
    with pytest.MonkeyPatch.context() as patch:
        quick.__wrapped__(patch)  # type: ignore[attr-defined]  # the fixture, for this scope
        folder = tmp_path_factory.mktemp("whole")
        return folder, run(folder, parts(EVENTS, 1))


def test_versions_are_made_and_kept(whole: tuple[Path, Any]) -> None:
    """A version each three days; the last two are kept."""
    _, ((_, swaps, files), _) = whole
    assert swaps == [(T0 + 3 * DAY, 1), (T0 + 6 * DAY, 2), (T0 + 9 * DAY, 3)]
    assert list(files) == ["graph-2.safetensors", "graph-3.safetensors"]


@pytest.mark.parametrize(("count", "poll", "every"), [(1, 97, 300), (3, 50, 500), (3, 5000, 200_000)])
def test_however_it_is_cut(whole: tuple[Path, Any], tmp_path: Path, count: int, poll: int, every: int) -> None:
    """Polls, commits and partitions change no byte of tables, bundles and weights."""
    assert run(tmp_path, parts(EVENTS, count), poll=poll, every=every) == whole[1]


@pytest.mark.parametrize("records", [400, 900, 1300])
def test_however_it_is_killed(whole: tuple[Path, Any], tmp_path: Path, records: int) -> None:
    """Killed after a bundle was written and before its commit, or anywhere: the next run ends with the same bytes."""

    class Killed(Exception):
        pass

    class Cut(ListSource):
        def poll(self, limit: int, paused: Any = frozenset()) -> Any:
            if sum(self.positions().values()) >= records:
                raise Killed
            return super().poll(limit, paused)

    with pytest.raises(Killed):
        backtest("log", Cut(parts(EVENTS, 1)), SETTINGS, f"sqlite:///{tmp_path}/store.db", poll=50, every=350)
    assert run(tmp_path, parts(EVENTS, 1)) == whole[1]


def test_what_scoring_used_is_stored(whole: tuple[Path, Any]) -> None:
    """Impressions have what the version of their time said; that of the newest is the newest bundle's."""
    folder, ((_, _, files), _) = whole
    newest = bundle.from_bytes(files["graph-3.safetensors"])
    serving = Serving(newest)
    with existing(f"sqlite:///{folder}/store.db") as connection:
        I = impressions.c  # noqa: E741
        rows = connection.execute(select(I.at, I.context_item_id, I.item_id, I.graph)).all()
    versions = {(at - T0) // (3 * DAY): from_json(text)["version"] for at, _, _, text in rows if text}
    assert versions == {1: 1, 2: 2, 3: 3}
    assert all((text is None) == (at < T0 + 3 * DAY) for at, _, _, text in rows)
    for at, context, item, text in rows:
        if at >= T0 + 9 * DAY:
            said = from_json(text)
            scores = serving.scores([serving.place[context]])[0]
            assert said["rel"] == float(scores[serving.place[item]])
            assert said["rank"] == float(np.log2(1 + (scores > said["rel"]).sum().item()))
            assert said["cold"] == int(serving.cold(item))


def test_without_a_graph_nothing_is_done(tmp_path: Path) -> None:
    """No pairs, no bundles, no word of it in a checkpoint."""
    plain = SETTINGS.model_copy(update={"graph_every": None})
    (_, swaps, files), _ = run(tmp_path, parts(EVENTS[:300], 1), plain)
    assert (swaps, files) == ([], {})
    with existing(f"sqlite:///{tmp_path}/store.db") as connection:
        assert connection.execute(select(item_pairs)).all() == []
        newest = ledger.newest(connection)
    assert newest is not None
    assert not any("graph" in name for name in [*newest.progress, *newest.settings])


def test_the_other_database(whole: tuple[Path, Any], schema: str, tmp_path: Path) -> None:
    """PostgreSQL ends with the same pairs, bundles and weights."""
    result = backtest("log", ListSource(parts(EVENTS, 1)), SETTINGS, schema, checkpoints=tmp_path)
    assert (told(schema, tmp_path), result.summary["methods"]["settled"]["digest"]) == whole[1]


def test_killed_while_a_process_learns(whole: tuple[Path, Any], tmp_path: Path) -> None:
    """The commit names the snapshot: whoever goes on learns from the file, to the same bundle."""
    url, read = f"sqlite:///{tmp_path}/store.db", sum(event["at"] < T0 + 4 * DAY for event in EVENTS)
    with opened(url, SETTINGS) as (store, checkpoints):
        loop = Loop(Live(parts(EVENTS[:read], 1)), SETTINGS, store, checkpoints, poll=50, aside=True)
        loop.graph._start = lambda: None  # type: ignore[method-assign]  # it is killed before it has begun
        loop.run(stop=lambda: sum(loop.reading.offsets.values()) == read and loop.passed == loop.reading.clocks.value)
    assert {file.name for file in (tmp_path / "store.checkpoints").glob("graph-*")} == {"graph-1-snapshot.safetensors"}
    result, _ = run(tmp_path, parts(EVENTS, 1))
    assert [version for _, version in result[1]] == [1, 2, 3]
    assert result[1][1:] == whole[1][0][1][1:]


def test_what_waits_for_a_refresh_is_bounded(
    whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While event time waits, a full room is not filled any further; the log is polled, is not over, and loses nothing."""
    monkeypatch.setattr("stream.reading.AHEAD", 100)
    polls: list[Any] = []

    class Polled(Live):
        def poll(self, limit: int, paused: Any = frozenset()) -> Any:
            polls.append(paused)
            return super().poll(limit, paused)

    with opened(f"sqlite:///{tmp_path}/store.db", SETTINGS) as (store, checkpoints):
        loop = Loop(Polled(parts(EVENTS, 2)), SETTINGS, store, checkpoints, poll=50, aside=True)
        loop.graph._start = lambda: None  # type: ignore[method-assign]  # it learns for ever
        loop.run(stop=lambda: len(polls) == 120)
        assert polls[-1] == frozenset(loop.source.partitions())
        assert loop.passed < T0 + 6 * DAY <= loop.reading.clocks.value
        assert 100 <= len(loop.reading.waiting) < 250  # without the pause 800
    assert run(tmp_path, parts(EVENTS, 2))[0][1][1:] == whole[1][0][1][1:]


def test_aside_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned in processes of their own while events pass; a replay that is told the swaps ends with the same bytes."""
    monkeypatch.setitem(GRAPH_METHODS, "dual", USUAL)  # as the other process has it
    small = SETTINGS.model_copy(update={"graph_every": 6 * DAY})
    events, deadline = shop(users=20), time.monotonic() + 240  # niced: last on a busy machine
    with opened(f"sqlite:///{tmp_path}/live.db", small) as (store, checkpoints):
        loop = Loop(Live(parts(events, 1)), small, store, checkpoints, poll=20, aside=True)

        def over() -> bool:
            assert time.monotonic() < deadline
            late = loop.reading.offsets and sum(loop.reading.offsets.values()) == len(events)
            return bool(late and loop.passed == loop.reading.clocks.value and loop.graph.idle)

        loop.run(stop=over)
        lived = told(f"sqlite:///{tmp_path}/live.db", tmp_path / "live.checkpoints")
        weights, passed = loop.learners[0].trainer.digest(), loop.passed
    assert [version for _, version in lived[1]] == [1]
    assert lived[1][0][0] >= T0 + 6 * DAY
    with opened(f"sqlite:///{tmp_path}/again.db", small) as (store, checkpoints):
        source = Live(parts(events, 1))
        source.swaps = lambda: [Swap(*row) for row in lived[1]]  # type: ignore[method-assign]
        loop = Loop(source, small, store, checkpoints)
        loop.run(stop=lambda: loop.passed == passed)
        assert loop.learners[0].trainer.digest() == weights
    assert told(f"sqlite:///{tmp_path}/again.db", tmp_path / "again.checkpoints") == lived


def taken(number: int = 1, method: str = "dual") -> snapshot.Snapshot:
    """Each of 40 products is bought before those of 80 others that have its remainder by 8."""
    ends = [(a, b) for a in range(40) for b in range(40, 120) if (a - b) % 8 == 0]
    pairs = [Pair("co-purchase", f"p{a:03}", f"p{b}", 1.0, T0 + a) for a, b in sorted(ends)]
    words = [("p003", '{"group":"g","n":2}'), ("p999", '{"group":"g"}')]
    return snapshot.take(pairs, words, number, 1, method, T0 + DAY)


ORPHAN = """
import sys
from pathlib import Path
from stream.aside import Aside
Aside(Path(sys.argv[1])).begin("taken", None)
"""


def test_a_process_does_not_outlive_who_began_it(tmp_path: Path) -> None:
    """However that ended: what it would have made, nobody would take."""
    (tmp_path / "taken").write_bytes(snapshot.to_bytes(taken()))
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)  # both have it open: until both have ended
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_no_process_is_begun_by_a_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit was learning is begun again once all else is restored."""
    begun: list[str] = []
    monkeypatch.setattr(Aside, "begin", lambda self, file, before: begun.append(file))
    with opened(f"sqlite:///{tmp_path}/store.db", SETTINGS) as (store, checkpoints):
        loop = Loop(Live(parts(EVENTS, 1)), SETTINGS, store, checkpoints, aside=True)
        loop.run(stop=lambda: bool(begun))

        def broken(self: Learner, tensors: object) -> None:
            raise ValueError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "restore", broken)
            with pytest.raises(ValueError, match="broken"):
                Loop(Live(parts(EVENTS, 1)), SETTINGS, store, checkpoints, aside=True)
        assert len(begun) == 1
        Loop(Live(parts(EVENTS, 1)), SETTINGS, store, checkpoints, aside=True)
        assert len(begun) == 2


def test_bundles_and_snapshots_are_files() -> None:
    """Both come back from their bytes as they were; the same one gives the same bytes."""
    found = taken()
    again = snapshot.from_bytes(snapshot.to_bytes(found))
    assert snapshot.to_bytes(again) == snapshot.to_bytes(found)
    made = snapshot.learn(found, None)
    assert bundle.to_bytes(bundle.from_bytes(bundle.to_bytes(made))) == bundle.to_bytes(made)
    assert bundle.to_bytes(snapshot.learn(again, None)) == bundle.to_bytes(made)


@pytest.mark.parametrize("products", range(1, 40))
def test_scores_of_a_context_depend_on_it_alone(products: int) -> None:
    """To the last bit, wherever it stands among those that are asked at once, in catalogues of every small size."""
    drawn = torch.Generator().manual_seed(products)
    places = Embeddings(
        *(torch.randn(products, 64, generator=drawn) for _ in range(2)),
        *(torch.randn(products, generator=drawn) for _ in range(2)),
        *(torch.ones(products, dtype=torch.bool) for _ in range(2)),
    )
    ids, nothing = tuple(f"p{n:02}" for n in range(products)), torch.zeros(products)
    serving = Serving(bundle.Bundle(1, 1, T0, ids, places, places.asks, nothing, nothing, {}))
    alone = serving.scores([0])[0]
    assert alone.shape == (products,)
    for place in range(bundle.BLOCK):
        others = [(place + n) % products for n in range(place)]
        assert torch.equal(serving.scores([*others, 0])[place], alone)


def test_a_refresh_starts_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged products hardly move, a new one in between has its own row; the same bytes; a network begins anew."""
    monkeypatch.setitem(GRAPH_METHODS, "dual", GraphMethod(training.train, *small(40, 10)))
    old = snapshot.learn(taken(), None)
    told = taken(2)._replace(until=T0 + 2 * DAY, seed=2)
    same, cold = snapshot.learn(told, old), snapshot.learn(told, old._replace(tables=None))
    assert (old.metrics["started_from"], same.metrics["started_from"], cold.metrics["started_from"]) == (None, 1, None)
    places, known = (torch.cat(old.embeddings[side : side + 2]) for side in (0, 4))
    moved = torch.cosine_similarity(torch.cat(same.embeddings[:2]), places)
    assert float(moved[known].mean()) > 0.95
    assert same.metrics["residual"] < cold.metrics["residual"]
    assert same.metrics["newest_hits"] >= old.metrics["newest_hits"]
    reread = bundle.from_bytes(bundle.to_bytes(old))
    assert bundle.to_bytes(snapshot.learn(told, reread)) == bundle.to_bytes(same)
    start = snapshot.start_of(told._replace(ids=("a", *told.ids)), old)
    assert start is not None
    assert start.row.tolist() == [-1, *range(len(told.ids))]
    assert snapshot.start_of(told._replace(since=told.since + 2 * DAY), old) is None  # most edges are new
    assert snapshot.start_of(told._replace(words=torch.empty(2, 0, dtype=torch.int64)), old) is None
    assert snapshot.start_of(told._replace(method="daemon"), old) is None
    assert snapshot.start_of(told, old._replace(metrics={})) is None  # of a time when there was nothing to choose


def test_a_version_that_went_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are not finite, hits that fall, a method that lacks what it needs: each with the reason."""
    monkeypatch.setitem(GRAPH_METHODS, "dual", GraphMethod(training.train, *small(20, 20)))
    good = snapshot.learn(taken(), None)

    def ruined(factor: float) -> Any:
        def train(*given: Any) -> Any:
            places, tables = training.train(*given)
            return places._replace(target=places.target * factor, target_bias=-places.target_bias), tables

        return GraphMethod(train, *small(20, 20))

    for factor, says in ((float("nan"), "not a finite number"), (-1.0, "version before")):
        monkeypatch.setitem(GRAPH_METHODS, "dual", ruined(factor))
        with pytest.raises(Refused, match=says):
            snapshot.learn(taken(2), good)
    with pytest.raises(Refused, match="train `dual`"):
        snapshot.learn(taken(method="daemon")._replace(words=torch.empty(2, 0, dtype=torch.int64)), None)


# what a person may ask and do -----------------------------------------------------------------------------------------


@pytest.fixture
def mine(whole: tuple[Path, Any], tmp_path: Path) -> str:
    """A copy of the store, with its folder."""
    copytree(whole[0], tmp_path / "mine")
    (tmp_path / "mine" / "store.checkpoints" / "lock").unlink(missing_ok=True)
    return f"sqlite:///{tmp_path}/mine/store.db"


def test_related(mine: str) -> None:
    """A table of products by rel; what follows one that nobody knows is said to be a guess; a store without a graph is an
    error."""
    status, table, _ = belated("related", "p1", "--store", mine, "-k", "5")
    assert (status, len(table.strip().splitlines())) == (0, 7)
    found = json.loads(belated("related", "p1", "--store", mine, "-k", "5", "--json")[1])
    assert [one["rel"] for one in found] == sorted((one["rel"] for one in found), reverse=True)
    assert "p1" not in {one["item"] for one in found}
    assert any(one["bought"] > 0 for one in found)
    assert all(one["known"] for one in found)
    status, told, said = belated("related", "nobody", "--store", mine, "-k", "3", "--json")
    assert (status, len(json.loads(told))) == (0, 3)
    assert not any(one["known"] for one in json.loads(told))
    assert "knows nothing of it; these are bought most" in said
    assert "is not UTF-8" in belated("related", "\udcff", "--store", mine)[2]
    assert "no other product is cold" in belated("related", "p1", "--store", mine, "--new", "3")[1]


def test_cold_products_have_places_of_their_own(tmp_path: Path) -> None:
    """--new adds cold ones by rel that are not among the first, as many as there are, and leaves the first alone."""
    unsold = [{"type": "item", "item_id": f"n{n}", "at": T0, "features": {"group": "g2", "price": n}} for n in range(3)]
    run(tmp_path, parts([*unsold, *EVENTS], 1))
    words = ("related", "p6", "--store", f"sqlite:///{tmp_path}/store.db", "--json")
    everyone = json.loads(belated(*words, "-k", "30")[1])
    first, cold = everyone[:2], [one for one in everyone[2:] if one["cold"]]
    assert {one["item"] for one in cold} <= {"n0", "n1", "n2"}
    assert len(cold) >= 2
    for new in (1, 2, 30):
        assert json.loads(belated(*words, "-k", "2", "--new", str(new))[1]) == first + cold[:new]


def test_status_rollback_and_refresh(mine: str) -> None:
    """Back to the version before and on to a new one: each a commit, each a swap, and what is served follows."""
    told = belated("graph", "status", "--store", mine)[1]
    assert "served: version 3" in told
    assert "settings links, shift " in told
    assert belated("graph", "rollback", "--store", mine)[:2] == (0, "version 2 is served again\n")
    assert json.loads(belated("graph", "status", "--store", mine, "--json")[1])["bundles"][0]["version"] == 2
    assert belated("graph", "refresh", "--store", mine)[1].startswith("version 4 is served: 20 products")
    with existing(mine) as connection:
        rows = ledger.load_swaps(connection)
    assert [row.version for row in rows] == [1, 2, 3, 4]  # of one moment the last counts


def test_what_came_since_is_not_in_the_yardsticks() -> None:
    """However heavy or gone the old edges are by then, figures are the same: those of the edges of then, by hand."""
    then = taken(1)
    before = snapshot.learn(then, None)
    new = torch.tensor([[0, 1, 2], [41, 42, 43]])
    told, order = [], torch.argsort(torch.cat([then.bought, new], 1)[0], stable=True)
    for factor in (1.0, 7.0):
        weight = torch.cat([then.weight * torch.linspace(1, factor, len(then.weight)), torch.ones(3)])[order]
        since = torch.cat([then.since, torch.full((3,), T0 + 2 * DAY)])[order]
        later = then._replace(
            until=T0 + 3 * DAY, bought=torch.cat([then.bought, new], 1)[:, order], weight=weight, since=since
        )
        told.append(prequential.interval(before, later))
        some = torch.arange(len(since)) % 3 > 0
        some |= since > before.until
        left = later._replace(bought=later.bought[:, some], weight=weight[some], since=since[some])
        told.append(prequential.interval(before, left))
    assert all(repr(one) == repr(told[0]) for one in told)
    assert told[0] is not None
    assert (told[0].warm, told[0].cold) == (3, 0)
    into = torch.zeros(len(then.ids)).index_add_(0, then.bought[1], then.weight)
    hits = []
    for u, v in new.T.tolist():
        offered = into.clone()
        offered[[u, *then.bought[1, then.bought[0] == u].tolist()]] = -1
        hits.append(float(1 + (offered > offered[v]).sum() + ((offered == offered[v]).sum() - 1) / 2 <= 10))
    assert told[0].figures["popularity"].hits == pytest.approx(sum(hits) / 3)
    assert prequential.interval(before._replace(bought=None), left) is None


def test_evaluate(mine: str, tmp_path: Path) -> None:
    """Of a store, and of a log: the same figures where both have the version."""
    found = json.loads(belated("graph", "evaluate", "--store", mine, "--json")[1])
    assert [one["version"] for one in found] == [2, 3]
    assert found[0]["figures"].keys() == {"version 2", "popularity", "walk"}
    assert 0 <= found[0]["figures"]["walk"]["hits"] <= 1
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(lines(EVENTS)) + b"\n")
    (tmp_path / "b.toml").write_text('[learner]\nwindow = "2d"\nkeep = "10d"\ngraph_every = "3d"\n')
    again = json.loads(belated("graph", "evaluate", str(log), "-c", str(tmp_path / "b.toml"), "--json")[1])
    assert [one["version"] for one in again] == [1, 2]
    assert again[1] == found[0]
    assert "cold HR@10" in belated("graph", "evaluate", "--store", mine)[1]
    assert belated("graph", "evaluate")[0] == 2


def test_the_export_has_what_it_said(mine: str, tmp_path: Path) -> None:
    """As it is stored with each impression; empty before the first version."""
    assert belated("labels", "export", str(tmp_path / "t.csv"), "--store", mine)[0] == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        found = {row["impression_id"]: row["graph"] for row in csv.DictReader(file)}
    with existing(mine) as connection:
        stored = connection.execute(select(impressions.c.id, impressions.c.graph)).all()
    assert {name: found[name] for name, _ in stored} == {name: text or "" for name, text in stored}
    assert {bool(text) for text in found.values()} == {True, False}


def test_without_a_graph_the_remedy_is_told(tmp_path: Path) -> None:
    """A store of a run without a graph has no related products."""
    url = f"sqlite:///{tmp_path}/store.db"
    backtest("log", ListSource(parts(EVENTS[:50], 1)), SETTINGS.model_copy(update={"graph_every": None}), url)
    assert "--graph-every 7d" in " ".join(belated("related", "p1", "--store", url)[2].split())


def test_a_forgotten_user(mine: str) -> None:
    """Impressions go with what the graph said of them; pairs and bundles, which name nobody, stay."""
    before = stand(mine)
    forgotten = forget("u1", mine)
    assert forgotten.counts["impressions"]
    with existing(mine) as connection:
        assert connection.execute(select(impressions.c.graph).where(impressions.c.user_id == "u1")).all() == []
    assert stand(mine) == before


def _ends(a: str, b: str) -> tuple[str, str]:
    return min(a, b), max(a, b)


def test_what_a_snapshot_keeps_does_not_hang_on_names() -> None:
    """Each product keeps its heaviest pairs, of a co-view either end: the same ones if all names are turned round."""
    names = [f"m{n:03}" for n in range(90)]
    other = dict(zip(names, reversed(names), strict=True))
    weights = torch.rand(90, 90, generator=torch.Generator().manual_seed(0)).tolist()

    def pairs(called: Callable[[str], str]) -> list[Pair]:
        views = [
            Pair(CO_VIEW, *_ends(called(names[u]), called(names[v])), weights[u][v], 0)
            for u in range(90)
            for v in range(u)
        ]
        return sorted(
            [*views, *(Pair(CO_PURCHASE, called("m000"), called(v), weights[0][n], 0) for n, v in enumerate(names))]
        )

    kept = snapshot._heaviest(pairs(lambda name: name))
    renamed = snapshot._heaviest(pairs(lambda name: other[name]))
    assert {(p.kind, p.weight) for p in kept} == {(p.kind, p.weight) for p in renamed}
    assert kept == sorted(kept)
    of = Counter(end for p in kept if p.kind == CO_VIEW for end in (p.source, p.target))
    assert min(of.values()) == snapshot.TOP
    assert sum(p.kind == CO_PURCHASE for p in kept) == snapshot.TOP
