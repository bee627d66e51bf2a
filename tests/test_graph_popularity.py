"""How much popularity counts: the optimum by enumeration and autograd, its bounds, and versions that follow each other."""

import pytest
import torch
from torch import Tensor

from learner.graph.edges import Edges, degrees, edges
from learner.graph.embeddings import Embeddings
from learner.graph.popularity import BELIEF, MOST, height, raised, ratio_of, weighed
from strategies import DAY, T0
from stream import snapshot, succession
from test_refresh import taken

NODES = 30


def drawn(seed: int, like: float, popular: float) -> tuple[Embeddings, Edges, Tensor]:
    """Places, the edges they come from, and edges of later that follow them and popularity so much; every place asks."""
    chance = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, NODES, 4, generator=chance)
    every = torch.ones(NODES, dtype=torch.bool)
    places = Embeddings(source, target, torch.randn(NODES, generator=chance), torch.zeros(NODES), every, every)
    pairs = torch.combinations(torch.arange(NODES))
    pairs = torch.cat([pairs, pairs.flip(1)])[torch.randperm(len(pairs) * 2, generator=chance)[:200]].T
    known = edges(NODES, pairs, 0.1 + torch.rand(200, generator=chance))
    logit = like * (source @ target.T) + popular * height(degrees(known)[1])
    u = torch.randint(0, NODES, (4000,), generator=chance)
    v = torch.multinomial(hidden(logit, known)[u].softmax(1), 1, generator=chance)[:, 0]
    return places, known, torch.stack([u, v])


def hidden(logit: Tensor, known: Edges) -> Tensor:
    """Logits [N, N] of what is offered."""
    off = torch.eye(NODES, dtype=torch.bool) | (degrees(known)[1] == 0)
    off[known.source, known.target] = True
    return logit.masked_fill(off, -torch.inf)


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_what_is_likely(seed: int) -> None:
    """The gradient of the log posterior, with all items written down, is zero there; it is near what edges were drawn by."""
    places, known, later = drawn(seed, 0.6, 0.4)
    at = torch.tensor(weighed(places, known, later), dtype=torch.float64, requires_grad=True)
    rel = (places.source @ places.target.T + places.source_bias[:, None]).double()
    logit = hidden(at[0] * rel + at[1] * height(degrees(known)[1]).double(), known)
    likely = logit.log_softmax(1)[later[0], later[1]].sum()
    believed = -BELIEF / 2 * (at - torch.tensor([1.0, 0.0])).square().sum()
    (slope,) = torch.autograd.grad(likely + believed, at)
    assert float(slope.abs().max()) < 0.05  # of 4,000 edges
    assert at.tolist() == pytest.approx([0.6, 0.4], abs=0.1)
    assert ratio_of(places, known, later) == pytest.approx(float((at[1] / at[0]).detach()))


def test_few_edges_say_little() -> None:
    """The belief is 0; places that say nothing are outvoted, as far as the bound."""
    places, known, later = drawn(0, 0.6, 0.4)
    assert ratio_of(places, known, later[:, :2]) < 0.2
    places, known, later = drawn(0, 0.0, 1.0)
    assert ratio_of(places, known, later) > 5
    against = places._replace(target=-places.target)
    assert 0 <= ratio_of(against, known, drawn(0, 1.0, 0.0)[2]) <= MOST


def test_height_is_about_the_mean_edge() -> None:
    """Log in-degree above its mean over edges; what nothing leads to stays where it is."""
    into = torch.tensor([0.0, 1.0, 3.0])
    assert height(into).tolist() == pytest.approx([0.0, -0.75 * 1.0986123, 0.25 * 1.0986123])
    places, known, _ = drawn(0, 1.0, 0.0)
    up = raised(places, degrees(known)[1], 0.5)
    assert float(degrees(known)[1] @ (up.target_bias - places.target_bias)) == pytest.approx(0, abs=1e-4)
    assert torch.equal(up.target, places.target)


def test_a_version_is_weighed_at_what_came_after_it() -> None:
    """The first has no ratio. The next takes that of the first at its new edges, and with nothing new it stays; what the
    version before was raised by is taken off before it is weighed."""
    first = taken()
    one = snapshot.learn(first, None)
    assert one.metrics["popularity"] == 0
    chance = torch.Generator().manual_seed(5)
    drawn_pairs = torch.stack([torch.randint(n, n + 100, (300,), generator=chance) for n in (0, 20)])
    there = {(u, v): T0 + 2 * DAY for u, v in drawn_pairs.T.tolist() if u != v}
    there |= {(u, v): at for (u, v), at in zip(first.bought.T.tolist(), first.since.tolist(), strict=True)}
    new, since = torch.tensor(sorted(there)).T, torch.tensor([at for _, at in sorted(there.items())])
    told = first._replace(number=2, bought=new, weight=torch.ones(new.shape[1]), since=since, until=T0 + 3 * DAY)
    two = snapshot.learn(told, one)
    old = succession.edges_of(one, told.ids)
    assert old is not None
    later = succession.new_since(one, old, told.bought, told.since)
    warm = later[:, one.embeddings.asks[later[0]] & (one.into > 0)[later[1]]]
    assert two.metrics["popularity"] == ratio_of(one.embeddings, old, warm)
    raised_one = one._replace(
        metrics=one.metrics | {"popularity": 1.5}, embeddings=raised(one.embeddings, degrees(old)[1], 1.5)
    )
    places = succession.renumbered(raised_one, told.ids)
    again = succession.popularity(raised_one, places, told.ids, told.bought, told.since)
    assert again == pytest.approx(two.metrics["popularity"], rel=1e-3)
    still = told._replace(number=3, until=T0 + 4 * DAY)
    assert snapshot.learn(still, two).metrics["popularity"] == two.metrics["popularity"]
