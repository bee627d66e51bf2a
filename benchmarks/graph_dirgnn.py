"""Dir-GNN (Rossi et al., LoG 2023) with torch-geometric's own layer, over the full graph, for the benchmark.

Two layers over a linear map of the features, a linear head for each side, rel their inner product plus two biases. In each
of STEPS steps a part of the edges is taken out and supervised: log loss of the edge, of five uniform items, and of the
reversal of a one-way edge. Lightly tuned, as are all peers.
"""

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import relu, softplus

from learner.graph.edges import Edges, linked
from learner.graph.evaluation import Scores

WIDTH, STEPS, HIDDEN, NEGATIVES = 64, 150, 0.3, 5


class Places(Module):
    """Features [N, F] and edges [2, E] -> places [N, WIDTH + 1] of each side, the bias last."""

    def __init__(self, words: int) -> None:
        from torch_geometric.nn import DirGNNConv, SAGEConv

        super().__init__()
        self.first = Linear(words, WIDTH)
        self.layers = torch.nn.ModuleList([DirGNNConv(SAGEConv(WIDTH, WIDTH)) for _ in range(2)])
        self.source, self.target = Linear(WIDTH, WIDTH + 1), Linear(WIDTH, WIDTH + 1)

    def forward(self, x: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x)
        for layer in self.layers:
            h = h + layer(relu(h), pairs)
        return self.source(h), self.target(h)


def dirgnn(edges: Edges, x: Tensor, seed: int) -> Scores:
    """Train on the edges with features [N, F]; deterministic but for the order of torch-geometric's sums."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Places(x.shape[1])
    chance = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    pairs = torch.stack([edges.source, edges.target])
    one_way = ~linked(edges, edges.target, edges.source)
    for _ in range(STEPS):
        taken = torch.rand(pairs.shape[1], generator=chance) < HIDDEN
        source, target = model(x, pairs[:, ~taken])

        def r(u: Tensor, v: Tensor, source: Tensor = source, target: Tensor = target) -> Tensor:
            a, b = source[u], target[v]
            return (a[..., :-1] * b[..., :-1]).sum(-1) + a[..., -1] + b[..., -1]

        u, v = pairs[:, taken]
        z = torch.randint(0, edges.nodes, (NEGATIVES, len(u)), generator=chance)
        each = softplus(-r(u, v)) + softplus(r(u, z)).sum(0) + one_way[taken] * softplus(r(v, u))
        optimiser.zero_grad()
        each.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        source, target = model(x, pairs)
    return lambda u: source[u, :-1] @ target[:, :-1].T + source[u, -1:] + target[:, -1]
