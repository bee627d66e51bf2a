"""What a log lacks for training, in sentences: nothing is wrong with a record, and yet nothing would be learned."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from stream.check import Findings
from stream.settings import rounded, spell

MANY = 0.1  # of the conversions of a target


def missing(found: Findings, target: str, window: int) -> Iterator[str]:
    """What a learner of ``target`` with an attribution ``window`` (ms) would miss, each with what to do about it."""
    shown, counts = found.counts["impressions"], found.counts
    if not shown:
        yield "no impressions: there is nothing to train on; send events of type impression, or map a topic to them"
        return
    yield from _labels(found, target)
    yield from _delays(found.delays.get(target, []), target, window)
    if not counts["signals"]:
        yield "no signals: a row that waits says no more than its age; send clicks and carts where there are any"
    if found.shape["features"] == shown:
        yield "no impression has features: all get the same score; send what was known when they were shown"
    elif found.shape["features"] * 2 > shown:
        yield f"{found.shape['features']:,} of {shown:,} impressions have no features; those all get the same score"
    for name, times in sorted(found.decimals.items()):
        if times * 2 > shown:
            yield (
                f"feature {name}: text that reads as a number in {times:,} of {shown:,} impressions, so each value is a "
                "word of its own; send numbers as numbers"
            )
    yield from _matches(found)


def _labels(found: Findings, target: str) -> Iterator[str]:
    kinds = [name.partition(" ")[2] for name in found.kinds if name.startswith("conversion ")]
    if not kinds:
        yield "no conversions: every row would be learned as a refusal; send events of type conversion"
    elif target not in kinds:
        yield (
            f"no conversion of kind {target!r}, which is the target: every row would be learned as a refusal; "
            f"the kinds here are {', '.join(sorted(kinds))}: set target to one of them"
        )


def _delays(delays: list[int], target: str, window: int) -> Iterator[str]:
    """Conversions of the target that belong to no impression's window, where they are many."""
    before, after = bisect_left(delays, 0), len(delays) - bisect_right(delays, window)
    if before > MANY * len(delays):
        yield (
            f"{before:,} of {len(delays):,} conversions {target} come before any impression they could belong to, "
            "and count for nothing; if that is not so in the shop, compare the clocks (and time zones) that write them"
        )
    if after > MANY * len(delays):
        most = rounded(delays[int(0.95 * (len(delays) - 1))])
        yield (
            f"{after:,} of {len(delays):,} conversions {target} come past the window of {spell(window)}, and count for "
            f"nothing; window = {most} holds nineteen of twenty"
        )


def _matches(found: Findings) -> Iterator[str]:
    """Kinds none of which finds its impression, and why that may be."""
    if not found.complete:
        return
    for kind, times in sorted(found.kinds.items()):
        if found.lost[kind] == times > 0:
            why = (
                "the impressions have no user_id and item_id to be found by"
                if not found.shape["touch"]
                else "compare their impression_id, or user_id and item_id, with those of the impressions"
            )
            yield f"{kind}: none of {times:,} belongs to an impression of this log; {why}"
