"""What a person sees in a terminal: progress bars with a rate, tables, the life of an impression."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from labelstore.life import Life
from labelstore.observations import Credit, Look, label_at, look_at
from stream.check import Findings
from stream.settings import spell
from stream.simulate.scenario import Scenario
from stream.simulate.write import TRUTH

WIDE = 170  # columns of a table that goes to a file
out = Console(width=None if Console().is_terminal else WIDE)
err = Console(stderr=True)


class Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s", style="progress.data.speed")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar on standard error; the body tells how far it is, and of how many where that is not known before."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of=total: bar.update(task, completed=done, total=of)


def when(ms: int) -> str:
    """An event time, UTC."""
    text = datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return text.removesuffix(".000").removesuffix(" 00:00:00")


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def results(summary: Mapping[str, Any]) -> None:
    """The table of methods, and what was read."""
    methods: Mapping[str, Any] = summary["methods"]
    columns = {
        name: show for name, show in COLUMNS.items() if any(show(told) not in (None, "") for told in methods.values())
    }
    title = f"{summary['log']}: judged on settled labels; every row was scored before it was learned"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("method", *columns):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for name, told in methods.items():
        best = len(methods) > 1 and told["behind_best"] == 0
        table.add_row(name, *(show(told) or "-" for show in columns.values()), style="bold green" if best else "")
    out.print(table)
    _read(summary, next(iter(methods.values())))


def _settled(figure: str, digits: int = 4) -> Callable[[Mapping[str, Any]], str]:
    return lambda told: number(told["settled"][figure], digits)


def _behind(told: Mapping[str, Any]) -> str:
    """Log loss above that of the best, in 1e-4, with the 95 % interval."""
    if not told["behind_best"]:
        return ""
    interval = [f"{bound * 1e4:+.1f}" for bound in told["interval"]["behind_best"] or ()]
    return f"{told['behind_best'] * 1e4:+.1f}" + (f" [{', '.join(interval)}]" if interval else "")


def _part(part: str, figure: str, digits: int, scale: float = 1.0) -> Callable[[Mapping[str, Any]], str]:
    def show(told: Mapping[str, Any]) -> str:
        value: float | None = (told.get(part) or {}).get(figure)
        return "" if value is None else number(value * scale, digits)

    return show


COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log loss": _settled("log_loss", 5),
    "above best, 1e-4": _behind,
    "RI": _part("ri", "log_loss", 2),
    "AUC": _settled("auc"),
    "RI AUC": _part("ri", "auc", 2),
    "PR-AUC": _settled("pr_auc"),
    "NE": _settled("ne"),
    "PCOC": _settled("pcoc"),
    "ECE": _settled("ece"),
    "true PCOC": _part("truth", "pcoc", 4),
    "above truth, 1e-4": _part("truth", "excess_log_loss", 1, 1e4),
    "tentative": _part("tentative", "log_loss", 5),
    "weight": _part("weights", "mean", 3),
    "ESS": _part("weights", "ess_share", 3),
}
"""What the table of methods shows, where any method has it."""


def _read(summary: Mapping[str, Any], any_method: Mapping[str, Any]) -> None:
    events, settled, share = summary["events"], any_method["settled"], any_method["tentative"]["share_final"]
    out.print(
        f"settled: {settled['rows']:,} rows, {settled['positives']:,} of them converted"
        + (f"; {share:.1%} of all rows are final" if share is not None else "")
    )
    parts = ("impressions", "signals", "conversions", "adjustments", "items", "dead_letters", "duplicates")
    counted = ", ".join(f"{events[name]:,} {name.replace('_', ' ')}" for name in parts if events[name])
    out.print(f"read: {events['read']:,} records = {counted or 'nothing'}")
    out.print(f"among them: {events['late']:,} late, {events['past_window']:,} past the attribution window")
    if summary["unknown_fields"]:
        fields = ", ".join(f"{name} ({times:,})" for name, times in list(summary["unknown_fields"].items())[:8])
        out.print(f"fields nobody knows, ignored: {fields}", markup=False)
    out.print(f"{summary['seconds']:,.1f} s, {summary['events_per_second'] or 0:,.0f} events/s")


def findings(told: Findings) -> None:
    """What `belated validate` says."""
    counts = ", ".join(f"{times:,} {name.replace('_', ' ')}" for name, times in sorted(told.counts.items()) if times)
    out.print(f"found: {counts or 'nothing'}")
    if told.span:
        out.print(f"event time: {when(told.span[0])} to {when(told.span[1])} UTC")
    for kind, times in sorted(told.kinds.items()):
        lost = told.lost.get(kind, 0)
        out.print(
            f"  {kind}: {times:,}" + (f", {lost:,} without their impression in this log" if lost else ""), markup=False
        )
    if told.lost["adjustment"]:
        out.print(f"  adjustments of conversions that are not in this log: {told.lost['adjustment']:,}")
    if told.lateness:
        spelled = spell(-(-told.lateness // 1000) * 1000)
        out.print(f"order: the latest record is {spelled} behind its partition; --lateness {spelled} waits for it")
    for name, times in sorted(told.unknown.items()):
        out.print(f"unknown field {name}: {times:,} times, ignored", markup=False)
    for reason, times in told.refused.most_common(10):
        places = ", ".join(f"{topic}/{partition}@{offset}" for topic, partition, offset in told.reasons.get(reason, []))
        out.print(f"refused {times:,}: {reason}  ({places})", markup=False, style="red")
    if not told.complete:
        out.print(
            "the log has more ids than are remembered: duplicates and references were looked for in its first part"
        )


def life(told: Life, learners: Sequence[str], target: str, window: int, passed: int) -> None:
    """What `belated labels show` says. ``passed``: event time the store has reached, ms."""
    shown = told.impression
    out.print(f"impression {shown['id']}", style="bold", markup=False)
    for name in ("user_id", "item_id", "context_item_id", "served"):
        if shown[name] is not None:
            out.print(f"  {name}: {shown[name]}", markup=False)
    out.print(f"  features: {json.dumps(json.loads(shown['features']), ensure_ascii=False)}", markup=False)
    known = "" if shown["known_at"] == shown["at"] else f" (known {when(shown['known_at'])})"
    events = [(shown["at"], f"shown{known}")]
    for row in told.signals:
        events.append((row["known_at"], f"signal {row['kind']}" + _since(row, shown)))
    for row in told.conversions:
        worth = f", value {row['value']:g}" if row["value"] is not None else ""
        events.append((row["known_at"], f"conversion {row['kind']}{worth}" + _since(row, shown)))
    for row in told.adjustments:
        worth = f" to {row['value']:g}" if row["value"] is not None else ""
        events.append((row["known_at"], f"{row['action']} {row['conversion_id']}{worth}"))
    for row in told.predictions:
        said = f"{learners[row['learner']]} scores {row['score']:.5f} (after {row['version']:,} steps)"
        events.append((shown["known_at"], said))
    for row in told.looks:
        look = Look(row["look"]).name.lower()
        said = f"{learners[row['learner']]} learns label {row['label']} with weight {row['weight']:.5f} ({look} look)"
        events.append((row["at"], said))
    close = look_at(window, shown["at"], shown["known_at"])
    credits = [Credit(*(row[n] for n in Credit._fields)) for row in told.conversions if row["kind"] == target]
    verdict = "converted" if label_at(close, credits) else "not converted"
    ends = f"window closes, settled: {verdict}" if close < passed else "window closes; not reached yet, tentative"
    events.append((close, f"attribution {ends}"))
    for at, said in sorted(events, key=lambda event: event[0]):
        out.print(f"  {when(at):<23}  {said}", markup=False, highlight=False)


def _since(row: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    behind = (
        f", known {timedelta(milliseconds=row['known_at'] - row['at'])} later" if row["known_at"] > row["at"] else ""
    )
    return f", {timedelta(milliseconds=row['at'] - shown['at'])} after it was shown{behind}"


def simulated(dst: str, s: Scenario, counts: Mapping[str, int]) -> None:
    """What `belated simulate` says."""
    counted = ", ".join(f"{times:,} {kind}" for kind, times in counts.items() if times)
    out.print(f"{dst}: {counted}; the truth is in {dst}/{TRUTH}", markup=False)
    drifts = [
        name.replace("_", " ") for name in ("conversion_drift", "delay_drift", "new_campaigns") if getattr(s, name)
    ]
    drifts += ["signal drift"] * (s.signal_drift != 1)
    if drifts:
        out.print(f"  {', '.join(drifts)} from {when(s.changes_at)} UTC", markup=False)


def converted(dst: str, summary: Any) -> None:
    """What `belated convert` says."""
    written = ", ".join(f"{times:,} {kind}s" for kind, times in sorted(summary.events.items()))
    out.print(f"{dst}: {summary.rows:,} rows read; {written or 'no events'} written", markup=False)
    for reason, times in summary.refused.most_common(10):
        out.print(f"  left out {times:,}: {reason}", markup=False)
    for note in summary.notes:
        out.print(f"  note: {note}", markup=False)
