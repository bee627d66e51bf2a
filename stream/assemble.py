"""The one place where facts become numbers: features -> `Rows`, observations -> `Batch`.

A string, or each string of a list, is hashed with its feature's name. A number has a column of its own. Features get
their places in the order in which they first pass; strings beyond the last slot share it, and numbers beyond the last
column are hashed by their order of magnitude.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import from_json

from labelstore.observations import Observations
from learner.batch import KINDS, Batch, Rows
from learner.model import Shape

Features = Mapping[str, Any]


@lru_cache(maxsize=2**18)
def bucket(name: str, value: str, buckets: int) -> int:
    """The bucket of a hashed value: CRC-32 of its name and text."""
    return zlib.crc32(f"{name}\x1f{value}".encode("utf-8", "surrogatepass")) % buckets


def magnitude(number: float) -> str:
    """A number as a word, where numbers are hashed: sign and natural logarithm, rounded.

    >>> magnitude(0), magnitude(19.99), magnitude(-1e9)
    ('0', '3', '-21')
    """
    return f"{math.copysign(math.log1p(abs(number)), number):.0f}"


class Assembler:
    """Remembers which feature has which place, and which kind of signal; saved with the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.slots: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        self.kinds: dict[str, int] = {}

    def state(self) -> dict[str, list[str]]:
        """The names, in the order of their places."""
        return {"slots": list(self.slots), "columns": list(self.columns), "kinds": list(self.kinds)}

    def restore(self, state: Mapping[str, Sequence[str]]) -> None:
        """Go on from `state`."""
        self.slots = {name: place for place, name in enumerate(state["slots"])}
        self.columns = {name: place for place, name in enumerate(state["columns"])}
        self.kinds = {name: place for place, name in enumerate(state["kinds"])}

    def meet(self, kinds: Iterable[str]) -> None:
        """Kinds of signal get their places in the order in which they pass."""
        for kind in kinds:
            if len(self.kinds) < KINDS - 1:
                self.kinds.setdefault(kind, len(self.kinds))

    def rows(self, features: Iterable[Features]) -> Rows:
        """Encoded features, one row each."""
        ids: list[int] = []
        slots: list[int] = []
        ptr = [0]
        cells: list[int] = []  # row * columns + column of each number
        values: list[float] = []
        width, last, buckets = self.shape.numbers, self.shape.slots - 1, self.shape.buckets
        for row in features:
            start = (len(ptr) - 1) * width
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    if (column := _place(self.columns, name, width)) < width:
                        cells.append(start + column)
                        values.append(value)
                        continue
                    value = magnitude(value)
                slot = _place(self.slots, name, last)
                for text in value if isinstance(value, list) else (value,):
                    ids.append(bucket(name, text, buckets))
                    slots.append(slot)
            ptr.append(len(ids))
        numbers = np.full((len(ptr) - 1) * width, np.nan)
        numbers[cells] = values
        table = torch.from_numpy(numbers.reshape(-1, width))
        return Rows(_whole(ids), _whole(slots), _whole(ptr), table)

    def batch(self, seen: Observations) -> Batch:
        """Observations as tensors, row by row."""
        place = {seq: row for row, seq in enumerate(seen.features)}
        rows = self.rows(with_graph(from_json(text), seen.graph.get(seq)) for seq, text in seen.features.items())
        counts, since = self._signals(seen)
        counts_now, signalled = self._signalled(seen)
        return Batch(
            rows=rows.take(torch.tensor([place[seq] for seq in seen.impression.tolist()], dtype=torch.int64)),
            look=torch.from_numpy(seen.look),
            impression=torch.from_numpy(seen.impression),
            at=_seconds(seen.at),
            shown=_seconds(seen.shown_at),
            elapsed=_seconds(seen.first_at - seen.shown_at),
            label=torch.from_numpy(seen.label).to(torch.float32),
            first_label=torch.from_numpy(seen.first_label).to(torch.float32),
            delay=torch.where(torch.from_numpy(seen.delay) < 0, -1.0, _seconds(seen.delay)),
            signals=torch.from_numpy(counts),
            since=torch.from_numpy(since),
            age=_seconds(seen.at - seen.shown_at),
            before=torch.from_numpy(seen.before).to(torch.float32),
            age_before=_seconds(seen.before_at - seen.shown_at),
            signals_now=torch.from_numpy(counts_now),
            signalled=torch.from_numpy(signalled),
        )

    def _signals(self, seen: Observations) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        counts = np.zeros((len(seen.at), KINDS), dtype=np.float32)
        since = np.full(len(seen.at), -1.0)
        for row, kind, age in seen.signals:
            counts[row, self.kinds.get(kind, KINDS - 1)] += 1
            if since[row] < 0 or age / 1000 < since[row]:
                since[row] = age / 1000
        return counts, since

    def _signalled(self, seen: Observations) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        counts = np.zeros((len(seen.at), KINDS), dtype=np.float32)
        first = np.full((len(seen.at), KINDS), -1.0)
        for row, kind, age in seen.signalled:
            place = self.kinds.get(kind, KINDS - 1)
            counts[row, place] += 1
            if first[row, place] < 0 or age / 1000 < first[row, place]:
                first[row, place] = age / 1000
        return counts, first


def with_graph(features: Features, graph: str | None) -> Features:
    """Features as shown and what the product graph said of the impression, JSON, but for its version.

    >>> with_graph({"page": "front"}, '{"version": 3, "rel": 0.5}')
    {'page': 'front', 'graph.rel': 0.5}
    """
    if graph is None:
        return features
    return {**features, **{f"graph.{name}": value for name, value in from_json(graph).items() if name != "version"}}


def _place(places: dict[str, int], name: str, most: int) -> int:
    """The place of a name, given in order of arrival; ``most`` for all that come when the places are taken."""
    place = places.get(name, len(places))
    if place < most and place == len(places):
        places[name] = place
    return place


def _whole(values: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _seconds(ms: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(ms).to(torch.float64) / 1000
