"""Directed edges against dense matrices."""

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck

import graphs
from learner.graph import edges as directed
from learner.graph import features


@given(graphs.pairs())
def test_pairs_become_one_matrix(case: tuple[int, Tensor]) -> None:
    """Weights of equal pairs add up, and both orders hold the same edges."""
    nodes, pairs = case
    weight = torch.arange(1, pairs.shape[1] + 1).float()
    matrix = torch.zeros(nodes, nodes).index_put_((pairs[0], pairs[1]), weight, accumulate=True)
    found = directed.edges(nodes, pairs, weight)
    assert torch.equal(graphs.dense(found), matrix)
    assert torch.equal(found.source[found.in_edge], found.in_source)
    assert torch.equal(found.ptr.diff(), (matrix > 0).sum(1))
    assert torch.equal(found.in_ptr.diff(), (matrix > 0).sum(0))
    assert bool((found.target[found.in_edge].diff() >= 0).all())
    assert torch.equal(graphs.dense(directed.turned(found)), matrix.T)
    assert all(torch.equal(a, b) for a, b in zip(directed.turned(directed.turned(found)), found, strict=True))


@given(graphs.pairs())
def test_a_part_of_the_edges(case: tuple[int, Tensor]) -> None:
    """What is kept is what the kept pairs alone would have made; degrees are sums of rows and columns."""
    nodes, pairs = case
    found = directed.edges(nodes, pairs)
    mask = torch.arange(len(found.source)) % 3 != 1
    alone = directed.edges(nodes, torch.stack([found.source, found.target])[:, mask], found.weight[mask])
    assert all(torch.equal(a, b) for a, b in zip(directed.kept(found, mask), alone, strict=True))
    d_out, d_in = directed.degrees(found)
    assert torch.equal(d_out, graphs.dense(found).sum(1))
    assert torch.equal(d_in, graphs.dense(found).sum(0))


@given(graphs.pairs())
def test_which_edges_are_one_way(case: tuple[int, Tensor]) -> None:
    nodes, pairs = case
    found = directed.edges(nodes, pairs)
    matrix, back = graphs.dense(found) > 0, directed.reversed_edges(found)
    assert torch.equal(back >= 0, matrix.T[found.source, found.target])
    assert torch.equal(found.source[back[back >= 0]], found.target[back >= 0])
    ends = torch.arange(nodes)
    assert torch.equal(directed.linked(found, ends[:, None], ends), matrix)


@pytest.mark.parametrize("back", [False, True])
def test_sums_along_edges_are_products_of_matrices(back: bool) -> None:
    """Forward, and the gradient against that of the dense product and finite differences."""
    given_edges = graphs.some(9, 30)
    coefficients = torch.randn(len(given_edges.source), dtype=torch.float64)
    values = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    matrix = graphs.dense(given_edges, coefficients)
    expected = (matrix.T if back else matrix) @ values
    found = directed.propagate(given_edges, coefficients, values, back)
    assert torch.allclose(found, expected)
    pull = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * pull).sum(), values)[0] for y in (found, expected)]
    assert torch.allclose(gradients[0], gradients[1])
    assert gradcheck(lambda v: directed.propagate(given_edges, coefficients, v, back), (values,))


def test_float32_and_no_edges() -> None:
    """The same in float32; a graph without edges sums to zero."""
    given_edges = graphs.some(50, 400)
    values = torch.randn(50, 65)
    assert torch.allclose(
        directed.propagate(given_edges, given_edges.weight, values), graphs.dense(given_edges) @ values, atol=1e-5
    )
    nothing = directed.edges(4, torch.empty(2, 0, dtype=torch.int64))
    assert torch.equal(directed.propagate(nothing, nothing.weight, torch.ones(4, 2), True), torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("pairs", "weight", "said"),
    [
        ([[0, 1], [1, 1]], None, "node 1 has an edge to itself"),
        ([[0, 1], [1, 3]], None, "node 3 is not one of 0 .. 2"),
        ([[0, -1], [1, 0]], None, "node -1"),
        ([[0, 1], [1, 2]], [1.0, 0.0], "weight 0.0"),
        ([[0, 1], [1, 2]], [1.0, float("nan")], "weight nan"),
        ([[0, 1], [1, 2]], [1.0], "1.* weights for 2 edges"),
        ([[0, 1, 2]], None, "give sources and targets"),
    ],
)
def test_what_is_no_graph_is_refused(pairs: list[list[int]], weight: list[float] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        directed.graph(3, torch.tensor(pairs), None if weight is None else torch.tensor(weight))


def test_co_views_count_in_both_directions() -> None:
    found = directed.graph(4, torch.tensor([[0], [1]]), viewed=torch.tensor([[0, 1, 2], [1, 0, 3]]))
    assert found.viewed is not None
    matrix = graphs.dense(found.viewed)
    assert torch.equal(matrix, matrix.T)
    assert matrix.sum() == 4


def test_words_are_rows_of_unit_length() -> None:
    """idf, unit length, and the products with tables and among rows, against dense ones."""
    pairs = torch.tensor([[0, 0, 1, 2, 2, 2, 3], [0, 1, 1, 0, 1, 2, 1]])
    x = features.words(5, 4, pairs)
    rows = features.dense(x, torch.arange(5))
    counts = torch.tensor([2.0, 4.0, 1.0, 1.0])
    raw = torch.zeros(5, 4)
    raw[pairs[0], pairs[1]] = (5 / counts).log()[pairs[1]]
    assert torch.allclose(rows, features.numbers(raw))
    table = torch.randn(4, 3)
    assert torch.allclose(features.project(x, table), rows @ table, atol=1e-6)
    these, those = torch.tensor([2, 0]), torch.tensor([4, 1, 2])
    assert torch.allclose(features.alike(x, these, those), rows[these] @ rows[those].T, atol=1e-6)
    assert torch.allclose(features.alike(rows, these, those), rows[these] @ rows[those].T)
