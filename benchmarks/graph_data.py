"""Directed graphs of the benchmark, from the files named in the folder of real data."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learner.graph import features
from learner.graph.edges import Edges

TRAIN, VALID = 0.75, 0.05  # of the edges; the rest is the test


class Data(NamedTuple):
    """``pairs`` [2, E]: all edges; ``words``: the features."""

    nodes: int
    pairs: Tensor
    words: Edges


class Split(NamedTuple):
    """Edges [2, .]."""

    train: Tensor
    valid: Tensor
    test: Tensor


def read(folder: Path, name: str) -> Data:
    """A graph of an .npz of CSR arrays; loops are left out."""
    with np.load(folder / f"{name}_directed.npz", allow_pickle=False) as file:
        found = {key: torch.from_numpy(file[key].astype(np.int64)) for key in file.files if file[key].dtype.kind == "i"}
    nodes, width = len(found["indptr"]) - 1, int(found["x_shape"][1])
    pairs = _pairs(found["indptr"], found["indices"])
    words = features.words(nodes, width, _pairs(found["x_indptr"], found["x_indices"]))
    return Data(nodes, pairs[:, pairs[0] != pairs[1]], words)


def _pairs(ptr: Tensor, target: Tensor) -> Tensor:
    return torch.stack([torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr.diff()), target])


def split(pairs: Tensor, seed: int) -> Split:
    """Edges in random order, cut at TRAIN and TRAIN + VALID."""
    count = pairs.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return Split(*pairs[:, order].tensor_split((int(TRAIN * count), int((TRAIN + VALID) * count)), dim=1))
