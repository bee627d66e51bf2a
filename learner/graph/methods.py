"""The methods that make embeddings of a directed graph, side by side: each is settings and a training, as one value."""

from collections.abc import Callable
from typing import Any, NamedTuple

from learner.graph import blade, daemon, dual, training
from learner.graph.edges import Graph
from learner.graph.embeddings import Embeddings
from learner.graph.features import Features

Progress = Callable[[int, float], None] | None


class GraphMethod(NamedTuple):
    """``train(graph, features, settings, seed, progress)`` -> Embeddings; ``settings``: its own, to `_replace` from."""

    train: Callable[[Graph, Features | None, Any, int, Progress], Embeddings]
    settings: Any


def _dual(graph: Graph, x: Features | None, settings: dual.Settings, seed: int, progress: Progress) -> Embeddings:
    return training.train(graph, x, settings, seed, progress=progress).embeddings


GRAPH_METHODS: dict[str, GraphMethod] = {
    "dual": GraphMethod(_dual, dual.Settings()),
    "daemon": GraphMethod(daemon.train, daemon.Settings()),
    "daemon_paper": GraphMethod(daemon.train, daemon.PAPER),
    "blade": GraphMethod(blade.train, blade.Settings()),
    "blade_uniform": GraphMethod(blade.train, blade.UNIFORM),
}
GRAPH_DEFAULT = "dual"
