"""Directed product graphs: whom to show beside whom, and in which direction, against counts, walks and factors.

    python benchmarks/graph.py --graphs amazon_photo,cora_ml --seeds 5 --methods walk,als,dual

Edges are cut 75/5/20 per seed: training, validation, test. Printed are means over seeds with their 95 % intervals (t).
`dual` chooses its settings on the validation edges, those of the networks were chosen there. Needs scipy, implicit for
`als`, and torch-geometric for `dirgnn`, which is skipped without it.
"""

import os
import time
from pathlib import Path
from typing import Any

import graph_cold
import torch
from asking import Parser, among
from graph_data import MAGAZINES, Data, Split, read, split
from graph_dirgnn import dirgnn
from graph_peers import PEERS, interval
from torch import Tensor

from learner.graph import daemon
from learner.graph.choice import choose
from learner.graph.edges import edges, graph
from learner.graph.evaluation import Quality, Scores, evaluate, scores_of
from learner.graph.features import dense
from learner.graph.methods import GRAPH_METHODS

COLUMNS = ("HR@5", "HR@10", "HR@20", "MRR@10", "direction", "existence", "CPU seconds")
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cora_ml": {
        "daemon": {"epochs": 100},
        "blade": {"network": daemon.Settings(epochs=100, draws=8)},
        "blade_uniform": {"network": daemon.Settings(epochs=100, draws=8)},
    },
    MAGAZINES: {"daemon": {"epochs": 100}},
}  # fmt: skip


def one(data: Data, name: str, method: str, seed: int, valid: bool) -> Quality:
    """A method on one split, judged on its test edges, or on those for validation."""
    parts = split(data.pairs, seed)
    scores, answers = scored(data, name, method, seed, parts)
    judged, everything = parts.valid if valid else parts.test, edges(data.nodes, data.pairs)
    return evaluate(scores, edges(data.nodes, parts.train), judged, everything, seed, answers)


def scored(data: Data, name: str, method: str, seed: int, parts: Split) -> tuple[Scores, Tensor | None]:
    """What a method makes of training edges, and which items may be found, None for all."""
    given = graph(data.nodes, parts.train, viewed=data.viewed)
    if method == "dirgnn":
        return dirgnn(given.bought, dense(data.words, torch.arange(data.nodes)), seed), None
    if method in PEERS:
        return PEERS[method](given.bought, seed), None
    found = GRAPH_METHODS[method]
    chosen = found.settings[choose(found, given, data.words, seed, parts.valid).settings]
    settings = chosen._replace(**SETTINGS.get(name, {}).get(method, {}))
    places, _ = found.train(given, data.words, settings, seed, None, None)
    return scores_of(places), places.answers


def table(data: Data, name: str, methods: list[str], seeds: int, valid: bool) -> None:
    """A row per method, as soon as it is known."""
    print(f"\n{name}: {data.nodes:,} products, {data.pairs.shape[1]:,} edges, {seeds} splits")
    print(f"{'':14}" + "".join(f"{column:>15}" for column in COLUMNS) + "   HR@10 by in-degree 0-1, 2-10, 11-100, >100")
    for method in methods:
        rows, degree = [], []
        try:
            for seed in range(seeds):
                began = time.process_time()
                q = one(data, name, method, seed, valid)
                taken = time.process_time() - began
                rows.append((*q.hits.values(), q.reciprocal[10], q.direction, q.existence, taken))
                degree.append(q.by_degree)
        except ImportError as missing:
            print(f"{method:14} skipped: {missing}")
            continue
        means = torch.tensor(degree).nanmean(0).tolist()
        cells = [interval(list(column)) for column in zip(*rows, strict=True)]
        print(
            f"{method:14}" + "".join(f"{c:>15}" for c in cells) + "   " + " ".join(f"{m:.3f}" for m in means),
            flush=True,
        )


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BELATED_DATA", ".")) / "graph")
    parser.add_argument("--graphs", default="amazon_photo,cora_ml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--methods",
        type=among([*PEERS, "dirgnn", *GRAPH_METHODS]),
        default="popularity,walk,walk_back,als,ease,hope,dirgnn,dual,daemon,blade",
    )
    parser.add_argument("--valid", action="store_true", help="judge on the validation edges")
    parser.add_argument("--cold", action="store_true", help="a fifth of the products has no edges; methods of its own")
    asked = parser.parse_args()
    if asked.cold and asked.valid:
        parser.error("--cold has methods and edges of its own: leave out --valid")
    torch.set_num_threads(1)
    methods = asked.methods
    for name in asked.graphs.split(","):
        data = read(asked.data, name)
        if asked.cold:
            graph_cold.table(data, name, asked.seeds)
        else:
            table(data, name, methods, asked.seeds, asked.valid)


if __name__ == "__main__":
    main()
