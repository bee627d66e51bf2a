"""What a store knows of products that go together, and what a person may do about it: learn now, or go back a version.

Both are commits of `stream.checkpoint`, as if the log had said so at the event time the store has reached. A replay is told
when a version was rolled back; one that a person had learned it cannot make again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from labelstore import item_pairs, ledger
from labelstore.address import shown
from labelstore.item_pairs import CO_PURCHASE, Pair
from labelstore.ledger import Checkpoint
from labelstore.store import StoreError, existing
from stream import snapshot
from stream.bundle import Bundle, Serving, read
from stream.prequential import Interval, interval
from stream.refresh import KEPT, Refresh
from stream.settings import Settings
from stream.workspace import checkpoint_folder, opened

NO_VERSION = "no version of the product graph yet; `belated graph status` says why"


class Related(NamedTuple):
    """A product that follows another. ``rel``: a logit; ``bought``: weight of the co-purchases counted so far, 0 if none.

    ``known``: whether anything is known of the other; if not, this one is bought much whatever came before it.
    """

    item: str
    rel: float
    cold: bool
    bought: float
    known: bool


class Stand(NamedTuple):
    """How the graph of a store stands. ``bundles``: the version that is served, then the one before, without their places.

    ``pairs``: how many of each kind; ``refused``: number, midnight, why; ``last``: midnight of the last refresh, ms.
    """

    bundles: list[dict[str, Any]]
    pairs: dict[str, int]
    refused: list[Any]
    last: int | None
    every: int
    passed: int


def related(url: str, item: str, k: int, new: int = 0, checkpoints: Path | None = None) -> list[Related]:
    """The k products that follow one best, by the version that is served, and after them the ``new`` best of the other
    cold ones. If nothing is known of it: the products that are bought most.

    Raises:
        StoreError, CheckpointError: with the remedy.
    """
    with existing(url) as connection:
        newest, bundles = _bundles(connection, url, checkpoints, kept=1)
        if not bundles:
            raise StoreError(f"store {shown(url)}: {NO_VERSION}")
        half_life = Settings(**newest.settings).graph_half_life
        pairs = item_pairs.load(connection, newest.progress["passed"], half_life, CO_PURCHASE, item)
    bought, serving = {pair.target: pair.weight for pair in pairs}, Serving(bundles[0])
    found, known = serving.related(item, k, new), serving.known(item)
    return [Related(name, rel, serving.cold(name), bought.get(name, 0.0), known) for name, rel in found]


def stand(url: str, checkpoints: Path | None = None) -> Stand:
    """How the graph stands.

    Raises:
        StoreError, CheckpointError: with the remedy.
    """
    with existing(url) as connection:
        newest, bundles = _bundles(connection, url, checkpoints)
        told, pairs = newest.progress["graph"], item_pairs.sizes(connection)
    figures = [
        {"version": one.version, "space": one.space, "at": file["at"], "until": one.until, "metrics": one.metrics}
        for one, file in zip(bundles, told["bundles"], strict=False)
    ]
    every = Settings(**newest.settings).graph_every or 0
    return Stand(figures, pairs, told["refused"], told["last"], every, newest.progress["passed"])


def evaluate(url: str, checkpoints: Path | None = None) -> list[Interval]:
    """How good the versions that are kept were at the edges that came after each: the older one first.

    Raises:
        StoreError, CheckpointError: with the remedy.
    """
    with existing(url) as connection:
        newest, bundles = _bundles(connection, url, checkpoints)
        settings, now = Settings(**newest.settings), newest.progress["midnight"]
        pairs, catalogue = item_pairs.load(connection, now, settings.graph_half_life), item_pairs.described(connection)
    found, bundles = [], sorted(bundles, key=lambda one: one.version)  # a rollback serves the older one
    for before, after in zip(bundles, [*bundles[1:], None], strict=False):
        then, until = (_as_of(pairs, after), after.until) if after else (pairs, now)
        taken = snapshot.take(then, catalogue, 0, 0, settings.graph_method, until)
        found.append(interval(before, taken))
    return [one for one in found if one is not None]


def _as_of(pairs: list[Pair], version: Bundle) -> list[Pair]:
    """The co-purchases a version was learned from, with their weights then; what has faded since counts as new then."""
    since = {(pair.source, pair.target): pair.since for pair in pairs if pair.kind == CO_PURCHASE}
    if version.bought is None or version.weight is None:
        return [pair for pair in pairs if pair.since <= version.until]
    ends = [(version.ids[u], version.ids[v]) for u, v in version.bought.T.tolist()]
    told = sorted(zip(ends, version.weight.tolist(), strict=True))
    return [Pair(CO_PURCHASE, *end, weight, min(since.get(end, version.until), version.until)) for end, weight in told]


def refresh(url: str, checkpoints: Path | None = None) -> Bundle:
    """Learn a version now, from the pairs of the last midnight, and serve it from here on.

    Raises:
        StoreError: it is refused. CheckpointError: with the remedy.
    """
    with _changed(url, checkpoints) as (graph, progress):
        graph.begin(progress["midnight"])
        graph.swap(progress["passed"])
        if graph.refused and graph.refused[-1][0] == graph.number:
            raise StoreError(f"store {shown(url)}: version {graph.number} is not served: {graph.refused[-1][2]}")
        assert graph.served is not None
        return graph.served.bundle


def roll_back(url: str, checkpoints: Path | None = None) -> int:
    """Serve the version before from here on; its number.

    Raises:
        StoreError: there is none. CheckpointError: with the remedy.
    """
    with _changed(url, checkpoints, serve=False) as (graph, progress):
        version = graph.roll_back(progress["passed"])
        if version is not None:
            return version
        told = progress["graph"]
        if not told["served"]:
            raise StoreError(f"store {shown(url)}: {NO_VERSION}")
        served = told["bundles"][0]["version"]
        raise StoreError(
            f"store {shown(url)}: version {served} is served, and none before it is kept; nothing was changed. "
            "`belated graph refresh` learns a new one now, from the pairs as they are"
        )


def _bundles(connection: Any, url: str, checkpoints: Path | None, kept: int = KEPT) -> tuple[Checkpoint, list[Bundle]]:
    newest = _newest(connection, url)
    told, folder = newest.progress["graph"], checkpoint_folder(url, checkpoints)
    return newest, [read(folder, one) for one in told["bundles"][: min(told["served"], kept)]]


def _newest(connection: Any, url: str) -> Checkpoint:
    newest = ledger.newest(connection)
    if newest is None:
        raise StoreError(f"store {shown(url)}: nothing is committed yet; wait for the first commit")
    if "graph" not in newest.progress:
        raise StoreError(
            f"store {shown(url)}: was written without a product graph; replay the log into a new --store with "
            "--graph-every 7d"
        )
    return newest


@contextmanager
def _changed(url: str, checkpoints: Path | None, serve: bool = True) -> Iterator[tuple[Refresh, dict[str, Any]]]:
    """The graph of a store, to be changed: one commit when the body ends, nothing if it fails. ``serve``: see `Refresh`."""
    torch.set_num_threads(1)
    with existing(url) as connection:
        settings = Settings(**_newest(connection, url).settings)
    with opened(url, settings, checkpoints) as (facts, saved):
        state = saved.load()
        assert state is not None
        tensors, progress = state
        graph = Refresh(settings, facts, saved)
        graph.restore(progress, serve)
        yield graph, progress
        graph.save()
        saved.save(tensors, progress | graph.state())
