"""`belated simulate`: every knob of `Scenario` is an option, read off its fields."""

import inspect
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.settings import spell
from stream.simulate.scenario import SCENARIOS, Scenario
from stream.simulate.write import TRUTH
from stream.terminal import out, progress, when

Name = StrEnum("Name", {name.replace("-", "_"): name for name in SCENARIOS})  # type: ignore[misc]  # made of the table
PLAIN = {"impressions": int, "partitions": int, "seed": int, "window": str, "change": str, "late_by": str, "gap": str}


def simulate(dst: Path, scenario: Any, **knobs: Any) -> None:
    """Write a log whose p(y|x), delays and signals are KNOWN, and beside it the truth of each impression.

    The scenarios share their impressions, and differ in what sets in at the change: conversion-drift (a promotion),
    delay-drift (slower buyers), both, new-campaigns, sparse (0.2 % convert; both drifts), signal-drift (more carts
    without a purchase), calm (nothing).

    Example: belated simulate log/ --scenario both; belated backtest log/ --window 7d --wait 1h --pretrain 4d
    """
    from stream.simulate.write import write

    asked = {name: value for name, value in knobs.items() if value is not None}
    s = Scenario(**SCENARIOS[scenario.value] | asked)
    with progress(f"simulate {scenario.value}") as told:
        counts = write(s, dst, told)
    _tell(str(dst), s, counts)


def _signature() -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    given: dict[str, tuple[Any, Any]] = {
        "dst": (
            Annotated[Path, typer.Argument(help="folder of the log to write; must be empty or new")],
            inspect.Parameter.empty,
        ),
        "scenario": (Annotated[Name, typer.Option(help="what sets in at the change")], Name("calm")),
    }
    for name, field in Scenario.model_fields.items():
        default = spell(field.default) if PLAIN.get(name) is str and field.default is not None else field.default
        told = f"{field.description}" + ("" if default is None else f"; default {default}")
        given[name] = (Annotated[PLAIN.get(name, float) | None, typer.Option(help=told, show_default=False)], None)
    return inspect.Signature(
        [inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in given.items()]
    )


simulate.__signature__ = _signature()  # type: ignore[attr-defined]


def _tell(dst: str, s: Scenario, counts: Mapping[str, int]) -> None:
    """What was written."""
    counted = ", ".join(f"{times:,} {kind}" for kind, times in counts.items() if times)
    out.print(f"{dst}: {counted}; the truth is in {dst}/{TRUTH}", markup=False)
    drifts = [
        name.replace("_", " ") for name in ("conversion_drift", "delay_drift", "new_campaigns") if getattr(s, name)
    ]
    drifts += ["signal drift"] * (s.signal_drift != 1)
    if drifts:
        out.print(f"  {', '.join(drifts)} from {when(s.changes_at)} UTC", markup=False)
