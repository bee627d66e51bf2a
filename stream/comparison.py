"""Methods against each other: differences with intervals, and how much of what can be gained each has gained.

Intervals are 95 % percentile intervals of a paired block bootstrap: impressions are cut into blocks by the hour they were
shown, blocks (and seeds, where there are several) are drawn anew with replacement, the same ones for every method.

    excess log loss = log loss - log loss of `oracle`
    RI(metric)      = (method - pretrained) / (oracle - pretrained), only where oracle is ahead of pretrained in
    log loss beyond the interval of their difference
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.ledger import Hour
from learner.names import ORACLES
from stream.learning import PRETRAINED

BLOCKS = 30  # about so many
FEWEST = 8  # with fewer blocks no interval is given
DRAWS = 2000
Floats = NDArray[np.float64]
Hours = Mapping[str, Mapping[int, Hour]]


def compare(methods: dict[str, Any], seeds: Sequence[Hours]) -> dict[str, Any]:
    """Add to each method of a summary: ``interval``, and, against `oracle`, ``excess_log_loss`` and ``ri``.

    Args:
        methods: the summary's methods, with their settled metrics.
        seeds: sums by the hour, one mapping per seed.

    Returns: how the intervals were made: blocks, hours in a block, draws, seeds.
    """
    names = [name for name in methods if methods[name]["settled"]["rows"]]
    sums, width = _blocks(seeds, names)
    drawn = _figures(resampled(sums)) if sums.shape[2] >= FEWEST else None
    losses = {name: methods[name]["settled"]["log_loss"] for name in names}
    best = min(losses, key=lambda name: losses[name]) if losses else None
    oracle = next((name for name in ORACLES if name in losses), None)
    for name, told in methods.items():
        mine = None if drawn is None or name not in names else drawn[:, names.index(name)]
        told["interval"] = {
            "log_loss": None if mine is None else interval(mine[:, 0]),
            "pcoc": None if mine is None or not np.isfinite(mine[:, 1]).all() else interval(mine[:, 1]),
            "behind_best": None if best is None else _gap(drawn, names, name, best),
        }
        told["behind_best"] = losses[name] - losses[best] if name in losses and best else None
        if oracle and name in losses:
            told["excess_log_loss"] = losses[name] - losses[oracle]
            told["interval"]["excess_log_loss"] = _gap(drawn, names, name, oracle)
            told["ri"] = _improvement(methods, name, oracle, _gap(drawn, names, PRETRAINED, oracle))
    return {"blocks": sums.shape[2], "block_hours": width, "draws": DRAWS, "seeds": len(seeds)}


def _blocks(seeds: Sequence[Hours], names: Sequence[str]) -> tuple[Floats, int]:
    """Sums [seeds, methods, blocks, columns of Hour], and the hours in a block."""
    hours = sorted({hour for found in seeds for name in names for hour in found.get(name, {})})
    if not hours:
        return np.zeros((len(seeds), len(names), 0, len(Hour._fields))), 0
    width = max(1, -(-(hours[-1] - hours[0] + 1) // BLOCKS))
    sums = np.zeros((len(seeds), len(names), (hours[-1] - hours[0]) // width + 1, len(Hour._fields)))
    for s, found in enumerate(seeds):
        for m, name in enumerate(names):
            for hour, told in found.get(name, {}).items():
                sums[s, m, (hour - hours[0]) // width] += told
    return sums[:, :, sums[0, 0, :, 0] > 0], width


def resampled(sums: Floats) -> Floats:
    """Sums [seeds, methods, blocks, columns] of blocks and seeds drawn with replacement: [draws, methods, columns]."""
    generator = np.random.default_rng(0)
    seeds, _, blocks, _ = sums.shape
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS).astype(float)
    of_blocks = generator.multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS).astype(float)
    found: Floats = np.einsum("ds,db,smbk->dmk", of_seeds, of_blocks, sums, optimize=True)
    return found


def _figures(total: Floats) -> Floats:
    """Log loss and PCOC of sums [..., columns of Hour]: [..., 2]; PCOC is inf where nothing has converted."""
    rows, positives, scores, losses = (total[..., k] for k in range(4))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([losses / rows, scores / positives], -1)


def _gap(drawn: Floats | None, names: Sequence[str], one: str, other: str) -> list[float] | None:
    """Interval of the difference of two log losses."""
    if drawn is None or one not in names:
        return None
    return interval(drawn[:, names.index(one), 0] - drawn[:, names.index(other), 0])


def interval(values: Floats) -> list[float]:
    """The 95 % percentile interval."""
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def _improvement(
    methods: Mapping[str, Any], name: str, oracle: str, room: list[float] | None
) -> dict[str, float | None]:
    """RI of AUC and log loss; None where oracle and pretrained cannot be told apart, or oracle is not ahead in it."""
    if room is None or room[0] <= 0:
        return {"auc": None, "log_loss": None}
    found: dict[str, float | None] = {}
    for metric in ("auc", "log_loss"):
        mine, start, end = (methods[m]["settled"][metric] for m in (name, PRETRAINED, oracle))
        ahead = None not in (mine, start, end) and (end > start if metric == "auc" else end < start)
        found[metric] = (mine - start) / (end - start) + 0.0 if ahead else None  # 0.0 - 0.0 / -1 is -0.0
    return found
