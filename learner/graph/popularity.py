"""How much more popular products should answer: what places say, and in-degrees, weighed at edges that came afterwards.

Places remember the edges they were learned from; those still to come are less like them, and follow popularity more. With
in-degrees d of the edges E that the places come from, their scores are weighed on edges that were new later, which neither
knows, as a conditional logit over what is offered (items with d > 0 but u and its out-neighbours):

    log P(v | u) = alpha rel(u, v) + beta h_v - log sum,   h_v = log d_v - sum_E log d / |E|, 0 where d_v = 0

concave in (alpha, beta); a normal belief around (1, 0) counts for `BELIEF` edges. Only the ratio changes an order: the next
places get target biases b_v + ratio h_v, ratio = beta / alpha within [0, MOST], and keep the scale of a logit. Products that
nothing leads to, and the mean over edges, stay where they are. Derived for this project.
"""

import torch
from torch import Tensor

from learner.graph.edges import Edges, degrees
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import Scores, by_source, offered_of, scores_of

STEPS = 8  # of Newton
BELIEF = 20.0
MOST = 8.0
LEAST = 0.05  # alpha below which places say nothing


def height(into: Tensor) -> Tensor:
    """h [N] of weighted in-degrees ``into`` [N]."""
    there = into > 0
    logs = torch.where(there, into, 1.0).log()
    return torch.where(there, logs - (into @ logs) / into.sum(), 0.0)


def raised(places: Embeddings, into: Tensor, ratio: float) -> Embeddings:
    """Places whose targets answer as much more as they are popular: b + ratio h."""
    return places._replace(target_bias=places.target_bias + ratio * height(into))


def ratio_of(places: Embeddings, trained: Edges, later: Tensor) -> float:
    """beta / alpha of ``places``, learned from ``trained``, at ``later`` edges [2, T]: from who asks to what has d > 0."""
    alpha, beta = weighed(places, trained, later)
    return min(max(beta, 0.0) / max(alpha, LEAST), MOST)


def weighed(places: Embeddings, trained: Edges, later: Tensor) -> tuple[float, float]:
    """alpha and beta, see above."""
    into, scores = degrees(trained)[1], scores_of(places)
    believed = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = believed
    for _ in range(STEPS):
        slope, bend = _slope(scores, into, trained, later, found)
        step = torch.linalg.solve(bend + BELIEF * torch.eye(2), slope - BELIEF * (found - believed))
        found = found + step / step.abs().max().clamp(min=1.0)
    alpha, beta = found.tolist()
    return alpha, beta


def _slope(scores: Scores, into: Tensor, trained: Edges, later: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient [2] of the log likelihood at (alpha, beta), and minus its Hessian [2, 2]; float64."""
    h, (alpha, beta) = height(into), at.tolist()
    slope, bend = torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for u, these, of in by_source(later[0], trained.nodes):
        rel = scores(u)
        chance = offered_of(alpha * rel + beta * h, u, trained, into > 0).softmax(1)
        of_rel = chance * rel
        means = torch.stack([of_rel.sum(1), chance @ h]).double()
        squares = torch.stack([(of_rel * rel).sum(1), of_rel @ h, chance @ h**2]).double()
        times = torch.bincount(of, minlength=len(u)).double()
        slope += torch.stack([rel[of, later[1, these]], h[later[1, these]]]).double().sum(1) - means @ times
        bend += (squares @ times)[torch.tensor([[0, 1], [1, 2]])] - (means * times) @ means.T
    return slope, bend
