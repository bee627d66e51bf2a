"""The linear dual model against its formulas written out, and what it finds in worlds that are known."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import graphs
from learner.graph import cold, dual, features, softmax, training
from learner.graph.edges import Graph, edges, graph, kept
from learner.graph.evaluation import evaluate, ranks, scores_of

SMALL = dual.Settings(width=8, sources=40, epochs=25, existence=0.1)


def tables(nodes: int, words: int, wide: int, in_places: bool) -> dual.Tables:
    chance = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    of_words = [drawn(words, wide if in_places else 1) for _ in range(2)]
    rows = [drawn(nodes, wide) for _ in range(4)]
    return dual.Tables(rows[0], rows[1], rows[2], rows[3], of_words[0], of_words[1], drawn(2, 6), drawn(1)[0])


@pytest.mark.parametrize("in_places", [False, True])
def test_states_are_the_formulas(in_places: bool) -> None:
    """Every sum as a dense product, with half of the edges left out, against the states of what is kept alone."""
    nodes, wide, p, share = 12, 5, 0.25, 0.7
    whole = graphs.some(nodes, 60)
    mask = torch.arange(len(whole.source)) % 2 == 0
    part, x = kept(whole, mask), torch.randn(nodes, 3)
    t = tables(nodes, 3, wide, in_places)
    a = graphs.dense(part)
    d_out, d_in = a.sum(1).clamp(min=1), a.sum(0).clamp(min=1)
    o = a * d_out[:, None] ** -0.5 * d_in[None, :] ** -p
    i = a.T * d_in[:, None] ** -0.5 * d_out[None, :] ** -p
    source, target = o @ t.out + i @ t.into, t.own + i @ t.asked
    lo, li = (torch.log(1 + d / share) for d in (a.sum(1), a.sum(0)))
    g = torch.stack([torch.ones(nodes), lo, li, lo**2 / 4, li**2 / 4, lo * li / 4], 1) / 3
    source[:, -1] += g @ t.shape[0]
    target[:, -1] += g @ t.shape[1]
    first = 0 if in_places else wide - 1
    source[:, first:] += x @ t.words_source
    target[:, first:] += x @ t.words_target
    found = dual.states(t, Graph(whole), whole.weight * mask, x, p, share)
    assert torch.allclose(found.source, source, atol=1e-5)
    assert torch.allclose(found.target, target, atol=1e-5)


def test_the_loss_is_the_formula() -> None:
    """Edge by edge in plain Python; the uniform items are those of the same generator."""
    nodes, settings = 10, dual.Settings(width=4, direction=0.3, existence=0.2)
    bought = graphs.some(nodes, 40)
    chance = torch.Generator().manual_seed(0)
    now = dual.States(torch.randn(nodes, 5, generator=chance), torch.randn(nodes, 5, generator=chance))
    level, one_way = torch.tensor(0.4), (torch.rand(len(bought.source), generator=chance) < 0.5).float()
    step = training.draw(bought, torch.tensor([1, 3, 4, 8]), one_way, 0.5, chance)
    reached = bought.in_ptr.diff() > 0
    state = chance.get_state()
    z = torch.randint(0, nodes, (3 * len(step.u),), generator=chance).view(3, -1)
    rel = now.source[:, :-1] @ now.target[:, :-1].T + now.source[:, -1:] + now.target[:, -1]
    seen, dropped = graphs.dense(bought, step.mass) > 0, graphs.dense(bought, bought.weight - step.mass)
    alone = graphs.dense(bought, one_way)
    total = 0.0
    for n, (u, v) in enumerate(zip(step.u.tolist(), step.v.tolist(), strict=True)):
        offered = [w for w in range(nodes) if w != u and not seen[u, w] and reached[w]]
        part = math.log(sum(math.exp(float(rel[u, w])) for w in offered)) - float(rel[u, v])
        plus = [math.log1p(math.exp(-float(rel[u, v] + level))), math.log1p(math.exp(float(rel[v, u] + level)))]
        part += (0.3 * float(alone[u, v]) + 0.2) * plus[0] + 0.3 * float(alone[u, v]) * plus[1]
        part += 0.2 / 3 * sum(math.log1p(math.exp(float(rel[u, w] + level))) for w in z[:, n].tolist())
        total += float(dropped[u, v]) * part
    assert bool((dropped[step.u, step.v] > 0).all())
    chance.set_state(state)
    found = training.loss_of(now, level, step, bought, training.chances(bought), settings, chance)
    assert float(found) == pytest.approx(total / float(step.weight.sum()), rel=1e-5)


def test_log_sums_and_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks as in one, against finite differences and the dense log of sums."""
    monkeypatch.setattr(softmax, "BLOCK", 30)
    chance = torch.Generator().manual_seed(0)
    source, target, bias = (torch.randn(*n, generator=chance).double() for n in ((7, 3), (11, 3), (11,)))
    share, row, item = torch.rand(7).double(), torch.tensor([0, 0, 2, 5]), torch.tensor([1, 4, 0, 10])
    bias[3] = -torch.inf
    scores = source @ target.T + bias
    scores[row, item] = -torch.inf
    found = softmax.log_sums(source, target, bias, row, item, share)
    assert float(found) == pytest.approx(float(share @ scores.logsumexp(1)))
    bias[3] = -50.0
    inputs = [given.requires_grad_() for given in (source, target, bias)]
    assert gradcheck(lambda s, t, b: softmax.log_sums(s, t, b, row, item, share), inputs)


def test_log_sums_beside_what_is_known_and_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one more item a row, of its own; the last row has nothing else."""
    chance = torch.Generator().manual_seed(0)
    source, target, bias, beside = (torch.randn(*n, generator=chance).double() for n in ((7, 3), (11, 3), (11,), (7,)))
    share, row, item = torch.rand(7).double(), torch.tensor([0, 0, 2, *[6] * 11]), torch.tensor([1, 4, 0, *range(11)])
    scores = source @ target.T + bias
    scores[row, item] = -torch.inf
    expected = share @ torch.logaddexp(beside, scores.logsumexp(1))
    inputs = [given.requires_grad_() for given in (source, target, bias, beside)]
    for block in (2**20, 30):
        monkeypatch.setattr(softmax, "BLOCK", block)
        found = softmax.log_sums(source, target, bias, row, item, share, beside)
        assert float(found.detach()) == pytest.approx(float(expected))
        assert gradcheck(lambda s, t, b, o: softmax.log_sums(s, t, b, row, item, share, o), inputs)


def test_a_sampled_softmax_is_the_full_one_on_average() -> None:
    """exp of the normaliser of one source, averaged over draws, is what it is over all items."""
    bought, chance = graphs.some(12, 50), torch.Generator().manual_seed(1)
    now = dual.States(torch.randn(12, 4, generator=chance), torch.randn(12, 4, generator=chance))
    step = training.draw(bought, torch.tensor([3]), torch.ones(len(bought.source)), 0.5, chance)
    assert 1 < len(step.u) < int((bought.source == 3).sum())
    own, q = now.target[step.v] @ torch.cat([now.source[3, :-1], torch.ones(1)]), training.chances(bought)
    settings = dual.Settings(sampled=8)
    sampled = [training._over_some(now, own, step, bought, q, settings, chance).exp() for _ in range(3000)]
    full = training._over_all(now, step, bought, q > 0).exp()
    assert float(torch.stack(sampled).mean()) == pytest.approx(float(full), rel=0.02)


def test_a_step_supervises_what_it_does_not_see() -> None:
    bought = graphs.some(30, 300)
    sources = torch.arange(0, 30, 3)
    step = training.draw(bought, sources, torch.ones(len(bought.source)), 0.7, torch.Generator().manual_seed(0))
    seen, there = graphs.dense(bought, step.mass), graphs.dense(bought)
    assert bool((seen[step.u, step.v] == 0).all())
    assert torch.equal(step.sources[step.row], step.u)
    assert len(step.u) == int(((there > 0) & (seen == 0))[sources].sum())


def test_an_epoch_has_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source once an epoch; where neither bound is reached nothing is another than without them."""
    world, drawn = graphs.world(), list[int]()
    draw = training.draw

    def counted(*given: Any) -> training.Step:
        drawn.append(len(given[1]))
        return draw(*given)

    monkeypatch.setattr(training, "draw", counted)
    short = SMALL._replace(epochs=1, sources=10)
    bounds = ((1, 4), (1, 10), (1, 1000), (20, 1000))
    found = [training.train(world.graph, None, short._replace(steps=steps), 1).embeddings for steps in bounds]
    assert drawn == [25] * 4 + [10] * 20 + [5] * 20
    assert torch.equal(found[1].source, found[2].source)


@pytest.mark.parametrize("exact", [100_000, 0])
def test_direction_and_neighbours_are_found(exact: int) -> None:
    """Groups in a row: held-out edges lead to the next group, and not back; with sampled items too."""
    world = graphs.world()
    settings = SMALL._replace(exact=exact, sampled=64)
    found = training.train(world.graph, world.words, settings, seed=1).embeddings
    everything = edges(120, torch.cat([torch.stack(world.graph.bought[1:3]), world.held_out], 1))
    quality = evaluate(scores_of(found), world.graph.bought, world.held_out, everything)
    assert quality.hits[20] > 0.75  # the next group has 20; blindly it is 0.17
    assert quality.direction > 0.95
    assert not bool(found.answers[:20].any())


def test_the_same_bytes_and_a_start() -> None:
    """Same seed, same bytes; another seed, others. A start is taken up: it has less to learn, and grows by new products."""
    world = graphs.world()
    losses: list[float] = []
    short = SMALL._replace(epochs=3)
    first, again = (
        training.train(world.graph, world.words, short, 1, progress=lambda epoch, loss: losses.append(loss))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.embeddings, again.embeddings, strict=True))
    other = training.train(world.graph, world.words, short, 2).embeddings
    assert not torch.equal(first.embeddings.source, other.source)
    grown = graph(125, torch.stack(world.graph.bought[1:3]))
    without = training.train(world.graph, None, short, 1).tables
    next_losses: list[float] = []
    rows = torch.cat([torch.arange(120), torch.full((5,), -1)])
    later = training.train(
        grown, None, short, 2, dual.Start(without, rows), lambda epoch, loss: next_losses.append(loss)
    ).embeddings
    assert next_losses[0] < losses[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(without[:8], training.train(world.graph, None, short, 1).tables[:8], strict=True)
    )
    assert not bool(later.asks[120:].any())
    assert all(bool(part.isfinite().all()) for part in later[:4])
    for settings, of in ((short._replace(width=9), rows[:120]), (short, rows), (short, rows[:120] + 1)):
        with pytest.raises(ValueError, match="train without a start"):
            training.train(world.graph, None, settings, 1, dual.Start(without, of))
    with pytest.raises(ValueError, match="no co-purchase edges"):
        training.train(graph(3, torch.empty(2, 0, dtype=torch.int64)))


def test_cold_products_stand_where_their_like_do() -> None:
    """Own words, and what the nearest have besides; what is known stays; without anything alike there is no place."""
    world = graphs.world()
    known, tables = training.train(world.graph, world.words, SMALL._replace(in_places=True), 1)
    said = dual.said(tables, world.words)
    assert torch.allclose(features.dense(world.words, torch.arange(120)) @ tables.words_target, said.target, atol=1e-5)
    chosen = torch.tensor([50, 90])
    gone = known._replace(
        asks=known.asks.index_fill(0, chosen, False), answers=known.answers.index_fill(0, chosen, False)
    )
    found = cold.placed(gone, world.words, said, nearest=3, shift=0.5)
    ids = gone.answers.nonzero().squeeze(1)
    likeness = features.alike(world.words, chosen, ids)
    for c, row in zip(chosen.tolist(), likeness, strict=True):
        best, place = row.topk(3)
        weight = best**2 / (best**2).sum()
        besides = torch.cat([known.target, known.target_bias[:, None]], 1)[ids[place]] - said.target[ids[place]]
        expected = said.target[c] + weight @ besides
        assert torch.allclose(found.target[c], expected[:-1], atol=1e-5)
        assert float(found.target_bias[c]) == pytest.approx(float(expected[-1]) + 0.5, abs=1e-4)
    assert torch.equal(found.source[gone.asks], known.source[gone.asks])
    assert bool(found.asks[chosen].all())
    strangers = cold.placed(gone, torch.eye(120))
    assert not bool(strangers.asks[chosen].any())


def test_the_shift_is_the_largest_that_is_paid_for() -> None:
    """It grows with what may be paid, never above 0, and cold targets are found by the world's rule."""
    world = graphs.world(size=30)
    nodes, new = len(world.group), torch.arange(0, 180, 10)
    both = torch.stack(world.graph.bought[1:3])
    fresh = torch.zeros(nodes, dtype=torch.bool).index_fill_(0, new, True)
    warm = ~fresh[both[0]] & ~fresh[both[1]]
    bought = graph(nodes, both[:, warm]).bought
    trained = training.train(graph(nodes, both[:, warm]), world.words, SMALL, 1)
    told = world.held_out[:, ~fresh[world.held_out[0]] & ~fresh[world.held_out[1]]]
    shifts = [cold.shift_of(trained.embeddings, bought, world.words, told, loss=loss) for loss in (0.0, 0.02)]
    assert shifts[0] < shifts[1] == 0
    found = cold.placed(trained.embeddings, world.words, shift=shifts[1])
    hits = [
        (ranks(scores_of(e), bought, told, trained.embeddings.answers | more) <= 10).double().mean()
        for e, more in ((trained.embeddings, ~fresh & False), (found, found.answers))
    ]
    assert float(hits[1]) >= float(hits[0]) * 0.98
    answering = both[:, ~fresh[both[0]] & fresh[both[1]] & (world.group[both[1]] > 0)]
    rank = ranks(scores_of(found), bought, answering)
    assert float((rank <= 20).double().mean()) > 0.3


def test_amazon_photo_in_an_epoch(data: Path) -> None:
    """A few steps on real edges: far above popularity in what follows and in which direction."""
    from graph_data import read, split

    found = read(data / "graph", "amazon_photo")
    parts = split(found.pairs, 0)
    given = graph(found.nodes, parts.train)
    settings = dual.Settings(width=16, epochs=2, rate=0.03, warm_up=3)
    quality = evaluate(
        scores_of(training.train(given, found.words, settings, 0).embeddings), given.bought, parts.valid[:, :1000],
        edges(found.nodes, found.pairs),
    )  # fmt: skip
    assert quality.hits[10] > 0.1
    assert quality.direction > 0.85
