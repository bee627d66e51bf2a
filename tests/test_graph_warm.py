"""A training that starts from the tables of an earlier version."""

import torch

import graphs
from learner.graph import dual, training
from learner.graph.edges import graph
from learner.graph.evaluation import ranks, scores_of
from test_graph_dual import SMALL, tables


def test_a_start_is_by_product() -> None:
    """Products in between and in another order keep their rows, new ones have fresh rows; what was given is untouched."""
    chance, settings = torch.Generator().manual_seed(0), SMALL._replace(width=3)
    told = tables(4, 2, 4, in_places=False)
    row = torch.tensor([2, -1, 0, 3, -1])
    found = dual.init(5, 2, settings, chance, dual.Start(told, row))
    fresh = dual.init(5, 2, settings, torch.Generator().manual_seed(0))
    for new, old, other in zip(found[:4], told[:4], fresh[:4], strict=True):
        assert torch.equal(new, torch.stack([old[2], other[1], old[0], old[3], other[4]]))
    for new, old in zip(found[4:8], told[4:8], strict=True):
        assert torch.equal(new, old)
        assert new.data_ptr() != old.data_ptr()


def test_a_warm_training_finds_what_a_cold_one_does() -> None:
    """In a quarter of the epochs, after a tenth of the products and a twentieth of the edges are new; over two worlds."""
    cold = dual.Settings(width=8, sources=40)
    warm = dual.short(cold)
    hits: list[list[float]] = []
    for seed in range(2):
        world = graphs.world(seed=seed)
        nodes, both = len(world.group), torch.stack(world.graph.bought[1:3])
        new = torch.arange(nodes) % 10 == 0
        there = ~new[both[0]] & ~new[both[1]]
        there &= torch.rand(both.shape[1], generator=torch.Generator().manual_seed(seed)) > 0.05
        row = torch.where(new, -1, (~new).cumsum(0) - 1)
        before = training.train(graph(int((~new).sum()), row[both[:, there]]), None, cold, 1)
        trained = (
            training.train(world.graph, None, cold, 2),
            training.train(world.graph, None, warm, 2, dual.Start(before.tables, row)),
        )
        found = [ranks(scores_of(one.embeddings), world.graph.bought, world.held_out) for one in trained]
        hits.append([float((rank <= 10).double().mean()) for rank in found])
    of_cold, of_warm = (sum(column) / len(hits) for column in zip(*hits, strict=True))
    assert of_warm > of_cold - 0.02
    assert of_cold > 0.5  # the next group has 20: blindly at most half is found
