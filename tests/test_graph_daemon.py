"""DAEMON's network and loss against dense matrices, and the methods that use it."""

import pytest
import torch

import graphs
from learner.graph import blade, daemon
from learner.graph.edges import Graph, edges, graph, kept, turned
from learner.graph.evaluation import evaluate, scores_of
from learner.graph.methods import GRAPH_METHODS
from learner.names import GRAPH_DEFAULT

NODES = 14


def unit(rows: torch.Tensor) -> torch.Tensor:
    length: torch.Tensor = rows.norm(dim=1, keepdim=True)
    return rows / length.clamp(min=1e-12)


def given() -> tuple[Graph, torch.Tensor, list[torch.Tensor]]:
    """A graph with co-views, of which products 12 and 13 know nothing, features, and two layers' tables."""
    chance = torch.Generator().manual_seed(0)
    bought, viewed = (torch.randint(0, NODES - 2, (2, 40), generator=chance) for _ in range(2))
    bought, viewed = (pairs[:, pairs[0] != pairs[1]] for pairs in (bought, viewed))
    tables = [torch.randn(n, 6, generator=chance) for n in (5, 6)]
    return graph(NODES, bought, viewed=viewed), torch.randn(NODES, 5, generator=chance), tables


@pytest.mark.parametrize("settings", [daemon.PAPER, daemon.Settings()])
def test_layers_are_the_formulas(settings: daemon.Settings) -> None:
    both, x, tables = given()
    assert both.viewed is not None
    cp, cv = graphs.dense(both.bought), graphs.dense(both.viewed)
    if settings.means:
        out, into, seen = (m / m.sum(1, keepdim=True).clamp(min=1) for m in (cp, cp.T, cv))
    else:
        out, into, seen = cp, cp.T, cv
    s = t = x - (x.mean(0) if settings.centred else 0)
    for layer, table in enumerate(tables):
        bent = torch.relu if settings.last_relu or layer == 0 else torch.clone
        s, t = (
            unit(bent(out @ t @ table) + bent(seen @ s @ table)),
            unit(bent(into @ s @ table) + bent(seen @ t @ table)),
        )
    messages = daemon.Messages(both.bought, turned(both.bought), both.viewed)
    source, target = daemon.network(tables, x, messages, settings)
    assert torch.allclose(source, s, atol=1e-5)
    assert torch.allclose(target, t, atol=1e-5)
    found = daemon.served(source, target, settings)
    assert found.asks.tolist() == [True] * (NODES - 2) + [False] * 2
    assert all(bool(part.isfinite().all()) for part in found[:4])


@pytest.mark.parametrize("settings", [daemon.PAPER, daemon.Settings()])
def test_the_loss_is_the_formula(settings: daemon.Settings) -> None:
    both, _, _ = given()
    chance = torch.Generator().manual_seed(1)
    s, t = (unit(torch.randn(NODES, 6, generator=chance)) for _ in range(2))
    taken, state = torch.tensor([0, 3, 7]), chance.get_state()
    z = torch.randint(0, NODES, (settings.negatives, 3), generator=chance)
    one_way = torch.arange(len(both.bought.source)) % 2 == 0

    def log_sigma(x: torch.Tensor) -> float:
        return float(torch.sigmoid(x / settings.tau).log())

    total = 0.0
    for n, e in enumerate(taken.tolist()):
        u, v = int(both.bought.source[e]), int(both.bought.target[e])
        total -= log_sigma(s[u] @ t[v] - settings.for_edge) * (1 + bool(one_way[e]))
        total -= sum(log_sigma(settings.against - s[u] @ t[w]) for w in z[:, n].tolist())
        total -= log_sigma(settings.against - s[v] @ t[u]) * bool(one_way[e])
    chance.set_state(state)
    found = daemon.loss_of(s, t, both.bought, taken, one_way, settings, chance)
    assert float(found) == pytest.approx(total / 3, rel=1e-4)


def test_messages_do_not_hold_what_is_supervised() -> None:
    """Of co-views both directions go; of co-purchases what is given is what is heard."""
    both, _, _ = given()
    chance = torch.Generator().manual_seed(0)
    assert both.viewed is not None
    taken = daemon._drawn(both.viewed, 5, chance)
    assert taken is not None
    left = daemon._without(both.viewed, taken)
    assert left is not None
    matrix = graphs.dense(left)
    u, v = both.viewed.source[taken], both.viewed.target[taken]
    assert not bool((matrix[u, v] + matrix[v, u]).any())
    part = kept(both.bought, torch.arange(len(both.bought.source)) > 4)
    heard = daemon._messages(part, None, daemon.everyone, chance)
    assert torch.equal(graphs.dense(heard.out), graphs.dense(heard.into).T)
    assert torch.equal(graphs.dense(heard.out), graphs.dense(part))


@pytest.mark.parametrize("name", ["daemon", "blade"])
def test_neighbours_and_direction_are_found(name: str) -> None:
    world, method = graphs.world(), GRAPH_METHODS[name]
    short: dict[str, int] = {"edges": 64, "epochs": 20, "width": 16}
    settings = next(iter(method.settings.values()))
    if name == "blade":
        settings = settings._replace(network=settings.network._replace(**short))
    else:
        settings = settings._replace(**short)
    found, tables = method.train(world.graph, world.words, settings, 1, None, None)
    assert (tables, method.short) == (None, None)
    everything = edges(120, torch.cat([torch.stack(world.graph.bought[1:3]), world.held_out], 1))
    quality = evaluate(scores_of(found), world.graph.bought, world.held_out, everything)
    assert quality.hits[20] > 0.5  # blindly it is 0.17
    assert quality.direction > 0.9
    again, _ = method.train(world.graph, world.words, settings, 1, None, None)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_what_cannot_be_seen_is_refused() -> None:
    world = graphs.world()
    with pytest.raises(ValueError, match="train `dual`"):
        blade.train(world.graph, None)
    assert next(iter(GRAPH_METHODS)) == GRAPH_DEFAULT
