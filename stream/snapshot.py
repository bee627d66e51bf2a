"""The product graph as of a midnight, and what is learned from it: the same snapshot gives the same bundle.

Of each product the `TOP` heaviest pairs count, that is those with the largest P(v|u); so the two ways of a basket's pair,
which are equal at first, part where one product is one of many beside the other. Features are words of the catalogue:
texts with their names, numbers by their order of magnitude, hashed.

A bundle is refused where a number is not finite, or where it finds the newest edges worse than `WORSE` times the version
before it. That one never saw them and this one did: it tells a training that went wrong, not how good the graph is; that
is measured on edges that neither has seen, see `belated graph evaluate`.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pydantic_core import from_json
from safetensors.torch import load, save
from torch import Tensor

from labelstore.item_pairs import CO_PURCHASE, CO_VIEW, Pair
from learner.graph import dual
from learner.graph.choice import choose
from learner.graph.cold import placed
from learner.graph.dual import Start
from learner.graph.edges import Edges, Graph, degrees, graph, kept
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import hits, scores_of
from learner.graph.features import Features, words
from learner.graph.methods import GRAPH_METHODS
from learner.graph.popularity import raised
from stream.assemble import bucket, magnitude
from stream.bundle import Bundle, header, ids_of, of_ids
from stream.succession import in_space, popularity, renumbered, rows_of

TOP = 50  # pairs of each product
BUCKETS = 2**14  # of words
NEWEST, TOLD = 0.05, 4000  # share of edges that tell whether a version may be served, and at most so many
WORSE = 0.8
HITS = 10
KNOWN = 0.5  # share of edges that the version before must have had, else the next one begins anew
DOUBLED = 2  # times the edges of the last choice of settings: choose anew


class Refused(Exception):
    """A version that must not be served; the message says why."""


class Snapshot(NamedTuple):
    """``number`` of the refresh; ``until``: its midnight, ms; ``ids``: N products, sorted; ``viewed`` [2, E'] int64.

    ``bought`` [2, E] int64, ``weight`` [E] float32, ``since`` [E] int64 ms, by source and target; ``words`` [2, W] int64.
    """

    number: int
    seed: int
    method: str
    until: int
    ids: tuple[str, ...]
    bought: Tensor
    weight: Tensor
    since: Tensor
    viewed: Tensor
    words: Tensor


def take(
    pairs: Sequence[Pair], catalogue: Sequence[tuple[str, str]], number: int, seed: int, method: str, until: int
) -> Snapshot:
    """A snapshot of pairs as of ``until``, in their order, and of the catalogue: (id, features as JSON)."""
    near = _heaviest(pairs)
    ids = sorted({pair.source for pair in near} | {pair.target for pair in near} | {item for item, _ in catalogue})
    place = {name: n for n, name in enumerate(ids)}
    bought, viewed = ([pair for pair in near if pair.kind == kind] for kind in (CO_PURCHASE, CO_VIEW))
    ends = [
        torch.tensor([[place[p.source] for p in some], [place[p.target] for p in some]], dtype=torch.int64)
        for some in (bought, viewed)
    ]
    said = [(place[item], word) for item, text in catalogue for word in _words(from_json(text))]
    return Snapshot(
        number,
        seed,
        method,
        until,
        tuple(ids),
        ends[0],
        torch.tensor([pair.weight for pair in bought], dtype=torch.float32),
        torch.tensor([pair.since for pair in bought], dtype=torch.int64),
        ends[1],
        torch.tensor(said, dtype=torch.int64).reshape(-1, 2).T.contiguous(),
    )


def _heaviest(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that are among the heaviest of their source; a co-view, which has no direction, of either end."""
    of: dict[tuple[str, str], list[tuple[float, str, int]]] = defaultdict(list)
    for n, pair in enumerate(pairs):
        of[pair.kind, pair.source].append((-pair.weight, pair.target, n))
        if pair.kind == CO_VIEW:
            of[pair.kind, pair.target].append((-pair.weight, pair.source, n))
    near = {n for some in of.values() for *_, n in sorted(some)[:TOP]}
    return [pair for n, pair in enumerate(pairs) if n in near]


def _words(features: Mapping[str, Any]) -> list[int]:
    found: set[int] = set()
    for name, value in features.items():
        if isinstance(value, (int, float)):
            value = magnitude(value)
        found |= {bucket(name, text, BUCKETS) for text in (value if isinstance(value, list) else (value,))}
    return sorted(found)


def to_bytes(told: Snapshot) -> bytes:
    """As a safetensors file, for a process of its own."""
    parts = told._asdict() | {"ids": of_ids(told.ids)}
    plain = {name: value for name, value in parts.items() if not isinstance(value, Tensor)}
    tensors = {name: value.contiguous() for name, value in parts.items() if isinstance(value, Tensor)}
    return save(tensors, {"snapshot": json.dumps(plain, sort_keys=True)})


def from_bytes(data: bytes) -> Snapshot:
    """The snapshot of `to_bytes`."""
    plain = header(data, "snapshot")
    tensors: dict[str, Any] = load(data)
    return Snapshot(**plain | {"ids": ids_of(tensors, plain)}, **tensors)


def learn(told: Snapshot, before: Bundle | None) -> Bundle:
    """The version of the product graph that follows ``before``.

    Raises:
        Refused: it must not be served, or there is nothing to learn from.
    """
    count = len(told.ids)
    try:
        everything = graph(count, told.bought, told.weight, told.viewed if told.viewed.shape[1] else None)
        features = words(count, BUCKETS, told.words) if told.words.shape[1] else None
        metrics, start = _planned(told, before, everything, features)
        method = GRAPH_METHODS[told.method]
        settings = method.settings[metrics["settings"]]
        if start is not None and method.short is not None:
            settings = method.short(settings)
        places, tables = method.train(everything, features, settings, told.seed, start, None)
    except ValueError as error:
        raise Refused(str(error)) from None
    if not all(bool(value.isfinite().all()) for value in places[:4]):
        raise Refused("a place is not a finite number")
    if not (bool(places.asks.any()) and bool(places.answers.any())):
        raise Refused("no product has a place: features that all products share say nothing")
    edges = everything.bought
    metrics |= {"products": count, "edges": len(edges.source), "views": told.viewed.shape[1]}
    every = places
    if features is not None:
        said = None if tables is None else dual.said(tables, features)
        every = placed(places, features, said, shift=metrics["shift"])
    space, past, metrics["popularity"] = told.number, None, 0.0
    if before is not None:
        past = renumbered(before, told.ids)
        metrics["popularity"] = popularity(before, past, told.ids, told.bought, told.since)
    out, into = degrees(edges)
    every = raised(every, into, metrics["popularity"])
    places = every._replace(asks=places.asks, answers=places.answers)  # cold ones turn with the others and do not count
    if before is not None and past is not None:
        places, space, figures = in_space(places, past, before.space, told.number)
        metrics |= figures
    metrics |= _check(places, past, edges, told.since)
    warm = edges.in_ptr.diff() > 0
    places = places._replace(asks=every.asks, answers=every.answers)
    bought = torch.stack([edges.source, edges.target]).int()
    return Bundle(
        told.number, space, told.until, told.ids, places, warm, out, into, metrics, tables, bought, edges.weight
    )


def _planned(
    told: Snapshot, before: Bundle | None, everything: Graph, x: Features | None
) -> tuple[dict[str, Any], Start | None]:
    """Which settings and shift it is learned with, chosen when there were how many edges, from which version on; the start.

    They are chosen anew when the graph has doubled since; if others are better by then, the method begins anew.
    """
    start, count = start_of(told, before), len(everything.bought.source)
    chosen: dict[str, Any] = {"settings": None, "shift": 0.0, "chosen_at": 0}
    if before is not None and start is not None:
        chosen = {name: before.metrics[name] for name in chosen}
    if count >= DOUBLED * chosen["chosen_at"]:
        found = choose(GRAPH_METHODS[told.method], everything, x, told.seed)
        start = start if found.settings == chosen["settings"] else None
        chosen = found._asdict() | {"chosen_at": count}
    version = before.version if before is not None and start is not None else None
    return chosen | {"started_from": version}, start


def start_of(told: Snapshot, before: Bundle | None) -> Start | None:
    """The tables of the version before, and where in them each product is.

    None: the method begins anew, there are no tables, they are of other features, of another width or of settings that there
    are not, or most edges are new.
    """
    method, words_there = GRAPH_METHODS[told.method], BUCKETS if told.words.shape[1] else 0
    if method.short is None or before is None or before.tables is None:
        return None
    settings = method.settings.get(before.metrics.get("settings", ""))
    if settings is None or not dual.fits(before.tables, words_there, settings):
        return None
    if int((told.since <= before.until).sum()) < KNOWN * len(told.since):
        return None
    return Start(before.tables, rows_of(before.ids, told.ids))


def _check(new: Embeddings, past: Embeddings | None, edges: Edges, since: Tensor) -> dict[str, Any]:
    """What was measured; Refused if it must not be served."""
    count = min(max(1, int(len(since) * NEWEST)), TOLD)
    newest = torch.argsort(since, descending=True, stable=True)[:count]
    left = kept(edges, torch.ones(len(since), dtype=torch.bool).index_fill_(0, newest, False))
    test = torch.stack([edges.source[newest], edges.target[newest]])
    now, then = (
        None if given is None else hits(scores_of(given), left, test, given.answers, HITS) / count
        for given in (new, past)
    )
    if now is not None and then is not None and now < WORSE * then:
        raise Refused(f"HR@{HITS} on the newest edges is {now:.4f}, that of the version before {then:.4f}")
    return {"newest": count, "newest_hits": now, "newest_hits_before": then}
