"""What a replay says: the table of methods, and what was read."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.measure import Measurement
from rich.table import Table

from stream.progress import PARTS
from stream.terminal import behind, counted, grid, number, out, to_validate, when

HOUR = 3_600_000


def results(summary: Mapping[str, Any]) -> None:
    """The table of methods, and what was read."""
    methods: Mapping[str, Any] = summary["methods"]
    columns = {name: show for name, show in COLUMNS.items() if _any(methods, name)}
    title = f"{summary['log']}: judged on settled labels; every row was scored before it was learned"
    out.print(title, markup=False, highlight=False)
    left = [name for name in LAST if name in columns]
    while (
        Measurement.get(out, out.options.update(max_width=1000), table := _table(methods, columns)).maximum > out.width
        and left
    ):
        del columns[left.pop()]
    out.print(table)
    if hidden := [name for name in LAST if name not in left and name in COLUMNS and _any(methods, name)]:
        out.print(
            f"no room for {', '.join(hidden)}: see --json or --html, or a wider terminal", style="dim", highlight=False
        )
    for name, told in methods.items():
        if drifts := [drifted(drift) for drift in told["drifts"][-3:]]:
            said = f"calibration of {name} drifted: {', '.join(drifts)} UTC"
            out.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)
    _read(summary, next(iter(methods.values())))


def drifted(drift: Mapping[str, Any]) -> str:
    """When, from which PCOC to which.

    >>> drifted({"hour": 420768, "before": 1.0, "after": None})
    '2018-01-01 (PCOC 1.00 to no conversions)'
    """
    before, after = ("no conversions" if p is None else f"{p:.2f}" for p in (drift["before"], drift["after"]))
    return f"{when(drift['hour'] * HOUR)} (PCOC {before} to {after})"


def _any(methods: Mapping[str, Any], name: str) -> bool:
    return any(COLUMNS[name](told) not in (None, "") for told in methods.values())


def _table(methods: Mapping[str, Any], columns: Mapping[str, Callable[[Mapping[str, Any]], str]]) -> Table:
    table = grid()
    for heading in ("method", *columns):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for name, told in methods.items():
        best = len(methods) > 1 and told["behind_best"] == 0
        table.add_row(name, *(show(told) or "-" for show in columns.values()), style="bold green" if best else "")
    return table


def _settled(figure: str, digits: int = 4) -> Callable[[Mapping[str, Any]], str]:
    return lambda told: number(told["settled"][figure], digits)


def _part(part: str, figure: str, digits: int, scale: float = 1.0) -> Callable[[Mapping[str, Any]], str]:
    def show(told: Mapping[str, Any]) -> str:
        value: float | None = (told.get(part) or {}).get(figure)
        return "" if value is None else number(value * scale, digits)

    return show


COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log loss": _settled("log_loss", 5),
    "above best, 1e-4": behind,
    "RI": _part("ri", "log_loss", 2),
    "AUC": _settled("auc"),
    "RI AUC": _part("ri", "auc", 2),
    "PR-AUC": _settled("pr_auc"),
    "NE": _settled("ne"),
    "PCOC": _settled("pcoc"),
    "ECE": _settled("ece"),
    "true PCOC": _part("truth", "pcoc", 4),
    "above truth, 1e-4": _part("truth", "excess_log_loss", 1, 1e4),
    "drifts": lambda told: str(len(told["drifts"]) or ""),
    "tentative": _part("tentative", "log_loss", 5),
    "weight": _part("weights", "mean", 3),
    "ESS": _part("weights", "ess_share", 3),
}
"""What the table of methods shows, where any method has it."""
LAST = (
    "PCOC", "above best, 1e-4", "RI", "true PCOC", "above truth, 1e-4", "AUC", "drifts", "RI AUC", "ECE", "PR-AUC", "ESS",
    "NE", "weight", "tentative",
)  # fmt: skip
"""What is left out where there is no room for all, the last ones first."""
MUCH = 0.05  # of the records late, from which on figures are not to be believed


def _read(summary: Mapping[str, Any], any_method: Mapping[str, Any]) -> None:
    events, settled, share = summary["events"], any_method["settled"], any_method["tentative"]["share_final"]
    out.print(
        f"settled: {settled['rows']:,} rows, {settled['positives']:,} of them converted"
        + (f"; {share:.1%} of all rows are final" if share is not None else "")
    )
    command = to_validate(summary["log"])
    if said := _nothing(events, settled, command):
        out.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)
    told = ", ".join(counted(events[name], name) for name in PARTS if events[name])
    out.print(f"read: {counted(events['read'], 'records')} = {told or 'nothing'}")
    out.print(f"among them: {events['late']:,} late, {events['past_window']:,} past the attribution window")
    if events["late"] > MUCH * events["read"]:
        why = f"{events['late'] / events['read']:.0%} of the records are late, so these figures are not what they would be"
        out.print(f"{why}: {command} tells which record is ahead", style="yellow", markup=False, soft_wrap=True)
    if summary["unknown_fields"]:
        fields = ", ".join(f"{name} ({times:,})" for name, times in list(summary["unknown_fields"].items())[:8])
        out.print(f"fields nobody knows, ignored: {fields}", markup=False)
    if summary["ignored"]:
        names = ", ".join(f"{name} ({times:,})" for name, times in list(summary["ignored"].items())[:8])
        out.print(f"records no mapping names, ignored: {names}", markup=False)
    out.print(f"{summary['seconds']:,.1f} s, {summary['events_per_second'] or 0:,.0f} events/s")


def _nothing(events: Mapping[str, Any], settled: Mapping[str, Any], command: str) -> str:
    """What was lacking for anything to be learned, if something was."""
    if not events["impressions"]:
        return f"no impressions were read, so there was nothing to learn: {command} tells why"
    if not settled["rows"]:
        why = "the log ends before the attribution window of any row that is judged has closed (docs/backtest.md)"
        return f"no label has settled: {why}; give a longer log, or a shorter --window (of a backtest, or --pretrain)"
    if not settled["positives"]:
        return (
            "no settled row has converted, so nothing was learned but the base rate: is there a conversion of the kind that "
            f"--target names, and does it come within --window? {command} tells"
        )
    return ""
