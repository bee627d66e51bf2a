"""Small directed graphs for the tests of learner/graph."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from learner.graph import features
from learner.graph.edges import Edges, Graph, edges, graph


class World(NamedTuple):
    """Products in groups: group g is bought with group g + 1, and never the other way round."""

    graph: Graph
    words: Edges
    group: Tensor
    held_out: Tensor


@st.composite
def pairs(draw: st.DrawFn, most: int = 12) -> tuple[int, Tensor]:
    """Nodes and pairs [2, E], some of them more than once, no loops."""
    nodes = draw(st.integers(2, most))
    ends = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda pair: pair[0] != pair[1])
    found = draw(st.lists(ends, min_size=0, max_size=30))
    return nodes, torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T


def dense(given: Edges, mass: Tensor | None = None) -> Tensor:
    """The matrix of the edges, row = source."""
    mass = given.weight if mass is None else mass
    matrix = torch.zeros(len(given.ptr) - 1, len(given.in_ptr) - 1, dtype=mass.dtype)
    matrix[given.source, given.target] = mass
    return matrix


def some(nodes: int, count: int, seed: int = 0) -> Edges:
    """Random edges with random weights."""
    chance = torch.Generator().manual_seed(seed)
    found = torch.randint(0, nodes, (2, count), generator=chance)
    found = found[:, found[0] != found[1]]
    return edges(nodes, found, torch.rand(found.shape[1], generator=chance) + 0.1)


def world(groups: int = 6, size: int = 20, each: int = 8, seed: int = 0) -> World:
    """Each product of group g is bought with ``each`` of group g + 1, the last group with none; words tell the group."""
    chance = torch.Generator().manual_seed(seed)
    nodes = groups * size
    source = torch.arange(nodes - size).repeat_interleave(each)
    target = (source // size + 1) * size + torch.randint(0, size, (len(source),), generator=chance)
    found = edges(nodes, torch.stack([source, target]))
    order = torch.randperm(len(found.source), generator=chance)
    cut = len(order) * 4 // 5
    both = torch.stack([found.source, found.target])
    group = torch.arange(nodes) // size
    said = torch.stack([torch.arange(nodes).repeat(2), torch.cat([group, groups + torch.arange(nodes) % 7])])
    return World(
        graph(nodes, both[:, order[:cut]]), features.words(nodes, groups + 7, said), group, both[:, order[cut:]]
    )
