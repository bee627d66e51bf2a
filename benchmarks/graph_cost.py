"""What a training costs by the size of the graph: CPU seconds of a pass over its edges, and memory.

    python benchmarks/graph_cost.py [--edges 50000,500000,5000000] [--methods dual,dual_exact,blade] [--steps 4]

Random directed graphs with a tenth as many products as edges, sources uniform, targets drawn as rank^-0.9, so that
in-degrees follow a power law of exponent 2.1; pairs drawn twice are one edge. Every product has ten words of a thousand.
Each cell is a process of its own, which takes one step more than ``--steps`` and leaves the first out. An epoch, a pass over
all sources (`dual`) or edges (`blade`), is by multiplication with its number of steps, and so is a whole training; memory is
that of the steps. ``dual_exact`` has a softmax over all items whatever the size; ``dual_fixed`` and ``blade_fixed`` have
as many sources and edges a step at every size, as if the number of steps of an epoch were not bounded.
"""

import json
import math
import resource
import subprocess
import sys
import time
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

from asking import Parser, among

PER_PRODUCT, WORDS, EACH, SHAPE = 10, 1000, 10, 0.9  # edges; words there are, and of each product; exponent of ranks
METHODS = ("dual", "dual_fixed", "dual_exact", "blade", "blade_fixed")
UNBOUNDED = 2**31


class Cell(NamedTuple):
    """Of a process: its graph, its ``steps`` an epoch and ``epochs``, CPU seconds of a step, and the most memory, MB: with
    the graph alone, and in the end."""

    nodes: int
    edges: int
    steps: int
    epochs: int
    seconds: float
    graph: float
    memory: float


class Enough(Exception):
    """As many steps as were asked for."""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--edges", default="50000,500000,5000000")
    parser.add_argument("--methods", type=among(METHODS), default="dual,blade", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--steps", type=int, default=4, help="that are measured")
    parser.add_argument("--cell", action="store_true", help="measure one here and tell it as JSON")
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(measure(asked.methods[0], int(asked.edges), asked.steps)))
        return
    print(
        f"{'':14}{'products':>10}{'edges':>11}{'steps/epoch':>12}{'s/step':>9}{'s/epoch':>9}{'s/million edges':>16}"
        f"{'whole training, s':>19}{'graph MB':>10}{'peak MB':>9}"
    )
    for method in asked.methods:
        for edges in asked.edges.split(","):
            told = ["--cell", "--methods", method, "--edges", edges, "--steps", str(asked.steps)]
            call = [sys.executable, __file__, *told]
            done = subprocess.run(call, capture_output=True, text=True)
            if done.returncode:
                print(f"{method:14}{edges} edges: {(done.stderr or 'no word').strip().splitlines()[-1]}", flush=True)
                continue
            cell = Cell(*json.loads(done.stdout))
            epoch = cell.seconds * cell.steps
            print(
                f"{method:14}{cell.nodes:10,}{cell.edges:11,}{cell.steps:12}{cell.seconds:9.3f}{epoch:9.2f}"
                f"{epoch / cell.edges * 1e6:16.2f}{epoch * cell.epochs:19.0f}{cell.graph:10.0f}{cell.memory:9.0f}",
                flush=True,
            )


def measure(method: str, count: int, steps: int) -> Cell:
    """A few steps of a training on a graph of ``count`` drawn edges, in this process."""
    import torch

    from learner.graph import daemon, dual, training
    from learner.graph.methods import GRAPH_METHODS

    torch.set_num_threads(1)
    given, words = drawn(count)
    before, edges = _memory(), given.bought
    name, _, way = method.partition("_")
    asked = GRAPH_METHODS[name]
    settings: Any = next(iter(asked.settings.values()))
    module: ModuleType = daemon if name == "blade" else training
    if name == "blade":
        network = settings.network._replace(**({"steps": UNBOUNDED} if way == "fixed" else {}))
        settings, epochs = settings._replace(network=network), network.epochs
        an_epoch = math.ceil(len(edges.source) / daemon.edges_of(len(edges.source), network))
    else:
        other: dict[str, dict[str, Any]] = {"": {}, "fixed": {"steps": (8, UNBOUNDED)}, "exact": {"exact": UNBOUNDED}}
        settings = dual.Settings()._replace(**other[way])
        asking = int((edges.ptr.diff() > 0).sum())
        an_epoch, epochs = math.ceil(asking / training.sources_of(asking, settings)), settings.epochs
    times = clocked(module, min(steps, 2 * an_epoch) + 1)
    with suppress(Enough):
        asked.train(given, words, settings, 0, None, None)
    seconds = (times[-1] - times[1]) / (len(times) - 2)
    return Cell(given.nodes, len(edges.source), an_epoch, epochs, seconds, before, _memory())


def drawn(count: int) -> tuple[Any, Any]:
    """A graph and the features of its products."""
    import torch

    from learner.graph import features
    from learner.graph.edges import graph

    nodes, chance = count // PER_PRODUCT, torch.Generator().manual_seed(0)
    law = torch.arange(1, nodes + 1, dtype=torch.float64).pow(-SHAPE).cumsum(0)
    rank = torch.searchsorted(law, law[-1] * torch.rand(count, generator=chance, dtype=torch.float64))
    target = torch.randperm(nodes, generator=chance)[rank.clamp(max=nodes - 1)]
    source = torch.randint(0, nodes, (count,), generator=chance)
    pairs = torch.unique(torch.stack([source, target])[:, source != target], dim=1)
    said = torch.randint(0, WORDS, (nodes * EACH,), generator=chance)
    words = torch.unique(torch.stack([torch.arange(nodes).repeat_interleave(EACH), said]), dim=1)
    return graph(nodes, pairs), features.words(nodes, WORDS, words)


def clocked(module: ModuleType, steps: int) -> list[float]:
    """The CPU clock as each loss of a training is asked for; Enough is raised at that of the step after the last."""
    times: list[float] = []
    loss_of = module.loss_of

    def counting(*given: Any) -> Any:
        times.append(time.process_time())
        if len(times) > steps:
            raise Enough
        return loss_of(*given)

    module.loss_of = counting  # type: ignore[attr-defined]
    return times


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
