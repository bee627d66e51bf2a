"""Settings that a graph chooses for itself: features enter places where they find more, and only there."""

from typing import Any

import pytest
import torch
from torch import Tensor

import graphs
from learner.graph import choice, cold, dual, features, training
from learner.graph.choice import Choice, choose
from learner.graph.dual import Settings, short
from learner.graph.edges import Edges, Graph, edges
from learner.graph.evaluation import Scores, hits, scores_of
from learner.graph.features import Features
from learner.graph.methods import GRAPH_METHODS, GraphMethod
from stream import snapshot
from stream.bundle import Bundle

DUAL = GRAPH_METHODS["dual"]


def noise(nodes: int, seed: int = 0) -> Features:
    """Twenty words a product that say nothing."""
    said = torch.randint(0, 50, (nodes * 20,), generator=torch.Generator().manual_seed(seed))
    return features.words(nodes, 50, torch.stack([torch.arange(nodes).repeat(20), said]))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_graph_tells_whether_features_enter_places(seed: int) -> None:
    """Two edges a product and words that tell its group: they do. Many edges and words that tell nothing: they do not."""
    few, many = graphs.world(each=2, seed=seed), graphs.world(groups=12, size=10, each=9, seed=seed)
    assert choose(DUAL, few.graph, few.words, seed, few.held_out).settings == "words"
    assert choose(DUAL, many.graph, noise(120, seed), seed, many.held_out).settings == "links"


def test_held_out_edges_are_not_in_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the edges tells, at most `MOST`; what is learned from is the rest; each time the same."""
    seen: list[Edges] = []

    def train(given: Graph, *rest: Any) -> Any:
        seen.append(given.bought)
        return training.train(given, *rest)

    told: list[Tensor] = []

    def counted(scores: Scores, bought: Edges, asked: Tensor, answers: Tensor) -> int:
        told.append(asked)
        return hits(scores, bought, asked, answers)

    monkeypatch.setattr(choice, "hits", counted)
    world = graphs.world(each=2)
    method = GraphMethod(train, {name: short(one) for name, one in DUAL.settings.items()}, short)
    found = [choose(method, world.graph, world.words, 3) for _ in range(2)]
    assert found[0] == found[1]
    everything = world.graph.bought
    assert all(torch.equal(told[0], other) for other in told)
    assert told[0].shape[1] == len(everything.source) // 10
    for left in seen:
        both = torch.cat([torch.stack([left.source, left.target]), told[0]], 1).T.tolist()
        assert sorted(both) == torch.stack([everything.source, everything.target]).T.tolist()
    monkeypatch.setattr(choice, "MOST", 3)
    told.clear()
    choose(method, world.graph, world.words, 3)
    assert told[0].shape == (2, 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cold_products_cost_known_ones_no_more_than_is_said(seed: int) -> None:
    """Of edges to known products at most a fiftieth of what is found without cold ones, whatever edges to cold products
    are held out beside them."""
    world = graphs.world(groups=30, size=14, each=2, seed=seed)
    bought, told = choice._held_out(world.graph.bought, seed)
    places, tables = DUAL.train(
        world.graph._replace(bought=bought), world.words, short(DUAL.settings["words"]), seed, None, None
    )
    assert tables is not None
    said = dual.said(tables, world.words)
    shift = cold.shift_of(places, bought, world.words, told, said)
    to_known = told[:, places.answers[told[1]]]
    assert to_known.shape[1] < told.shape[1]
    shifted = cold.placed(places, world.words, said, shift=shift)
    before, after = (hits(scores_of(given), bought, to_known, given.answers) for given in (places, shifted))
    assert before > 20
    assert after >= 0.98 * before


def test_nothing_to_choose_costs_nothing() -> None:
    """A network, no features, a single edge: the first, without a training."""

    def train(*_: Any) -> Any:
        raise AssertionError("trained")

    world = graphs.world()
    assert choose(GraphMethod(train, {"one": Settings()}), world.graph, world.words, 0) == Choice("one")
    assert choose(GraphMethod(train, DUAL.settings, short), world.graph, None, 0) == Choice("links")
    single = Graph(edges(120, torch.tensor([[0], [1]])))
    assert choose(GraphMethod(train, DUAL.settings, short), single, world.words, 0) == Choice("links")


def test_versions_keep_the_settings_until_the_graph_has_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen once, kept by warm starts; chosen anew from twice the edges on, and another choice begins anew."""
    answers, asked = ["links", "links", "words"], []
    monkeypatch.setitem(
        GRAPH_METHODS,
        "dual",
        GraphMethod(
            training.train,
            {"links": Settings(width=4, epochs=1), "words": Settings(width=4, epochs=1, in_places=True)},
            short,
        ),
    )

    def chosen(_: Any, graph: Graph, *__: Any) -> Choice:
        asked.append(len(graph.bought.source))
        return Choice(answers[len(asked) - 1], -float(len(asked)))

    monkeypatch.setattr(snapshot, "choose", chosen)
    monkeypatch.setattr(snapshot, "WORSE", 0.0)  # one epoch
    version: Bundle | None = None
    told = []
    for number, count in enumerate((20, 30, 40, 70, 80, 90), 1):
        ends = torch.stack([torch.arange(count) // 9, 20 + torch.arange(count) % 9 + torch.arange(count) // 9])
        taken = snapshot.Snapshot(
            number, 1, "dual", 1000, tuple(f"p{n:02}" for n in range(40)), ends, torch.ones(count),
            torch.full((count,), 900), torch.empty(2, 0, dtype=torch.int64), torch.tensor([[0, 1, 20], [3, 4, 3]]),
        )  # fmt: skip
        version = snapshot.learn(taken, version)
        told.append([version.metrics[name] for name in ("settings", "shift", "chosen_at", "started_from")])
    assert asked == [20, 40, 80]
    assert told == [
        ["links", -1, 20, None], ["links", -1, 20, 1], ["links", -2, 40, 2], ["links", -2, 40, 3], ["words", -3, 80, None],
        ["words", -3, 80, 5],
    ]  # fmt: skip
