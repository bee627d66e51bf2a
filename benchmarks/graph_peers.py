"""What the directed graph methods are held against: counts, walks and factors, in NumPy and SciPy.

Each takes the training edges and gives the scores of all items for sources u. They see no features.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import torch
from torch import Tensor

from learner.graph.edges import Edges
from learner.graph.evaluation import Scores

Matrix = Any  # of SciPy, which has no types

WIDTH = 64
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 97.5 % of Student's t, from 1 degree of freedom


def matrix(edges: Edges) -> Matrix:
    """A, row = source."""
    parts = (edges.weight.numpy(), edges.target.numpy(), edges.ptr.numpy())
    return sp.csr_matrix(parts, shape=(edges.nodes, edges.nodes))


def _over(degree: np.ndarray) -> Matrix:
    return sp.diags(1 / np.maximum(degree, 1), format="csr")


def popularity(edges: Edges, seed: int) -> Scores:
    """In-degree."""
    counts = edges.in_ptr.diff().float()
    return lambda u: counts.repeat(len(u), 1)


def walk(edges: Edges, seed: int, back: float = 0.0) -> Scores:
    """A Din^-1 A^T Dout^-1 A, and ``back`` A^T of it, normalised by rows."""
    a = matrix(edges)
    steps = _over(np.asarray(a.sum(0)).ravel()) @ a.T @ _over(np.asarray(a.sum(1)).ravel()) @ a
    first = (a + back * a.T).tocsr()
    return lambda u: _dense(first[u.numpy()] @ steps + back * a.T.tocsr()[u.numpy()])


def walk_back(edges: Edges, seed: int) -> Scores:
    """The walk that also begins against the edges: (A + A^T / 2) Din^-1 A^T Dout^-1 A + A^T / 2."""
    return walk(edges, seed, 0.5)


def als(edges: Edges, seed: int) -> Scores:
    """Implicit ALS (Hu, Koren, Volinsky, ICDM 2008), rows sources, columns targets."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=WIDTH, regularization=0.05, alpha=10.0, iterations=15, random_state=seed, num_threads=1
    )
    model.fit(matrix(edges), show_progress=False)
    return _factors(model.user_factors, model.item_factors)


def ease(edges: Edges, seed: int) -> Scores:
    """EASE (Steck, WWW 2019): A B, B with a diagonal of 0, ridge 100."""
    a = matrix(edges)
    gram = (a.T @ a).toarray().astype(np.float64)
    inverse = np.linalg.inv(gram + 100.0 * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return lambda u: torch.from_numpy((a[u.numpy()] @ weights).astype(np.float32))


def hope(edges: Edges, seed: int) -> Scores:
    """HOPE (Ou et al., KDD 2016): Katz = (I - b A)^-1 b A, b half of 1 / |A|, by truncated SVD without writing it out."""
    a = matrix(edges).astype(np.float64)
    size = a.shape[0]
    start = np.random.default_rng(seed).standard_normal(size)
    beta = 0.5 / spl.svds(a, 1, v0=start, return_singular_vectors=False)[0]
    solve = spl.splu(sp.eye(size, format="csc") - beta * a.tocsc())
    katz = spl.LinearOperator(
        a.shape, matvec=lambda x: solve.solve(beta * (a @ x)), rmatvec=lambda y: beta * (a.T @ solve.solve(y, "T")),
        dtype=np.float64,
    )  # fmt: skip
    left, values, right = spl.svds(katz, WIDTH, v0=start)
    return _factors(left * np.sqrt(values), right.T * np.sqrt(values))


def _factors(source: np.ndarray, target: np.ndarray) -> Scores:
    rows, columns = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (source, target))
    return lambda u: rows[u] @ columns.T


def _dense(rows: Matrix) -> Tensor:
    return torch.from_numpy(rows.toarray().astype(np.float32))


PEERS: dict[str, Callable[[Edges, int], Scores]] = {
    "popularity": popularity, "walk": walk, "walk_back": walk_back, "als": als, "ease": ease, "hope": hope,
}  # fmt: skip


def interval(values: list[float]) -> str:
    """Mean and half of the 95 % interval."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = T[min(len(values) - 2, len(T) - 1)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3f} ±{half:.3f}"
