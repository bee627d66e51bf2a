"""A directed graph that grows: citations of cit-HepPh month by month, a version of `dual` after each of them.

    python benchmarks/graph_growth.py [--until 1995-12] [--refreshes 12] [--anew 4]

A citation appears in the month of the later of its two papers, which nearly always is the one that cites. Each month:

    1. before anything is trained, the citations of each citing paper are cut in two. One half is told: with it papers get
       places from the tables of the version before by a forward pass (rows of new papers are zero). The other half is
       looked for among all papers that are cited so far, as HR@10; those whose target the version before knew as cited,
       and those to newly cited papers, apart. Beside it: the tables of the first version, never trained again; those of
       the last version from the beginning; popularity and the walk of three steps, over the same edges.
    2. a version is trained on all edges so far, from the last one on (`dual.short`); now and then also one from the
       beginning.
    3. each is turned to where the last served version is. Cosines to it before and after, of papers none of whose edges are
       new and of all, and whether any top 10 has changed.

Papers cite in their first month only, so a month's citations come from papers that the version before does not know.
"""

import os
import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from asking import Parser
from graph_peers import PEERS
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from learner.graph import dual, training
from learner.graph.alignment import align
from learner.graph.dual import Start, Tables
from learner.graph.edges import Edges, Graph, edges, graph
from learner.graph.embeddings import Embeddings
from learner.graph.evaluation import ranks, scores_of
from learner.graph.index import related

TOP = 10
DEGREES = (1, 10, 100)  # of a paper, either way: 1, 2-10, 11-100, >100
BESIDE = ("popularity", "walk")


class Citations(NamedTuple):
    """``pairs`` [2, E]: (cites, is cited), papers numbered by month; ``since`` [E], ``paper`` [N]: months, from year 0."""

    pairs: Tensor
    since: Tensor
    paper: Tensor


class Month(NamedTuple):
    """``told`` edges so far, ``judged`` [2, J], and which of these lead to papers that were cited before, ``known`` [J]."""

    told: Edges
    judged: Tensor
    known: Tensor


def read(path: Path) -> Citations:
    """The file of the folder of real data; loops are left out."""
    with np.load(path, allow_pickle=False) as file:
        month = torch.from_numpy(file["year"].astype(np.int64) * 12 + file["month"] - 1)
        pairs = torch.from_numpy(file["edges"].astype(np.int64)).T
    order = torch.argsort(month, stable=True)
    pairs = torch.argsort(order)[pairs[:, pairs[0] != pairs[1]]]
    paper = month[order]
    return Citations(pairs, paper[pairs].amax(0), paper)


def so_far(data: Citations, month: int) -> tuple[int, Tensor]:
    """How many papers there are at the end of a month, and the edges."""
    return int((data.paper <= month).sum()), data.pairs[:, data.since <= month]


def cut(data: Citations, month: int) -> Month:
    """The edges of a month, half of each paper's told, the larger half of an odd number."""
    new, chance = data.pairs[:, data.since == month], torch.Generator().manual_seed(month)
    new = new[:, torch.randperm(new.shape[1], generator=chance)]
    new = new[:, torch.argsort(new[0], stable=True)]
    _, counts = torch.unique_consecutive(new[0], return_counts=True)
    place = torch.arange(new.shape[1]) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    judged = place >= (torch.repeat_interleave(counts, counts) + 1) // 2
    nodes, old = so_far(data, month)[0], so_far(data, month - 1)[1]
    cited = torch.zeros(nodes, dtype=torch.bool).index_fill_(0, old[1], True)
    return Month(edges(nodes, torch.cat([old, new[:, ~judged]], 1)), new[:, judged], cited[new[1, judged]])


def forward(tables: Tables, told: Edges) -> Embeddings:
    """Places from edges that the tables were not learned from; new papers have rows of zeros."""
    rows = [pad(table, (0, 0, 0, told.nodes - len(table))) for table in tables[:4]]
    return dual.embed(Tables(rows[0], rows[1], rows[2], rows[3], *tables[4:]), Graph(told), None, dual.Settings())


def judge(given: Month, versions: dict[str, Tables | None], sums: dict[str, Tensor]) -> str:
    """HR@10 of each way, of edges to papers known as cited and of the others, and the CPU seconds; added to ``sums``."""
    answers, cells = given.told.in_ptr.diff() > 0, []
    for name in (*versions, *BESIDE):
        tables, began = versions.get(name), time.process_time()
        if tables is None and name in versions:
            cells.append(f"{'-':>18}")
            continue
        scores = PEERS[name](given.told, 0) if tables is None else scores_of(forward(tables, given.told))
        taken = time.process_time() - began
        hit = (ranks(scores, given.told, given.judged, answers) <= TOP).double()
        found = [hit[some] for some in (given.known, ~given.known)]
        sums.setdefault(name, torch.zeros(4)).add_(torch.tensor([n for p in found for n in (float(p.sum()), len(p))]))
        cells.append(f"{found[0].mean():.3f} {found[1].mean():.3f} {taken:4.1f}s".rjust(18))
    return "".join(cells)


def cosines(new: Embeddings, old: Embeddings, changed: Tensor, by: Tensor) -> tuple[list[float], list[str]]:
    """Mean cosine of sources and targets of both versions, unchanged ones and all; of unchanged ones by degree ``by``."""
    count, means, degrees = len(old.source), [], []
    for side, valid in (("source", "asks"), ("target", "answers")):
        both = getattr(new, valid)[:count] & getattr(old, valid)
        cosine = cosine_similarity(getattr(new, side)[:count], getattr(old, side))
        means += [float(cosine[both & ~changed].mean()), float(cosine[both].mean())]
        parts = [cosine[both & ~changed & (by == n)] for n in range(len(DEGREES) + 1)]
        degrees.append(" ".join(f"{part.mean():.3f}" for part in parts))
    return means, degrees


def compared(new: Embeddings, old: Embeddings, data: Citations, month: int) -> tuple[Embeddings, str]:
    """A version turned to the last one, and what that did."""
    began = time.process_time()
    found = align(new, old)
    taken, count = time.process_time() - began, len(old.source)
    touched = data.pairs[:, data.since == month].flatten()
    changed = torch.zeros(len(new.source), dtype=torch.bool).index_fill_(0, touched, True)[:count]
    degree = torch.bincount(so_far(data, month)[1].flatten(), minlength=count)[:count]
    by = torch.bucketize(degree, torch.tensor(DEGREES))
    before, after = (cosines(given, old, changed, by) for given in (new, found.embeddings))
    asked = new.asks.nonzero().squeeze(1)
    tops = [related(given, asked, TOP) for given in (new, found.embeddings)]
    other, apart = (tops[0][0] != tops[1][0]).any(1), (tops[0][1] - tops[1][1]).abs()
    cells = [f"{b:.3f} > {a:.3f}" for b, a in zip(before[0], after[0], strict=True)]
    return found.embeddings, (
        f"residual {found.residual:.3f}  top 10 kept {found.overlap:.3f}  source {cells[0]}, all {cells[1]}  "
        f"target {cells[2]}, all {cells[3]}  by degree {after[1][0]} / {after[1][1]}  changed rankings {int(other.sum())} "
        f"of {len(asked)}, rel by at most {apart[apart.isfinite()].max():.1e}  aligned in {taken:.1f} s"
    )


def trained(
    data: Citations, month: int, settings: dual.Settings, start: Tables | None
) -> tuple[training.Trained, float]:
    """A version as of the end of a month, and its CPU seconds."""
    nodes, pairs = so_far(data, month)
    begin = None
    if start is not None:
        row = torch.arange(nodes)
        begin = Start(start, torch.where(row < len(start.own), row, -1))
    began = time.process_time()
    found = training.train(graph(nodes, pairs), None, settings, month, begin)
    return found, time.process_time() - began


def grow(data: Citations, until: int, refreshes: int, anew: int, warm: dual.Settings) -> None:
    """The run; a row as soon as it is known."""
    last, taken = trained(data, until, dual.Settings(), None)
    served, sums = last.embeddings, dict[str, Tensor]()
    versions: dict[str, Tables | None] = {"warm": last.tables, "first": last.tables, "anew": None}
    papers, pairs = so_far(data, until)
    print(f"{_name(until)}  {papers:,} papers, {pairs.shape[1]:,} citations, {taken:.0f} CPU seconds of training")
    print("HR@10 of edges to papers that were cited before, of the others, CPU seconds of placing")
    print(" " * 44 + "".join(f"{name:>18}" for name in (*versions, *BESIDE)), flush=True)
    for n, month in enumerate(range(until + 1, until + refreshes + 1)):
        given = cut(data, month)
        known, count = int(given.known.sum()), given.told.nodes - len(served.source)
        told = f"{_name(month)}  {count} papers, {known} + {len(given.known) - known} edges"
        print(f"{told:44}{judge(given, versions, sums)}", flush=True)
        kinds = [("warm", warm, versions["warm"])] + (
            [("anew", dual.Settings(), None)] if anew and n % anew == 0 else []
        )
        before, versions["anew"] = served, None
        for kind, settings, start in kinds:
            made, taken = trained(data, month, settings, start)
            versions[kind] = made.tables
            turned, row = compared(made.embeddings, before, data, month)
            print(f"   {kind}  {taken:.0f} CPU seconds  {row}", flush=True)
            served = turned if kind == "warm" else served
    for name, total in sums.items():
        hit, judged, other, new = total.tolist()
        print(
            f"all  {name:12} HR@10 {hit / max(judged, 1):.4f} of {judged:.0f}, {other / max(new, 1):.4f} of {new:.0f}"
        )


def month_of(text: str) -> int:
    """ "1995-12" as months from year 0."""
    try:
        year, month = map(int, text.split("-"))
    except ValueError:
        year, month = 0, 0
    if not 1 <= month <= 12:
        raise ArgumentTypeError(f"{text!r} is no month; write it as 1995-12")
    return year * 12 + month - 1


def _name(month: int) -> str:
    return f"{month // 12}-{month % 12 + 1:02}"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BELATED_DATA", ".")) / "graph")
    parser.add_argument("--until", type=month_of, default="1995-12", help="month up to which the first version knows")
    parser.add_argument("--refreshes", type=int, default=12)
    parser.add_argument("--anew", type=int, default=4, help="every so many refreshes also from the beginning; 0: never")
    parser.add_argument(
        "--warm", default="", help="settings of a warm start instead of those of dual.short: epochs=20,rate=.005"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    told: dict[str, Any] = dict(part.split("=") for part in asked.warm.split(",") if part)
    warm = dual.short(dual.Settings())
    typed = {name: type(getattr(warm, name))(value) for name, value in told.items()}
    data = read(asked.data / "cit-HepPh.npz")
    first, last = int(data.since.min()), int(data.since.max()) - asked.refreshes
    if not first <= asked.until <= last:
        parser.error(f"--until {_name(asked.until)}: with {asked.refreshes} refreshes, {_name(first)} to {_name(last)}")
    grow(data, asked.until, asked.refreshes, asked.anew, warm._replace(**typed))


if __name__ == "__main__":
    main()
