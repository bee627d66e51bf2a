"""Co-views beside co-purchases: whether they help to find what is bought next, on Amazon Magazine Subscriptions.

    python benchmarks/graph_views.py --seeds 5

The splits are those of `graph`; co-views are known to all methods that can hear them, once with and once without. Beside
held-out edges stand those of the selection bias, after DAEMON (Virinchi et al., ECML-PKDD 2022): pairs that are no training
edges and follow from them by

    rule 1    a is bought with b, b is viewed with c: so a is bought with c
    rule 2    a is viewed with b, b is bought with c: so a is bought with c

whether or not they are true; and the test edges among them, which are. Counts that know the rules stand beside it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import graph as directed
import torch
from asking import Parser, among
from graph_data import MAGAZINES, Data, read, split
from graph_peers import interval, walk
from torch import Tensor

from learner.graph.edges import Edges, Graph, edges, graph, linked
from learner.graph.evaluation import Scores, evaluate, ranks

METHODS = ("popularity", "walk", "walk_views", "rules", "dual", "dual alone", "daemon", "daemon alone")
COLUMNS = ("HR@10", "MRR@10", "direction", "existence")
HITS = ("co-viewed", "not co-viewed", "rule 1 only", "rule 2 only")


class Judge:
    """The figures of a split; ``test`` [2, T]: its held-out edges."""

    def __init__(self, data: Data, given: Graph, test: Tensor, seed: int) -> None:
        self.given, self.test, self.seed = given, test, seed
        self.first, self.second = bias(given)
        self.everything = edges(data.nodes, data.pairs)
        pairs = (self.first | self.second).nonzero().T
        self.followed = pairs
        self.possible = edges(data.nodes, torch.cat([data.pairs, pairs], 1))

    def sets(self) -> dict[str, tuple[Tensor, Edges]]:
        """Test edges [2, .], each with all the edges that none of its pairs without an edge may be."""
        u, v = self.test
        true = self.test[:, (self.first | self.second)[u, v]]
        return {
            "held-out edges": (self.test, self.everything),
            "selection bias": (self.followed, self.possible),
            "selection bias, held out": (true, self.everything),
        }

    def figures(self, scores: Scores, answers: Tensor | None) -> dict[str, list[float]]:
        """The `COLUMNS` of each set, and `HITS`."""
        found = {}
        for name, (pairs, everything) in self.sets().items():
            q = evaluate(scores, self.given.bought, pairs, everything, self.seed, answers)
            found[name] = [q.hits[10], q.reciprocal[10], q.direction, q.existence]
        assert self.given.viewed is not None
        seen = linked(self.given.viewed, *self.test)
        one, two = self.first & ~self.second, self.second & ~self.first
        parts = self.test[:, seen], self.test[:, ~seen], one.nonzero().T, two.nonzero().T
        found["HR@10"] = [
            float((ranks(scores, self.given.bought, pairs, answers) <= 10).double().mean()) for pairs in parts
        ]
        return found


def matrices(given: Graph) -> tuple[Tensor, Tensor]:
    """Co-purchases and co-views, row = source: [N, N]."""
    found = []
    for some in (given.bought, given.viewed):
        assert some is not None
        found.append(torch.zeros(given.nodes, given.nodes).index_put_((some.source, some.target), some.weight))
    return found[0], found[1]


def bias(given: Graph) -> tuple[Tensor, Tensor]:
    """What follows by rule 1 and by rule 2 and is no training edge: [N, N] bool."""
    bought, viewed = matrices(given)
    new = (bought == 0) & ~torch.eye(given.nodes, dtype=torch.bool)
    return (bought @ viewed > 0) & new, (viewed @ bought > 0) & new


def rules(given: Graph, seed: int) -> Scores:
    """A V + V A, V with rows that sum to 1: how often each follows."""
    bought, viewed = matrices(given)
    viewed = viewed / viewed.sum(1, keepdim=True).clamp(min=1)
    table = bought @ viewed + viewed @ bought
    return lambda u: table[u]


def walk_views(given: Graph, seed: int) -> Scores:
    """The walk that begins with co-views too: (A + V / 2) Din^-1 A^T Dout^-1 A + V / 2."""
    bought, viewed = matrices(given)
    steps = (bought / bought.sum(0).clamp(min=1)).T @ (bought / bought.sum(1, keepdim=True).clamp(min=1))
    table = (bought + viewed / 2) @ steps + viewed / 2
    return lambda u: table[u]


OURS: dict[str, Callable[[Graph, int], Scores]] = {
    "walk": lambda given, seed: walk(given.bought, seed), "rules": rules, "walk_views": walk_views,
}  # fmt: skip


def one(data: Data, method: str, seed: int, valid: bool) -> tuple[dict[str, list[float]], float]:
    """The figures of a method on one split, and the CPU seconds it took."""
    parts = split(data.pairs, seed)
    given = graph(data.nodes, parts.train, viewed=data.viewed)
    began, answers = time.process_time(), None
    if method in OURS:
        scores = OURS[method](given, seed)
    else:
        known = data._replace(viewed=None) if method.endswith(" alone") else data
        scores, answers = directed.scored(known, MAGAZINES, method.removesuffix(" alone"), seed, parts)
    taken = time.process_time() - began
    return Judge(data, given, parts.valid if valid else parts.test, seed).figures(scores, answers), taken


def about(data: Data, seeds: int, valid: bool) -> None:
    """How many edges there are of each kind."""
    counts = []
    for seed in range(seeds):
        parts = split(data.pairs, seed)
        judge = Judge(
            data, graph(data.nodes, parts.train, viewed=data.viewed), parts.valid if valid else parts.test, seed
        )
        assert judge.given.viewed is not None
        seen = linked(judge.given.viewed, *judge.test).double().mean()
        true = linked(judge.everything, *judge.followed).double().mean()
        counts.append(
            (
                judge.test.shape[1],
                float(seen),
                *(pairs.shape[1] for pairs, _ in list(judge.sets().values())[1:]),
                float(true),
            )
        )
    told = torch.tensor(counts, dtype=torch.float64).mean(0).tolist()
    print(
        f"{data.nodes:,} products, {data.pairs.shape[1]:,} edges, {seeds} splits; {told[0]:,.0f} held-out edges, "
        f"{told[1]:.1%} of them co-views; {told[2]:,.0f} pairs follow by the rules, {told[4]:.2%} of them are edges; "
        f"{told[3]:,.0f} held-out edges follow"
    )


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BELATED_DATA", ".")) / "graph")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", type=among(METHODS), default=",".join(METHODS))
    parser.add_argument("--valid", action="store_true", help="judge on the validation edges")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = read(asked.data, MAGAZINES)
    about(data, asked.seeds, asked.valid)
    tables: dict[str, list[str]] = {}
    for method in asked.methods:
        splits = [one(data, method, seed, asked.valid) for seed in range(asked.seeds)]
        for name in splits[0][0]:
            columns = zip(*(figures[name] for figures, _ in splits), strict=True)
            line = "".join(f"{interval(list(column)):>15}" for column in columns)
            tables.setdefault(name, []).append(f"{method:14}{line}")
        print(f"{method}: {interval([taken for _, taken in splits])} CPU seconds", flush=True)
    for name, lines in tables.items():
        titles = HITS if name == "HR@10" else COLUMNS
        print(f"\n{name:14}" + "".join(f"{title:>15}" for title in titles), *lines, sep="\n")


if __name__ == "__main__":
    main()
