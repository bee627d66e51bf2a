"""The benchmark of a graph that grows: what is told of a month, what is judged, and places of papers that are new."""

import graph_growth
import torch

from learner.graph import dual, training
from learner.graph.edges import graph
from learner.graph.evaluation import scores_of

PAPERS = torch.tensor([0, 0, 0, 1, 1, 2])
PAIRS = torch.tensor([[0, 1, 3, 3, 3, 3, 4, 5], [1, 2, 0, 1, 2, 4, 3, 0]])
DATA = graph_growth.Citations(PAIRS, PAPERS[PAIRS].amax(0), PAPERS)


def test_a_month_is_cut_by_paper() -> None:
    """Of four citations two are judged, of one none; nothing of a later month is told; 0 and 4 were not cited before."""
    found = graph_growth.cut(DATA, 1)
    assert graph_growth.so_far(DATA, 1)[0] == found.told.nodes == 5
    assert found.judged[0].tolist() == [3, 3]
    assert found.known.tolist() == [target in (1, 2) for target in found.judged[1].tolist()]
    told = torch.stack([found.told.source, found.told.target])
    both = torch.cat([told, found.judged], 1)
    assert sorted(map(tuple, both.T.tolist())) == sorted(map(tuple, PAIRS[:, :7].T.tolist()))


def test_a_new_paper_is_placed_without_training() -> None:
    """It gets a place from what it cites; with no edge more places are those of the version."""
    settings = dual.Settings()._replace(epochs=1)
    made = training.train(graph(3, PAIRS[:, :2]), None, settings, 0)
    same = graph_growth.forward(made.tables, graph(3, PAIRS[:, :2]).bought)
    assert torch.equal(same.source, made.embeddings.source)
    grown = graph_growth.forward(made.tables, graph_growth.cut(DATA, 1).told)
    assert bool(grown.source[3].any())
    assert not bool(grown.target[4].any())
    assert scores_of(grown)(torch.tensor([3])).isfinite().all()
