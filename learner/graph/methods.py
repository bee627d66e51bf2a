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
    from; ``settings``: its own by name, of which `choice.choose` takes one, without features the first.

    ``short``: of settings those for a training that has a start, or only chooses. None: the method begins anew each time; it
    ignores a start and has no tables, since a network over features has nothing of single products that could be kept.
    """

    train: Callable[[Graph, Features | None, Any, int, Start | None, Progress], tuple[Embeddings, Tables | None]]
    settings: dict[str, Any]
    short: Callable[[Any], Any] | None = None


def _anew(train: Callable[[Graph, Features | None, Any, int, Progress], Embeddings]) -> Any:
    return lambda graph, x, settings, seed, start, progress: (train(graph, x, settings, seed, progress), None)


GRAPH_METHODS: dict[str, GraphMethod] = {
    "dual": GraphMethod(training.train, {"links": dual.Settings(), "words": dual.WORDS}, dual.short),
    "daemon": GraphMethod(_anew(daemon.train), {"ours": daemon.Settings()}),
    "daemon_paper": GraphMethod(_anew(daemon.train), {"paper": daemon.PAPER}),
    "blade": GraphMethod(_anew(blade.train), {"biased": blade.Settings()}),
    "blade_uniform": GraphMethod(_anew(blade.train), {"uniform": blade.UNIFORM}),
}
