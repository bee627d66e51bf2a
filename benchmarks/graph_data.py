"""Directed graphs of the benchmark, from the files named in the folder of real data."""

import gzip
import html
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from learner.graph import features
from learner.graph.edges import Edges

TRAIN, VALID = 0.75, 0.05  # of the edges; the rest is the test

MAGAZINES = "magazines"
LONGEST = 60  # letters of a category; what is longer is a piece of a page


class Data(NamedTuple):
    """``pairs`` [2, E]: all edges; ``words``: the features; ``viewed`` [2, V]: co-views, where the graph has them."""

    nodes: int
    pairs: Tensor
    words: Edges
    viewed: Tensor | None = None


class Split(NamedTuple):
    """Edges [2, .]."""

    train: Tensor
    valid: Tensor
    test: Tensor


def read(folder: Path, name: str) -> Data:
    """A graph of an .npz of CSR arrays, or `MAGAZINES`; loops are left out."""
    if name == MAGAZINES:
        return magazines(folder)
    with np.load(folder / f"{name}_directed.npz", allow_pickle=False) as file:
        found = {key: torch.from_numpy(file[key].astype(np.int64)) for key in file.files if file[key].dtype.kind == "i"}
    nodes, width = len(found["indptr"]) - 1, int(found["x_shape"][1])
    pairs = _pairs(found["indptr"], found["indices"])
    words = features.words(nodes, width, _pairs(found["x_indptr"], found["x_indices"]))
    return Data(nodes, pairs[:, pairs[0] != pairs[1]], words)


def magazines(folder: Path) -> Data:
    """Amazon Magazine Subscriptions: also bought, also viewed; features are brand or none, categories, title.

    Most titles and prices of the file are pieces of a page's markup and say nothing: they are left out.
    """
    with gzip.open(folder / "amazon2018_meta_Magazine_Subscriptions.json.gz", "rt") as file:
        told: list[dict[str, Any]] = [json.loads(line) for line in file]
    place = {name: n for n, name in enumerate(dict.fromkeys(row["asin"] for row in told))}

    def links(name: str) -> Tensor:
        ends = {(row["asin"], other) for row in told for other in row.get(name) or () if other in place}
        both = sorted((place[u], place[v]) for u, v in ends if u != v)
        return torch.tensor(both, dtype=torch.int64).reshape(-1, 2).T.contiguous()

    number: dict[str, int] = {}
    said = sorted({(place[row["asin"]], number.setdefault(word, len(number))) for row in told for word in _said(row)})
    words = features.words(len(place), len(number), torch.tensor(said).T.contiguous())
    return Data(len(place), links("also_buy"), words, links("also_view"))


def _said(row: dict[str, Any]) -> list[str]:
    title, brand = ("" if "<" in row[name] else row[name].lower() for name in ("title", "brand"))
    categories = [f"category {c}" for c in map(html.unescape, row["category"][1:]) if len(c) < LONGEST]
    return [*categories, f"brand {brand}", *re.findall("[a-z0-9]+", f"{title} {brand}")]


def _pairs(ptr: Tensor, target: Tensor) -> Tensor:
    return torch.stack([torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr.diff()), target])


def split(pairs: Tensor, seed: int) -> Split:
    """Edges in random order, cut at TRAIN and TRAIN + VALID."""
    count = pairs.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return Split(*pairs[:, order].tensor_split((int(TRAIN * count), int((TRAIN + VALID) * count)), dim=1))
