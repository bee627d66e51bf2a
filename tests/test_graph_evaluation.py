"""Ranks, areas and searches against plain Python, and searches against sorting."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from learner.graph import evaluation, index
from learner.graph.edges import edges
from learner.graph.embeddings import Embeddings, keys, queries, rel

NODES = 40


def embeddings(seed: int = 0, levels: int = 3) -> Embeddings:
    """Of small whole numbers, so that many scores are equal."""
    chance = torch.Generator().manual_seed(seed)
    source, target = (torch.randint(-levels, levels + 1, (NODES, 3), generator=chance).float() for _ in range(2))
    bias = torch.randint(-1, 2, (2, NODES), generator=chance).float()
    known = torch.rand(2, NODES, generator=chance) < 0.9
    return Embeddings(source, target, bias[0], bias[1], known[0], known[1])


def naive_rank(given_: Embeddings, trained: set[tuple[int, int]], u: int, v: int) -> float:
    score = {
        w: float(given_.source[u] @ given_.target[w]) + float(given_.source_bias[u]) + float(given_.target_bias[w])
        if w != u and (u, w) not in trained and bool(given_.answers[w])
        else -math.inf
        for w in range(NODES)
    }
    if score[v] == -math.inf:
        return math.inf
    higher = sum(s > score[v] for s in score.values())
    return 1 + higher + (sum(s == score[v] for s in score.values()) - 1) / 2


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_ranks_are_those_of_plain_python(seed: int) -> None:
    everything = graphs.some(NODES, 300, seed)
    mask = torch.rand(len(everything.source), generator=torch.Generator().manual_seed(seed)) < 0.6
    both = torch.stack([everything.source, everything.target])
    trained, test, places = edges(NODES, both[:, mask]), both[:, ~mask], embeddings(seed)
    known = set(zip(*both[:, mask].tolist(), strict=True))
    found = evaluation.ranks(evaluation.scores_of(places), trained, test, places.answers)
    assert found.tolist() == [naive_rank(places, known, u, v) for u, v in test.T.tolist()]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = graphs.some(NODES, 300)
    both = torch.stack([everything.source, everything.target])
    trained, scores = edges(NODES, both[:, ::2]), evaluation.scores_of(embeddings())
    whole = evaluation.evaluate(scores, trained, both[:, 1::2], everything)
    monkeypatch.setattr(evaluation, "BLOCK", 3 * NODES)
    assert str(evaluation.evaluate(scores, trained, both[:, 1::2], everything)) == str(whole)  # NaN is NaN


def test_nothing_asked_is_nothing_found() -> None:
    """No pairs have no scores and no ranks."""
    scores, none = evaluation.scores_of(embeddings()), torch.empty(2, 0, dtype=torch.int64)
    assert len(evaluation.of_pairs(scores, NODES, *none)) == 0
    assert len(evaluation.ranks(scores, graphs.some(NODES, 30), none)) == 0


def test_quality_by_hand() -> None:
    """Popularity on a star: every edge leads to 0, so it ranks first, and its reversal never does."""
    spokes = torch.arange(1, NODES)
    star = edges(NODES, torch.stack([spokes, torch.zeros_like(spokes)]))
    trained, test = edges(NODES, torch.tensor([[1, 2], [0, 0]])), torch.tensor([[3, 4], [0, 0]])
    count = trained.in_ptr.diff().float()
    quality = evaluation.evaluate(lambda u: count.repeat(len(u), 1), trained, test, star)
    assert quality.hits == {5: 1.0, 10: 1.0, 20: 1.0}
    assert quality.reciprocal == {5: 1.0, 10: 1.0, 20: 1.0}
    assert quality.direction == 1.0
    assert quality.by_degree[0] == 1.0
    assert all(math.isnan(h) for h in quality.by_degree[1:])
    constant = evaluation.evaluate(lambda u: torch.zeros(len(u), NODES), trained, test, star)
    assert constant.hits[10] == 0.0
    assert constant.direction == 0.5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_area_is_the_chance_of_being_above(positive: list[int], negative: list[int]) -> None:
    expected = sum((p > n) + (p == n) / 2 for p in positive for n in negative) / (len(positive) * len(negative))
    assert evaluation.area(torch.tensor(positive).float(), torch.tensor(negative).float()) == pytest.approx(expected)


def test_rel_is_one_inner_product() -> None:
    """d + 2 numbers of each hold the biases too; the block-wise scores of pairs are the same."""
    places = embeddings()
    u, v = torch.randint(0, NODES, (2, 100))
    both = (queries(places, u) * keys(places)[v]).sum(1)
    assert torch.allclose(rel(places, u, v), both)
    assert torch.allclose(evaluation.of_pairs(evaluation.scores_of(places), NODES, u, v), both)


def test_search_is_a_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best k of what is left, in order; -1 where fewer are left; in blocks as in one."""
    monkeypatch.setattr(index, "BLOCK", 7 * NODES)
    places, trained = embeddings(), graphs.some(NODES, 500)
    items, scores = index.related(places, torch.arange(NODES), 35, trained)
    full = evaluation.scores_of(places)(torch.arange(NODES))
    full[:, ~places.answers] = -torch.inf
    full[trained.source, trained.target] = -torch.inf
    full.fill_diagonal_(-torch.inf)
    assert torch.equal(scores, full.sort(1, descending=True).values[:, :35])
    there = items >= 0
    assert torch.equal(there, scores > -torch.inf)
    assert not bool(there.all())
    assert torch.equal(full.gather(1, items.clamp(min=0))[there], scores[there])
    assert all(len(set(row[row >= 0].tolist())) == int((row >= 0).sum()) for row in items)
    with pytest.raises(ValueError, match="k is 0"):
        index.search(keys(places), queries(places, torch.arange(2)), 0)
