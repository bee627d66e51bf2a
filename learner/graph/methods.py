"""The methods that make embeddings of a directed graph, side by side: each is settings and a training, as one value."""

from collections.abc import Callable
from typing import Any, NamedTuple

from learner.graph import blade, daemon, dual, training
from learner.graph.dual import Start, Tables
from learner.graph.edges import Graph
from learner.graph.embeddings import Embeddings
from learner.graph.features import Features

Progress = Callable[[int, float], None] | None


class GraphMethod(NamedTuple):
    """``train(graph, features, settings, seed, start, progress)`` -> Embeddings, and the tables that a next training starts
    from; ``settings``: its own, to `_replace` from.

    ``warm``: settings for a training that has a start. None: the method begins anew each time; it ignores a start and has
    no tables, since a network over features has nothing of single products that could be kept.
    """

    train: Callable[[Graph, Features | None, Any, int, Start | None, Progress], tuple[Embeddings, Tables | None]]
    settings: Any
    warm: Any = None


def _anew(train: Callable[[Graph, Features | None, Any, int, Progress], Embeddings]) -> Any:
    return lambda graph, x, settings, seed, start, progress: (train(graph, x, settings, seed, progress), None)


GRAPH_METHODS: dict[str, GraphMethod] = {
    "dual": GraphMethod(training.train, dual.Settings(), dual.WARM),
    "daemon": GraphMethod(_anew(daemon.train), daemon.Settings()),
    "daemon_paper": GraphMethod(_anew(daemon.train), daemon.PAPER),
    "blade": GraphMethod(_anew(blade.train), blade.Settings()),
    "blade_uniform": GraphMethod(_anew(blade.train), blade.UNIFORM),
}
GRAPH_DEFAULT = "dual"
