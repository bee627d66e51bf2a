"""The finding of a backtest in one sentence: the first of its report."""

from collections.abc import Mapping
from typing import Any

from learner.names import ORACLES
from stream.terminal import aside, converted


def verdict(summary: Mapping[str, Any]) -> str:
    """The finding in a sentence, with those whose interval holds 0 or, where there is none, that are within half a percent.
    Nobody can run an oracle."""
    methods = summary["methods"]
    if not methods.keys() - ORACLES:
        return "Only oracle has run, which nobody can run live: name a method to compare with it."
    known = {n: loss for n, t in methods.items() if n not in ORACLES and (loss := t["settled"]["log_loss"]) is not None}
    if not known:
        shown = summary["events"]["impressions"]
        why = "the log ends before the window of any judged row has closed" if shown else "no impressions were read"
        return f"No row is settled yet: {why}. What follows is tentative."
    if not converted(methods):
        return "No settled row has converted, so nothing was learned but the base rate."
    best = min(known, key=lambda name: known[name])
    if len(known) == 1:
        return f"{best} has a settled log loss of {known[best]:.5f}; every row was scored before it was learned."
    others = {name: loss / known[best] - 1 for name, loss in known.items() if name != best}
    intervals = {name: methods[name]["interval"]["behind_best"] for name in others}
    if methods[best]["behind_best"] == 0 and all(intervals.values()):
        near, why = [name for name in others if intervals[name][0] <= 0], "the interval holds 0"
    else:
        near, why = [name for name, gap in others.items() if gap < 0.005], "under 0.5 %"
    close = f" {', '.join(near)} cannot be told from it ({why})." if near else ""
    base = "settled" if "settled" in others else min(others, key=lambda name: others[name])
    waits = ", which waits for final labels," if "settled" in (best, base) else ""
    first, second = (waits, "") if best == "settled" else ("", waits)
    lowest = f"{best}{first} has the lowest settled log loss{aside(methods)}"
    return f"{lowest}: that of {base}{second} is {others[base]:.1%} higher.{close}"
