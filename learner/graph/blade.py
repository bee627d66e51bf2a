"""BLADE: the network of `daemon` over neighbourhoods of `sampling`, drawn anew in every step.

Virinchi, Saladi: BLADE: Biased Neighborhood Sampling based Graph Neural Network for Directed Graphs, WSDM 2023. The loss is
that of `daemon`. At the end places are the mean over several draws, made of unit length again, so that one draw's
luck does not decide; that, as the sizes, is ours. Memory grows with the nodes and what is drawn of their edges.
"""

from collections.abc import Callable
from typing import NamedTuple

from learner.graph import daemon
from learner.graph.edges import Graph
from learner.graph.embeddings import Embeddings
from learner.graph.features import Features
from learner.graph.sampling import Sizes, neighbourhoods


class Settings(NamedTuple):
    """``sizes``: of neighbourhoods; ``network``: as of `daemon`."""

    sizes: Sizes = Sizes()
    network: daemon.Settings = daemon.Settings(draws=8)


UNIFORM = Settings(Sizes(fixed=True))
"""The ablation: as many neighbours for all, chosen alike."""


def train(
    graph: Graph,
    features: Features | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Embeddings:
    """Embeddings of the products of a graph, see `daemon.train`."""
    asked = settings or Settings()
    return daemon.train(
        graph, features, asked.network, seed, progress, lambda edges, chance: neighbourhoods(edges, asked.sizes, chance)
    )
