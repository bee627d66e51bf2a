"""A linear dual model: a product asks with what it is bought beside, and answers with who asks for it.

With degrees d of the edges that are summed over, floored at 1, and tables P, Q, R, e of one row per product,

    o_uv = d_out(u)^-1/2 d_in(v)^-p            of an edge u -> v
    i_uv = d_in(u)^-1/2 d_out(v)^-p            of an edge v -> u
    y_u   =       sum_(u,v) o_uv P_v + sum_(v,u) i_uv Q_v  + x_u W_s
    z_u^s = y_u + k / |C_u| sum_(b in C_u) y_b,   C_u: what is viewed with u
    z_v^t = e_v + sum_(u,v) i_vu R_u                       + x_v W_t
    c_u, b_v: the same sums over one more column of each table, and g_u . a_s, g_v . a_t
    g = (1, lo, li, lo^2 / 4, li^2 / 4, lo li / 4) / 3,   lo, li = log(1 + d_out), log(1 + d_in)
    rel(u, v) = z_u^s . z_v^t + c_u + b_v,   r = rel + one learned bias

No activation, no norm, no learned row of the source itself: u is what its neighbours say. A sum over edges counts each by
its weight, and so do degrees. The mean over co-views, with k learned, is the rule "u is viewed with b, b is bought with c:
so u is bought with c"; biases have no part in it, and without co-views z_u^s = y_u. Derived for this project, after the
two places of APP and HOPE and the rules of DAEMON (Virinchi et al., ECML-PKDD 2022); how it is learned is in `training`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from learner.graph.edges import Edges, Graph, degrees, propagate
from learner.graph.embeddings import Embeddings
from learner.graph.features import Features, project, width


class Settings(NamedTuple):
    """Chosen on validation edges of Amazon Photo; docs/graph.md says what else was tried.

    ``width``: d. ``power``: p, how much a popular neighbour counts less. ``keep``: share of edges summed over in a step.
    ``direction``, ``existence``: weights w_d, w_e of the loss, see `training`. ``decay``: of the tables, per unit of rate.
    ``sources``: per step, but fewer or more where an epoch would have less or more steps than ``steps`` says. ``spread``:
    standard deviation the tables start with. ``in_places``: whether features enter z, or biases only. ``exact``: items up to
    which the softmax is over all of them, beyond over ``sampled`` ones.
    """

    width: int = 64
    power: float = 0.25
    keep: float = 0.5
    direction: float = 0.25
    existence: float = 0.1
    decay: float = 0.5
    sources: int = 256
    epochs: int = 40
    rate: float = 0.01
    warm_up: int = 20
    spread: float = 0.1
    in_places: bool = False
    exact: int = 20_000
    sampled: int = 8_192
    steps: tuple[int, int] = (8, 16)


WORDS = Settings(power=0.5, keep=0.7, direction=0.6, existence=0.3, decay=2.0, epochs=50, in_places=True)
"""Features in places, and tables held nearer to zero beside them. Chosen on validation edges of Cora ML."""


def short(settings: Settings) -> Settings:
    """A quarter of the epochs: what is enough to choose settings by, or from tables of an earlier version on.

    Most edges are learned there already. At a lower rate new products are not learned in that time, and what has not
    changed stays in place at this one too.
    """
    return settings._replace(epochs=math.ceil(settings.epochs / 4))


class Tables(NamedTuple):
    """What is learned, float32. ``out`` P, ``into`` Q, ``asked`` R, ``own`` e [N, d + 1], the last column for the bias;
    ``words_source``, ``words_target`` [F, d + 1], or [F, 1] for the bias alone; ``shape`` a [2, 6]; ``level`` [];
    ``seen`` k [], or None of a graph without co-views."""

    out: Tensor
    into: Tensor
    asked: Tensor
    own: Tensor
    words_source: Tensor
    words_target: Tensor
    shape: Tensor
    level: Tensor
    seen: Tensor | None = None


class Start(NamedTuple):
    """Where learning begins: ``tables`` of an earlier version, and ``row`` [N] int64 of each product there, -1 if new."""

    tables: Tables
    row: Tensor


class States(NamedTuple):
    """``source``, ``target`` [N, d + 1]: places, and the bias in the last column."""

    source: Tensor
    target: Tensor


def fits(tables: Tables, words: int, settings: Settings) -> bool:
    """Whether a model of ``words`` features can start from these tables."""
    return tables.own.shape[1] == settings.width + 1 and tables.words_source.shape == _of_words(words, settings)


def _of_words(words: int, settings: Settings) -> tuple[int, int]:
    return words, settings.width + 1 if settings.in_places else 1


def init(
    nodes: int, words: int, settings: Settings, chance: torch.Generator, start: Start | None = None, views: bool = False
) -> Tables:
    """Tables of ``nodes`` products and ``words`` features; what ``start`` has is taken from there. ``views``: has k.

    ValueError: ``start`` is of other products, another width or other features.
    """
    wide = settings.width + 1
    rows = [settings.spread * torch.randn(nodes, wide, generator=chance) for _ in range(4)]
    for row in rows:
        row[:, -1] = 0
    of_words = [torch.zeros(_of_words(words, settings)) for _ in range(2)]
    seen = torch.zeros(()) if views else None
    shape, level = torch.zeros(2, 6), torch.zeros(())
    fresh = Tables(rows[0], rows[1], rows[2], rows[3], of_words[0], of_words[1], shape, level, seen)
    if start is None:
        return fresh
    told, row = start
    if len(row) != nodes or int(row.max()) >= len(told.own) or not fits(told, words, settings):
        raise ValueError(
            f"tables of {list(told.own.shape)} and {list(told.words_source.shape)}, asked for {len(row)} rows, cannot start "
            f"a model of {[nodes, wide]} and {list(fresh.words_source.shape)}: train without a start"
        )
    known = (row >= 0)[:, None]
    grown = [torch.where(known, old[row.clamp(min=0)], new) for old, new in zip(told[:4], fresh[:4], strict=True)]
    if seen is not None and told.seen is not None:
        seen = told.seen.clone()
    kept = [table.clone() for table in (told.words_source, told.words_target, told.shape, told.level)]
    return Tables(grown[0], grown[1], grown[2], grown[3], kept[0], kept[1], kept[2], kept[3], seen)


def states(tables: Tables, graph: Graph, mass: Tensor, x: Features | None, power: float, share: float = 1.0) -> States:
    """Places and biases from the co-purchases, of which each counts ``mass`` [E], 0 where it is left out, and co-views.

    ``share``: of all edges those summed over, on average; degrees in g are divided by it.
    """
    edges = graph.bought
    d_out, d_in = degrees(edges, mass)
    g_out, g_in = (torch.log1p(d / share) for d in (d_out, d_in))
    d_out, d_in = d_out.clamp(min=1), d_in.clamp(min=1)
    o = mass * d_out.rsqrt()[edges.source] * d_in.pow(-power)[edges.target]
    i = mass * d_in.rsqrt()[edges.target] * d_out.pow(-power)[edges.source]
    into = propagate(edges, i, torch.cat([tables.into, tables.asked], 1), back=True)
    wide = tables.own.shape[1]
    source = propagate(edges, o, tables.out) + into[:, :wide]
    target = tables.own + into[:, wide:]
    g = torch.stack([torch.ones_like(g_out), g_out, g_in, g_out**2 / 4, g_in**2 / 4, g_out * g_in / 4], 1) / 3
    bias = g @ tables.shape.T
    source, target = (torch.cat([z[:, :-1], z[:, -1:] + bias[:, n, None]], 1) for n, z in enumerate((source, target)))
    if x is not None and width(x):
        source, target = (z + w for z, w in zip((source, target), said(tables, x), strict=True))
    if graph.viewed is not None and tables.seen is not None:
        source = torch.cat([source[:, :-1] + tables.seen * _mean(graph.viewed, source[:, :-1]), source[:, -1:]], 1)
    return States(source, target)


def said(tables: Tables, x: Features) -> States:
    """What features add to places and biases: x W, or x w for the biases alone."""
    parts = project(x, torch.cat([tables.words_source, tables.words_target], 1)).chunk(2, 1)
    return States(*(pad(w, (tables.own.shape[1] - w.shape[1], 0)) for w in parts))


def _mean(viewed: Edges, values: Tensor) -> Tensor:
    """Of ``values`` [N, D] over what is viewed with each product, which all count alike: [N, D], 0 without."""
    return propagate(viewed, viewed.ptr.diff().reciprocal()[viewed.source], values)


def embed(tables: Tables, graph: Graph, x: Features | None, settings: Settings) -> Embeddings:
    """Embeddings from all edges. The learned level is in the source's bias, so that rel is r.

    A product asks that has an edge, or is viewed with one that has.
    """
    edges = graph.bought
    source, target = states(tables, graph, edges.weight, x, settings.power)
    known = (edges.ptr.diff() > 0) | (edges.in_ptr.diff() > 0)
    if graph.viewed is not None:
        known = known | (_mean(graph.viewed, known[:, None].float())[:, 0] > 0)
    return Embeddings(
        source[:, :-1].contiguous(), target[:, :-1].contiguous(), source[:, -1] + tables.level, target[:, -1].contiguous(),
        known, edges.in_ptr.diff() > 0,
    )  # fmt: skip
