"""A version of the product graph: an immutable bundle of places, and what it says of an impression.

    rel    how well the item follows the context item, as a logit; absent without a context, or where one is not known
    rank   log2 of its place among all items, 1 the best, by rel to the same context
    out    log(1 + weight of what it leads to)
    into   log(1 + weight of what leads to it)
    cold   1 if nothing was known to lead to it when this version was learned

None of them changes when the space is turned, so a swap hardly moves the model that learns from them. Scores are made in
blocks of one shape, for the last bits of a matrix product depend on it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from labelstore.events import Impression
from learner.graph.dual import Tables
from learner.graph.embeddings import Embeddings, offered, queries
from stream.checkpoint import kept

BLOCK = 32  # contexts that are scored at once
WIDE = 16  # a matrix product of fewer columns sums a row by where it stands
CELLS = 2**22  # scores held at once, at least those of one context


class Bundle(NamedTuple):
    """``version``: number of the refresh. ``space``: coordinates of versions with the same one can be compared.

    ``ids``: N products, sorted. ``warm`` [N] bool: something led to it. ``out``, ``into`` [N] float32: weighted degrees.
    ``metrics``: what the refresh has measured. ``until``: the midnight of its snapshot, ms. ``tables``: what the next
    refresh starts from, in the coordinates in which they were learned; None of a method that begins anew. ``bought`` [2, E]
    int32, ``weight`` [E] float32: the edges it was learned from; None in a file of before they were kept.
    """

    version: int
    space: int
    until: int
    ids: tuple[str, ...]
    embeddings: Embeddings
    warm: Tensor
    out: Tensor
    into: Tensor
    metrics: dict[str, Any]
    tables: Tables | None = None
    bought: Tensor | None = None
    weight: Tensor | None = None


def to_bytes(bundle: Bundle) -> bytes:
    """As a safetensors file; figures are JSON in its header. The same bundle gives the same bytes."""
    tensors = {f"places.{name}": value for name, value in bundle.embeddings._asdict().items()}
    tensors |= {name: getattr(bundle, name) for name in ("warm", "out", "into")}
    if bundle.bought is not None and bundle.weight is not None:
        tensors |= {"bought": bundle.bought, "weight": bundle.weight}
    if bundle.tables is not None:
        learned = bundle.tables._asdict().items()
        tensors |= {f"tables.{name}": value for name, value in learned if value is not None}
    tensors["ids"] = of_ids(bundle.ids)
    told = {name: getattr(bundle, name) for name in ("version", "space", "until", "metrics")}
    text = json.dumps(told, sort_keys=True, allow_nan=False)
    return save({name: value.contiguous() for name, value in tensors.items()}, {"bundle": text})


def from_bytes(data: bytes) -> Bundle:
    """The bundle of `to_bytes`."""
    told = header(data, "bundle")
    tensors: dict[str, Any] = load(data)
    places = Embeddings(*(tensors.pop(f"places.{name}") for name in Embeddings._fields))
    learned = {name: tensors.pop(f"tables.{name}") for name in Tables._fields if f"tables.{name}" in tensors}
    tables = Tables(**learned) if learned else None
    return Bundle(**told | {"ids": ids_of(tensors, told)}, embeddings=places, tables=tables, **tensors)


def read(folder: Path, named: dict[str, Any]) -> Bundle:
    """A bundle that a commit names, in the folder of checkpoints."""
    return from_bytes(kept(folder, named["file"], named["sha256"]))


def of_ids(ids: Sequence[str]) -> Tensor:
    """Ids as the bytes of a JSON list, uint8: a header holds no more than 100 MB."""
    return torch.frombuffer(
        bytearray(json.dumps(ids, ensure_ascii=False).encode("utf-8", "surrogatepass")), dtype=torch.uint8
    )


def ids_of(tensors: dict[str, Tensor], told: dict[str, Any]) -> tuple[str, ...]:
    """The ids of `of_ids`, taken out of the tensors of a file; or what is ``told`` in its header, where they were once."""
    if "ids" not in tensors:
        return tuple(told["ids"])
    return tuple(json.loads(tensors.pop("ids").numpy().tobytes().decode("utf-8", "surrogatepass")))


def header(data: bytes, name: str) -> dict[str, Any]:
    """The JSON under a name in the header of a safetensors file, whose first 8 bytes are the header's length."""
    length = int.from_bytes(data[:8], "little")
    told: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][name])
    return told


class Serving:
    """A bundle ready to be asked."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.place = {name: n for n, name in enumerate(bundle.ids)}
        index = offered(bundle.embeddings).T
        self._index = torch.nn.functional.pad(index, (0, -len(bundle.ids) % WIDE)).contiguous()
        self._block = max(1, min(BLOCK, CELLS // max(len(bundle.ids), 1)))
        self._degrees = [
            [math.log1p(value) for value in degree.tolist()] for degree in (bundle.out, bundle.into)
        ]  # fmt: skip
        self._warm: list[bool] = bundle.warm.tolist()
        self._asks: list[bool] = bundle.embeddings.asks.tolist()

    def features(self, shown: Sequence[Impression]) -> list[dict[str, float]]:
        """What the bundle says of each impression, and its version."""
        found = [self._of(impression.item_id) for impression in shown]
        asked: dict[int, list[tuple[int, int]]] = {}
        for n, impression in enumerate(shown):
            context, item = self.place.get(impression.context_item_id or ""), self.place.get(impression.item_id or "")
            if context is not None and item is not None and context != item and self._asks[context]:
                asked.setdefault(context, []).append((n, item))
        contexts = sorted(asked)
        for start in range(0, len(contexts), self._block):
            some = contexts[start : start + self._block]
            for context, scores in zip(some, self.scores(some), strict=False):
                for n, item in asked[context]:
                    if (rel := float(scores[item])) > -math.inf:
                        found[n] |= {"rel": rel, "rank": math.log2(1 + int((scores > rel).sum()))}
        return found

    def scores(self, contexts: Sequence[int]) -> Tensor:
        """rel of all items [N] to each of at most a block of contexts; -inf of those not known as targets and of itself."""
        padded = torch.tensor([*contexts, *[0] * (self._block - len(contexts))], dtype=torch.int64)
        scores = (queries(self.bundle.embeddings, padded) @ self._index)[:, : len(self.bundle.ids)]
        scores[torch.arange(self._block), padded] = -torch.inf
        return scores[: len(contexts)]

    def related(self, item: str, k: int, new: int = 0) -> list[tuple[str, float]]:
        """The k products that follow one best, with rel, and after them the ``new`` best of the other cold ones.

        Fewer where fewer are known. After one of which nothing is `known`, those that are bought most whatever came before
        them, as far as biases tell: none where there are none.
        """
        if self.known(item):
            scores = self.scores([self.place[item]])[0]
        else:
            bias = self.bundle.embeddings.target_bias
            if not bool(bias.any()):
                return []
            scores = bias.masked_fill(~self.bundle.embeddings.answers, -torch.inf)
            if item in self.place:
                scores[self.place[item]] = -torch.inf
        # of equal ones the first id, which topk does not say
        best, which = scores.sort(descending=True, stable=True)
        cold = k + (~self.bundle.warm[which[k:]]).nonzero().squeeze(1)[:new]
        listed = torch.cat([torch.arange(min(k, len(which))), cold])
        pairs = zip(which[listed].tolist(), best[listed].tolist(), strict=True)
        return [(self.bundle.ids[n], rel) for n, rel in pairs if rel > -math.inf]

    def known(self, item: str) -> bool:
        """Whether anything is known of what follows it."""
        place = self.place.get(item)
        return place is not None and self._asks[place]

    def cold(self, item: str) -> bool:
        """Whether nothing was known to lead to it."""
        place = self.place.get(item)
        return place is None or not self._warm[place]

    def _of(self, item: str | None) -> dict[str, float]:
        place = self.place.get(item or "")
        if item is None:
            return {"version": self.bundle.version}
        told = {"version": self.bundle.version, "cold": int(self.cold(item))}
        if place is None:
            return {**told, "out": 0.0, "into": 0.0}
        return {**told, "out": self._degrees[0][place], "into": self._degrees[1][place]}
