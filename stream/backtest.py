"""Replay a log with any number of learners in one pass, and say how each did."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from labelstore import ledger, letters
from labelstore.address import shown
from labelstore.store import StoreError
from learner import delay, runoff
from learner.names import ORACLES
from stream.comparison import compare
from stream.drift import drifts
from stream.hindsight import converted
from stream.loop import Loop
from stream.progress import KINDS
from stream.settings import RIVER, Settings
from stream.sources import Source
from stream.truth import Truth
from stream.versions import Versions, Watch
from stream.workspace import opened


class Result(NamedTuple):
    """What a run tells. ``summary`` is the JSON; the rest is what the report draws.

    ``hours``: learner -> hour since 1970 of the impressions -> sums over settled rows.
    ``calibration``: learner -> (rows, mean score, share of positives), by rising score.
    ``deciles``: learner -> (rows, mean weight, share of real negatives) of observed negatives, by rising weight.
    ``delays``: settled conversions by delay, see `Validation`. ``curve``: (age s, share of conversions known by then).
    ``funnel``: kind of signal, "" for all -> (settled rows, converted). ``reasons``: of dead letters, most first.
    ``graph``: of the product graph, if there was one and pictures were asked for.
    """

    summary: dict[str, Any]
    settings: Settings
    hours: dict[str, dict[int, ledger.Hour]]
    calibration: dict[str, list[tuple[int, float, float]]]
    deciles: dict[str, list[tuple[int, float, float]]]
    delays: NDArray[Any]
    curve: list[tuple[float, float]]
    funnel: dict[str, list[int]]
    reasons: list[tuple[str, int]]
    graph: Versions | None = None


def backtest(
    log: str,
    source: Source,
    settings: Settings,
    store: str | None = None,
    poll: int = 5000,
    every: int = 200_000,
    told: Callable[[int], None] = lambda read: None,
    truth: Truth | None = None,
    checkpoints: Path | None = None,
    pictures: bool = False,
    finished: bool = True,
) -> Result:
    """One pass of the log with every method of the settings; all start from the same weights.

    With `oracle` among the methods a first pass finds the final labels.

    Args:
        log: what to call it. source: the log itself.
        store: URL of the label store; it is continued where it has a checkpoint. None: a temporary one.
        poll, every: records read at a time, and between commits; neither changes a result.
        told: hears how many records have been read. truth: of a simulated log.
        checkpoints: their folder, for a store that is no file.
        pictures: of the product graph are wanted; each version is then asked for what came after it, which takes time.
        finished: see `Loop`.

    Raises:
        SourceError, StoreError, CheckpointError: with the remedy.
    """
    if store and any(name.startswith(RIVER) for name in settings.methods):
        raise StoreError(
            f"store {shown(store)}: classifiers of river's cannot go on from a checkpoint; leave out --store"
        )
    torch.set_num_threads(1)
    known = set(settings.methods) & set(ORACLES)
    hindsight = converted(source, settings, poll, told) if known else frozenset()
    with opened(store, settings, checkpoints) as (facts, saved):
        loop = Loop(source, settings, facts, saved, poll, every, hindsight, truth, finished=finished)
        watch = Watch() if pictures and settings.graph_every else None
        loop.graph.watch = watch or loop.graph.watch
        begun, before = time.perf_counter(), loop.counts["read"]
        loop.run(told)
        seconds = time.perf_counter() - begun
        result = _result(log, loop, seconds, loop.counts["read"] - before)
        return result._replace(graph=watch.told(loop.graph.served)) if watch else result


def several(seeds: int, log: str, source: Source, settings: Settings, **how: Any) -> Result:
    """The backtest again for ``seeds`` seeds, from that of the settings on: means of the settled metrics, one interval.

    Charts, weights, digests, drifts and tentative figures are those of the first seed; each seed's settled metrics are in
    ``seeds``.
    """
    results: list[Result] = []
    for seed in range(settings.seed, settings.seed + seeds):
        source.seek({})
        results.append(backtest(log, source, settings.model_copy(update={"seed": seed}), **how))
    methods = results[0].summary["methods"]
    for name, told in methods.items():
        each = [result.summary["methods"][name] for result in results]
        told["seeds"] = [one["settled"] for one in each]
        for part in ("settled", "truth"):
            told[part] = told[part] and {figure: _mean(one[part][figure] for one in each) for figure in told[part]}
    results[0].summary["intervals"] = compare(methods, [result.hours for result in results])
    for figure in ("seconds", "events_per_second"):
        results[0].summary[figure] = _mean(result.summary[figure] for result in results)
    return results[0]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    return int(mean) if mean is not None and all(isinstance(value, int) for value in known) else mean


def _result(log: str, loop: Loop, seconds: float, read: int) -> Result:
    loop.settle_rest()
    validation, connection = loop.validation, loop.store.connection
    tentative = validation.tentative(connection, loop.target, loop.passed)
    methods: dict[str, Any] = {}
    hours = ledger.read_metrics(connection)
    for learner, judged, (metrics, share_final) in zip(loop.learners, validation.judged, tentative, strict=True):
        methods[learner.name] = {
            "settled": judged.metrics.summary(),
            "truth": judged.truth(),
            "tentative": {**metrics.summary(), "share_final": share_final},
            "weights": learner.trainer.report.weights(),
            "looks": learner.trainer.report.looks,
            "digest": learner.trainer.digest(),
        }
    for name, told in methods.items():
        told["drifts"] = [found._asdict() for found in drifts(hours.get(name, {}))]
    summary = {
        "log": log,
        "events": {name: loop.counts[name] for name in KINDS},
        "unknown_fields": dict(sorted(loop.reading.codec.unknown.items())),
        "ignored": dict(sorted(loop.reading.codec.ignored.items())),
        "methods": methods,
        "intervals": compare(methods, [hours]),
        "seconds": round(seconds, 3),
        "events_per_second": round(read / seconds, 1) if seconds else None,
    }
    return Result(
        summary,
        loop.settings,
        hours,
        {
            learner.name: judged.metrics.calibration(10)
            for learner, judged in zip(loop.learners, validation.judged, strict=True)
        },
        {
            learner.name: judged.deciles()
            for learner, judged in zip(loop.learners, validation.judged, strict=True)
            if learner.trainer.method.weighs
        },
        validation.delays,
        _curve(loop),
        validation.funnel,
        [(count.reason, count.letters) for count in letters.counted(connection)[:10]],
    )


def _curve(loop: Loop) -> list[tuple[float, float]]:
    """The delay curve at the end: that of the run-off triangle, else the last learner's that has one."""
    states = {name: state for learner in loop.learners for name, state in learner.trainer.auxiliaries.items()}
    if "run_off" in states:
        return list(zip(states["run_off"].edges.tolist(), runoff.curve(states["run_off"]).tolist(), strict=True))
    if "delay" in states:
        known = delay.curve(states["delay"], loop.passed / 1000)
        return list(zip(states["delay"].edges.tolist(), known.tolist(), strict=True))
    return []
