"""The report: one self-contained page that a manager can read. Needs the extra `report`."""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from labelstore.refusals import BelatedError
from stream.backtest import Result
from stream.drafts import put
from stream.progress import PARTS
from stream.settings import spell
from stream.terminal import behind, number, when
from stream.verdict import verdict

TERMS = {
    "settled": "the attribution window has closed; the label is final",
    "tentative": "also rows whose label may still change, with what is known so far",
    "log loss": "minus the logarithm of the probability given to what happened; lower is better",
    "above best": "log loss less that of the best, with the 95 % interval of the difference; 0 inside it: a tie",
    "tentative log loss, final": "with the labels known so far; the share of rows whose label is final",
    "NE": "log loss over that of always saying the base rate; below 1 something was learned",
    "AUC": "how often a converting row scores above one that does not; one half is chance",
    "PR-AUC": "mean share converted among the rows that score highest, over all depths; the base rate is chance",
    "PCOC": "mean score over share converted; 1 is calibrated, above 1 says too much",
    "RI": "(method - pretrained) / (oracle - pretrained): 0 is no better than the pre-training, 1 as good as oracle",
    "oracle": "learns every final label at once, which only a backtest can know",
    "ECE": "mean distance between score and share converted, by groups of score",
    "importance weight": "what a row counts for, given that its label may still change",
    "clipped, looks": "share of weights whose estimate was clipped; how many looks at rows were learned from, in all",
    "digest": "a number of all learned weights: two runs with the same one have learned the same to the last bit",
    "ESS": "effective sample size, (sum w)² / sum w², as a share of the rows; 1 is best",
}
GRAPH_TERMS = {
    "co-purchase": "one product was bought, and later, in another basket, the other; what is old counts less",
    "HR@10": "how often the right product is among the ten that are named first, of all there are",
    "in-degree": "how many products lead to this one",
    "residual": "distance between the places of two versions, the newer turned to the older, over the length of the older",
}
FIGURES = {
    "log_loss": ("log loss", min), "ne": ("NE", min), "auc": ("AUC", max), "pr_auc": ("PR-AUC", max),
    "pcoc": ("PCOC", None), "ece": ("ECE", min),
}  # fmt: skip
AGAINST: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "RI log loss": lambda told: (told.get("ri") or {}).get("log_loss"),
    "RI AUC": lambda told: (told.get("ri") or {}).get("auc"),
    "log loss over oracle": lambda told: told.get("excess_log_loss"),
    "PCOC to true p": lambda told: (told["truth"] or {}).get("pcoc"),
    "divergence from true p": lambda told: (told["truth"] or {}).get("excess_log_loss"),
}
"""What is shown where there is an oracle, or a known truth."""
STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 0 }
main { max-width: 980px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.7rem; margin: 0 0 .3rem }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .2rem }
p { margin: .3rem 0 .8rem }
.lead { font-size: 1.1rem }
.quiet, dd { color: #57606a }
.scroll { overflow-x: auto; width: min(96vw, 1560px); margin-left: 50%; transform: translateX(-50%) }
.scroll table { margin: 0 auto }
figure { margin: 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #d8dee4; white-space: nowrap }
th { color: #57606a; font-weight: 600 }
th:first-child { text-align: left }
th[scope=row] { color: inherit; font-weight: inherit; position: sticky; left: 0; background: #fff }
.best { font-weight: 700; color: #0b6e4f }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em }
.empty { padding: 1.2rem; background: #f6f8fa; color: #57606a; border-radius: 6px }
dt { font-weight: 600 }
.plotly-graph-div { max-width: 100% }
dd { margin: 0 0 .5rem 0 }
@media print {
  main { max-width: none; padding: 0 }
  section, tr { break-inside: avoid } dt { break-after: avoid }
  .scroll { overflow: visible; width: auto; margin: 0; transform: none }
  .scroll :is(th, td) { white-space: normal; padding: .15rem .25rem; font-size: .5rem }
}
"""


class ReportError(BelatedError):
    """The report cannot be written; the message names the remedy."""


def ready() -> None:
    """Whether a report can be made here.

    Raises:
        ReportError: plotly is not installed.
    """
    try:
        import plotly.offline  # noqa: F401
    except ImportError:
        raise ReportError("the report needs an extra; pip install 'belated[report]'") from None


def write(result: Result, path: Path) -> None:
    """Write the page; the same result gives the same bytes.

    Raises:
        ReportError: plotly is not installed.
    """
    ready()
    from plotly.offline import get_plotlyjs

    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>belated: {escape(result.summary['log'])}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{_body(result)}</main></body></html>\n"
    )
    put(path, page)


def _body(result: Result) -> str:
    from stream import charts

    drawn = (charts.over_time, charts.level_over_time, charts.calibration, charts.delays, charts.funnel, charts.weights)
    found = [chart(result) for chart in drawn]
    if result.graph is not None:
        from stream import graph_charts

        pictures = (graph_charts.neighbourhood, graph_charts.movement, graph_charts.foresight)
        found += [picture(result.graph) for picture in pictures]
    sections = [_section(n, chart) for n, chart in enumerate(found)]
    return "".join([_head(result), _methods(result), *sections, _events(result), _terms(result)])


def _head(result: Result) -> str:
    s = result.settings
    hours = [hour for found in result.hours.values() for hour in found]
    period = f"impressions of {when(min(hours) * 3_600_000)} to {when(max(hours) * 3_600_000)} UTC, " if hours else ""
    told = (
        f"{period}target {s.target}, attribution window {spell(s.window)}, first look after {spell(s.wait)}, "
        f"lateness {spell(s.lateness)}, seed {s.seed}"
    )
    return (
        f"<h1>How late labels were treated: {escape(result.summary['log'])}</h1>"
        f'<p class="quiet">{escape(told)}</p><p class="lead">{escape(verdict(result.summary))}</p>'
    )


def _methods(result: Result) -> str:
    methods = result.summary["methods"]
    best: dict[str, float] = {}
    for figure, (_, better) in FIGURES.items():
        values = [told["settled"][figure] for told in methods.values() if told["settled"][figure] is not None]
        if values:
            best[figure] = better(values) if better else min(values, key=lambda value: abs(value - 1))
    loss, *others = (name for name, _ in FIGURES.values())
    heads = ["method", "rows", "converted", loss, "above best, 1e-4", *others, "tentative log loss", "final"]
    compared = [name for name, show in AGAINST.items() if any(show(told) is not None for told in methods.values())]
    heads += [*compared, "weight mean", "max", "clipped", "ESS", "looks", "digest"]
    rows = "".join(_method(result, name, best, compared) for name in methods)
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    name = "The methods side by side"
    return (
        f'<h2>{name}</h2><p class="quiet">All read the log once, together, from the same start weights. Best figures are '
        f'bold.</p><div class="scroll" role="region" aria-label="{name}" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _method(result: Result, name: str, best: dict[str, float], compared: list[str]) -> str:
    from stream.charts import stroke

    told: dict[str, Any] = result.summary["methods"][name]
    settled, weights = told["settled"], told["weights"]
    cells = [f"<td>{number(settled['rows'])}</td><td>{number(settled['positives'])}</td>"]
    for figure in FIGURES:
        mark = ' class="best"' if settled[figure] is not None and settled[figure] == best[figure] else ""
        cells.append(f"<td{mark}>{number(settled[figure], 5 if figure == 'log_loss' else 4)}</td>")
        if figure == "log_loss":
            cells.append(f"<td>{behind(told) or '-'}</td>")
    more = [told["tentative"]["log_loss"], told["tentative"]["share_final"]]
    more += [AGAINST[name](told) for name in compared]
    more += [weights["mean"], weights["max"], weights["clipped_share"], weights["ess_share"], told["looks"]]
    cells += [f"<td>{number(value)}</td>" for value in more] + [f"<td><code>{told['digest'][:12]}</code></td>"]
    drawn = stroke(result, name)
    style = f"background:{drawn['color']}" if drawn["dash"] == "solid" else f"outline:2px dotted {drawn['color']}"
    dot = f'<span class="dot" style="{style}"></span>'
    return f'<tr><th scope="row">{dot}{escape(name)}</th>{"".join(cells)}</tr>'


def _section(place: int, chart: Any) -> str:
    if chart.figure is None:
        drawn = f'<p class="empty">Nothing to draw: {chart.lacking}.</p>'
    else:
        config = {"displayModeBar": False, "responsive": True}
        drawn = chart.figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"chart-{place}", config=config, include_mathjax=False
        )
        said = escape(f"Chart: {chart.title}. {chart.reading}")
        drawn = f'<figure role="img" aria-label="{said}">{drawn}</figure><noscript>Charts need JavaScript.</noscript>'
    return f'<section><h2>{escape(chart.title)}</h2><p class="quiet">{escape(chart.reading)}</p>{drawn}</section>'


def _events(result: Result) -> str:
    events = result.summary["events"]
    rows = "".join(
        f'<tr><th scope="row">{name.replace("_", " ")}</th><td>{times:,}</td></tr>' for name, times in events.items()
    )
    unknown = ", ".join(f"{name} ({times:,})" for name, times in result.summary["unknown_fields"].items())
    reasons = "".join(f"<li>{times:,}: {escape(reason)}</li>" for reason, times in result.reasons)
    parts = " + ".join(PARTS).replace("_", " ")
    return (
        f"<h2>What was read</h2><p class='quiet'>Read = {parts} (forgotten: erased while they waited). Late ones and those "
        "past the window are among them.</p>"
        f"<table>{rows}</table>"
        + (f"<p>Fields nobody knows, ignored: {escape(unknown)}</p>" if unknown else "")
        + (f"<p>Dead letters, by reason:</p><ul>{reasons}</ul>" if reasons else "")
    )


def _terms(result: Result) -> str:
    words = TERMS | (GRAPH_TERMS if result.graph is not None else {})
    terms = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in words.items())
    return f"<h2>Words</h2><dl>{terms}</dl>"
