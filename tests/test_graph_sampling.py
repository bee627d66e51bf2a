"""Neighbourhoods: their sizes, whom they hold and how often, against enumeration."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from learner.graph import sampling
from learner.graph.edges import degrees, edges, turned
from learner.graph.sampling import Sizes


def test_the_exponent_of_a_power_law_is_found() -> None:
    """Of continuous draws d = (1 - u)^(-1 / (alpha - 1)) alpha comes back; all equal: the steepest."""
    uniform = torch.rand(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha in (1.5, 2.5):
        assert sampling.exponent((1 - uniform) ** (-1 / (alpha - 1))) == pytest.approx(alpha, rel=0.02)
    assert sampling.exponent(torch.ones(9)) == sampling.STEEPEST
    assert sampling.exponent(torch.zeros(9)) == sampling.STEEPEST


def test_sizes_fall_with_the_degree() -> None:
    """From k_max at the smallest degree to k_min; fixed is fixed."""
    degree = torch.tensor([0.0, 1.0, 2.0, 5.0, 30.0, 4000.0])
    found = sampling.sizes(degree, Sizes(5, 20))
    assert found.tolist() == sorted(found.tolist(), reverse=True)
    assert found[1] == 20
    assert found[-1] == 5
    alpha = sampling.exponent(degree)
    expected = 20 * (6 / 2) ** -(alpha - 1)
    assert float(found[3]) == pytest.approx(expected + 0.5, abs=0.5)
    assert sampling.sizes(degree, Sizes(most=7, fixed=True)).tolist() == [7] * 6


@settings(max_examples=40)
@given(graphs.pairs(), st.integers(0, 5))
def test_a_choice_is_of_neighbours(case: tuple[int, torch.Tensor], most: int) -> None:
    """As many as asked, or all; none twice, none that is no neighbour."""
    found = edges(*case)
    size = torch.arange(found.nodes) % (most + 1)
    chosen = sampling.choose(found, size, torch.zeros(len(found.source)), torch.Generator().manual_seed(0))
    assert torch.equal(chosen.ptr.diff(), torch.minimum(size, found.ptr.diff()))
    assert bool((graphs.dense(found)[chosen.source, chosen.target] > 0).all())


def test_choices_are_as_often_as_they_should_be() -> None:
    """Two of four without replacement, p ~ weight: each pair as often as drawing one after the other says."""
    draws, weights = 20_000, torch.tensor([1.0, 2.0, 3.0, 6.0])
    source = torch.arange(draws).repeat_interleave(4)
    many = edges(draws + 4, torch.stack([source, draws + torch.arange(4).repeat(draws)]))
    size = torch.full((draws + 4,), 2)
    chosen = sampling.choose(many, size, weights.log().repeat(draws), torch.Generator().manual_seed(0))
    pairs = (chosen.target - draws).view(-1, 2).tolist()
    p = (weights / weights.sum()).tolist()
    for a, b in itertools.combinations(range(4), 2):
        expected = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        assert pairs.count([a, b]) / draws == pytest.approx(expected, abs=0.012)


def test_walks_go_forth_back_and_forth() -> None:
    """Every end is within A A^T A, as often as uniform steps say; where there is no way, -1."""
    forth = graphs.some(8, 20)
    a = (graphs.dense(forth) > 0).double()
    out, into = (m / m.sum(1, keepdim=True).clamp(min=1) for m in (a, a.T))
    begin = torch.arange(8).repeat_interleave(4000)
    end = sampling.walks(forth, turned(forth), begin, torch.Generator().manual_seed(0))
    stuck = forth.ptr.diff() == 0
    assert bool((end[stuck[begin]] == -1).all())
    found = (
        torch.zeros(8, 8).double().index_put((begin[end >= 0], end[end >= 0]), torch.tensor(1 / 4000.0).double(), True)
    )
    assert torch.allclose(found, out @ into @ out, atol=0.04)


def test_the_sparse_are_filled() -> None:
    """Neighbours stay, ends of walks come from three steps away, and nobody hears itself; fixed fan-outs stay short."""
    found = graphs.some(60, 150)
    a = graphs.dense(found) > 0
    sides = sampling.neighbourhoods(found, Sizes(5, 20), torch.Generator().manual_seed(0))
    size = sampling.sizes(degrees(found, torch.ones(len(found.source)))[1], Sizes(5, 20))
    for side, matrix in zip(sides, (a, a.T), strict=True):
        near = matrix.double()
        far = near @ near.T @ near
        reach = graphs.dense(side) > 0
        few = matrix.sum(1) <= size
        assert bool((reach[few] >= matrix[few]).all())
        assert bool(((far > 0) | matrix)[reach].all())
        assert not bool(reach.diagonal().any())
        assert bool((reach.sum(1) <= size).all())
    uniform = sampling.neighbourhoods(found, Sizes(most=4, fixed=True), torch.Generator().manual_seed(0))
    assert torch.equal(uniform[0].ptr.diff(), found.ptr.diff().clamp(max=4))


def test_the_exponents_of_real_graphs(data: Path) -> None:
    """As measured on the in-degrees of Amazon Photo and Cora ML."""
    from graph_data import read

    for name, expected in (("amazon_photo", 1.474), ("cora_ml", 1.977)):
        found = read(data / "graph", name)
        degree = torch.bincount(found.pairs[1], minlength=found.nodes)
        assert sampling.exponent(degree) == pytest.approx(expected, abs=1e-3)
