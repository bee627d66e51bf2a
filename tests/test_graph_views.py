"""Co-views in the linear dual model: the formula, what they alter and what not, and the rule that they are there for."""

from pathlib import Path

import pytest
import torch

import graphs
from learner.graph import dual, training
from learner.graph.edges import Edges, Graph, graph
from learner.graph.evaluation import ranks, scores_of
from stream import bundle
from test_graph_dual import SMALL, tables

SHORT = SMALL._replace(epochs=3)


def given(nodes: int = 12) -> Graph:
    """A graph in which product 11 is viewed with nothing."""
    pairs = torch.tensor([[0, 1, 2, 3, 4, 9], [1, 5, 5, 8, 10, 0]])
    return graph(nodes, torch.stack(graphs.some(nodes, 60)[1:3]), viewed=pairs)


def test_places_are_the_formula() -> None:
    """k of the mean over co-views, on places that ask alone; biases and places that answer are as without."""
    both, x = given(), torch.randn(12, 3)
    assert both.viewed is not None
    mask = both.bought.weight * (torch.arange(len(both.bought.source)) % 2 == 0)
    t = tables(12, 3, 5, in_places=True)._replace(seen=torch.tensor(0.7))
    plain = dual.states(t, Graph(both.bought), mask, x, 0.25, 0.7)
    found = dual.states(t, both, mask, x, 0.25, 0.7)
    seen = graphs.dense(both.viewed)
    mean = seen / seen.sum(1, keepdim=True).clamp(min=1)
    assert torch.allclose(found.source[:, :-1], plain.source[:, :-1] + 0.7 * mean @ plain.source[:, :-1], atol=1e-5)
    assert torch.equal(found.source[:, -1], plain.source[:, -1])
    assert torch.equal(found.target, plain.target)
    assert torch.equal(found.source[11], plain.source[11])
    none = dual.states(t._replace(seen=torch.zeros(())), both, mask, x, 0.25, 0.7)
    assert torch.equal(none.source, plain.source)


def test_the_gradient_of_k_is_that_of_differences() -> None:
    both, t = given(), tables(12, 3, 5, in_places=False)
    k = torch.tensor(0.3, requires_grad=True)
    side = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))

    def total(seen: torch.Tensor) -> torch.Tensor:
        found = dual.states(t._replace(seen=seen), both, both.bought.weight, None, 0.25)
        return (found.source * side).sum()

    total(k).backward()  # type: ignore[no-untyped-call]
    assert k.grad is not None
    assert float(k.grad) == pytest.approx(float(total(torch.tensor(1.3)) - total(torch.tensor(0.3))), rel=1e-3)


def test_without_co_views_nothing_changes() -> None:
    """No table of theirs; and co-views draw no chance, so that what is learned beside them begins the same."""
    world = graphs.world()
    alone = training.train(world.graph, world.words, SHORT, 1)
    assert alone.tables.seen is None
    chances = [torch.Generator().manual_seed(3) for _ in range(2)]
    fresh = [
        dual.init(120, 4, SHORT, chance, None, views) for chance, views in zip(chances, (False, True), strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(fresh[0][:8], fresh[1][:8], strict=True))
    assert fresh[1].seen is not None
    assert float(fresh[1].seen) == 0
    empty = Graph(world.graph.bought, graphs.some(120, 0))
    found = training.train(empty, world.words, SHORT, 1)
    assert all(torch.equal(a, b) for a, b in zip(found.embeddings, alone.embeddings, strict=True))


def of_fours(groups: int = 6, size: int = 20, each: int = 5, seed: int = 0) -> tuple[Graph, torch.Tensor]:
    """Products in fours that are viewed together and bought with the same ``each`` of the next group; the last is new.

    Its edges [2, .] are lost, and follow by the rule.
    """
    chance = torch.Generator().manual_seed(seed)
    nodes, heads = groups * size, torch.arange(0, (groups - 1) * size, 4)
    liked = torch.stack([torch.randperm(size, generator=chance)[:each] for _ in heads])
    target = (liked + (heads // size + 1)[:, None] * size).repeat_interleave(4, 0)
    source = torch.arange(len(target))[:, None].expand_as(target)
    pairs = torch.stack([source.flatten(), target.flatten()])
    four = torch.combinations(torch.arange(4)).T[:, None] + torch.arange(0, nodes, 4)[:, None]
    new = pairs[0] % 4 == 3
    return graph(nodes, pairs[:, ~new], viewed=four.reshape(2, -1)), pairs[:, new]


def hits(found: training.Trained, bought: Edges, test: torch.Tensor, k: int = 5) -> float:
    return float((ranks(scores_of(found.embeddings), bought, test, found.embeddings.answers) <= k).double().mean())


def test_what_is_viewed_with_it_tells_what_a_product_is_bought_with() -> None:
    """a is viewed with b, b is bought with c: a finds c with co-views, and less well without, over two seeds."""
    for seed in range(2):
        both, lost = of_fours(seed=seed)
        heard = training.train(both, None, SMALL._replace(epochs=60), seed)
        alone = training.train(Graph(both.bought), None, SMALL._replace(epochs=60), seed)
        assert hits(heard, both.bought, lost) > hits(alone, both.bought, lost) + 0.1
        assert heard.tables.seen is not None
        assert float(heard.tables.seen) != 0


def test_who_is_viewed_with_something_known_asks() -> None:
    both, _ = of_fours()
    silent = graph(122, torch.stack(both.bought[1:3]), viewed=torch.tensor([[0, 120], [120, 121]]))
    found = training.train(silent, None, SHORT, 1).embeddings
    assert found.asks[120:].tolist() == [True, False]
    assert not bool(found.answers[120:].any())
    assert all(bool(part.isfinite().all()) for part in found[:4])


def test_the_same_bytes_and_a_start_with_or_without_k() -> None:
    """A version of before, or of a graph without co-views, starts one with them; a bundle holds k, or leaves it out."""
    both, _ = of_fours()
    rows = torch.arange(both.nodes)
    first, again = (training.train(both, None, SHORT, 1) for _ in range(2))
    assert first.tables.seen is not None
    assert all(torch.equal(a, b) for a, b in zip(first.embeddings, again.embeddings, strict=True))
    alone = training.train(Graph(both.bought), None, SHORT, 1)
    chance = torch.Generator()
    taken = dual.init(both.nodes, 0, SHORT, chance, dual.Start(first.tables, rows), views=True)
    assert taken.seen is not None
    assert torch.equal(taken.seen, first.tables.seen)
    assert taken.seen.data_ptr() != first.tables.seen.data_ptr()
    assert dual.init(both.nodes, 0, SHORT, chance, dual.Start(first.tables, rows)).seen is None
    later = training.train(both, None, SHORT, 2, dual.Start(alone.tables, rows))
    assert later.tables.seen is not None
    for trained in (first, alone):
        degrees, ids = torch.zeros(2, both.nodes), tuple(f"{n:03}" for n in range(both.nodes))
        warm, (out, into) = trained.embeddings.answers.clone(), degrees
        kept = bundle.Bundle(1, 1, 0, ids, trained.embeddings, warm, out.clone(), into.clone(), {}, trained.tables)
        read = bundle.from_bytes(bundle.to_bytes(kept)).tables
        assert read is not None
        assert (read.seen is None) == (trained.tables.seen is None)
        assert all(
            torch.equal(a, b) for a, b in zip(read, trained.tables, strict=True) if a is not None and b is not None
        )


def test_pairs_that_follow_by_the_rules() -> None:
    """0 is bought with 1, 1 is viewed with 2, 3 is viewed with 0; neither training edges nor loops follow."""
    from graph_views import bias

    given = graph(4, torch.tensor([[0, 0], [1, 3]]), viewed=torch.tensor([[1, 3], [2, 0]]))
    first, second = bias(given)
    assert first.nonzero().tolist() == [[0, 2]]
    assert second.nonzero().tolist() == [[3, 1]]


def test_magazines_have_both_relations(data: Path) -> None:
    from graph_data import MAGAZINES, read

    found = read(data / "graph", MAGAZINES)
    assert found.viewed is not None
    assert (found.nodes, found.pairs.shape[1], found.viewed.shape[1]) == (2320, 6449, 8649)
    both = graph(found.nodes, found.pairs, viewed=found.viewed)
    linked = torch.unique(torch.cat([found.pairs.flatten(), found.viewed.flatten()]))
    assert found.nodes - len(linked) == 1047
    assert both.viewed is not None
    assert len(both.viewed.source) == 14060
    length = torch.zeros(found.nodes).index_add_(0, found.words.source, found.words.weight.square())
    assert int((length > 0).sum()) == found.nodes
