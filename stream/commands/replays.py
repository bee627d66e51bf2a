"""`belated backtest`, `replay` and `demo`: a log through learners, and how they did."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from labelstore.address import shown
from learner.names import DEFAULT, GRAPH_DEFAULT, LIVE, NAMES, ORACLES, USUAL
from stream.commands import configured, options
from stream.commands.logs import convert, records, source_of, tune_garbage_collector
from stream.commands.results import results
from stream.drafts import put
from stream.settings import RIVER, Settings, duration, spell
from stream.terminal import err, fail, note, progress, warn


def backtest(
    ctx: typer.Context,
    log: options.Log,
    config: options.Config = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"methods to compare, from {', '.join(NAMES)}, or classifiers of river's (river:LogisticRegression); "
            f"default {', '.join(USUAL)}, with --pretrain oracle too"
        ),
    ] = None,
    pretrain: options.Pretrain = None,
    frozen: options.Frozen = False,
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
    graph_every: options.GraphEvery = None,
    graph_method: options.GraphMethod = GRAPH_DEFAULT,
    poll: options.Poll = 5000,
    checkpoint_every: options.Every = 200_000,
    store: options.Store = None,
    checkpoints: options.Checkpoints = None,
    json_: options.Json = None,
    html: options.Html = None,
) -> None:
    """Replay a log with several methods in ONE pass, and compare them on settled labels.

    Every impression is scored before anything can be learned from it. All methods start from the same weights.
    With --pretrain the rows `pretrained` (never updated after it) and `oracle` (knows the final labels, from a first
    pass; where --methods is given, only if it is among them) stand beside them: RI is how much of what lies between
    the two a method has gained.

    Example: belated backtest log/ --window 60d --wait 7d --html report.html
    """
    from stream.truth import Truth, beside

    usual = (*ORACLES, *USUAL) if pretrain else USUAL
    named = usual if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if seeds > 1 and store:
        fail(f"--seeds {seeds} with --store {shown(store)}: a store holds one run; leave out one of them")
    given: dict[str, Any] = dict(
        target=target, window=window, wait=wait, lateness=lateness, keep=keep, base_rate=base_rate
    )
    given |= dict(graph_every=graph_every, graph_method=graph_method)
    asked = dict(methods=tuple(named), pretrain=pretrain, frozen=frozen, seed=seed, strict=strict, **given)
    known = Truth(truth) if truth else beside(log)
    configured.unkept(config, store)
    _run(
        log,
        configured.asked(ctx, config, asked),
        poll,
        checkpoint_every,
        (store, checkpoints),
        json_,
        html,
        seeds,
        known,
    )


def replay(
    ctx: typer.Context,
    log: options.Log,
    config: options.Config = None,
    method: Annotated[str, typer.Option(help=f"one of {', '.join(LIVE)}")] = DEFAULT,
    target: options.Target = "purchase",
    window: options.Window = "30d",
    wait: options.Wait = "1d",
    lateness: options.Lateness = "0s",
    keep: options.Keep = None,
    base_rate: options.BaseRate = 0.05,
    seed: options.Seed = 0,
    strict: options.Strict = False,
    graph_every: options.GraphEvery = None,
    graph_method: options.GraphMethod = GRAPH_DEFAULT,
    poll: options.Poll = 5000,
    checkpoint_every: options.Every = 200_000,
    unfinished: Annotated[
        bool,
        typer.Option(
            "--unfinished",
            help="the log goes on elsewhere: what a daemon would still have waiting is left waiting, not taken for its end",
        ),
    ] = False,
    store: options.Store = None,
    checkpoints: options.Checkpoints = None,
    json_: options.Json = None,
    html: options.Html = None,
) -> None:
    """Replay a log with one learner; with --store it goes on from the last checkpoint.

    Example: belated replay log/ --store sqlite:///belated.db
    """
    given: dict[str, Any] = dict(
        target=target, window=window, wait=wait, lateness=lateness, keep=keep, base_rate=base_rate
    )
    given |= dict(graph_every=graph_every, graph_method=graph_method)
    asked = configured.asked(ctx, config, dict(methods=(method,), seed=seed, strict=strict, **given))
    _single(asked, str(config or "environment"))
    configured.unkept(config, store)
    _run(log, asked, poll, checkpoint_every, (store, checkpoints), json_, html, finished=not unfinished)


def _single(asked: dict[str, Any], place: str) -> None:
    """Refuse what a replay cannot do; ``place``: where several methods, or a pre-training, come from."""
    if len(asked["methods"]) > 1:
        fail(
            f"{place}: learner.methods names {len(asked['methods'])}; replay takes one: give --method, or use backtest"
        )
    if asked.get("pretrain"):
        fail(f"{place}: learner.pretrain belongs to backtests: leave it out, or use backtest")
    (method,) = asked["methods"]
    if method.startswith(RIVER):
        fail(f"method {method!r} cannot go on from a checkpoint: only `belated backtest` may ask for it")
    if method in ORACLES:
        fail(f"method {method!r} reads final labels before they are known: only `belated backtest` may ask for it")
    if method not in LIVE:
        fail(f"method {method!r} is unknown; choose from {', '.join(LIVE)}")


def _run(
    log: Path,
    asked: dict[str, Any],
    poll: int,
    every: int,
    kept: tuple[str | None, Path | None],
    json_: Path | None,
    html: Path | None,
    seeds: int = 1,
    truth: Any = None,
    finished: bool = True,
) -> None:
    from stream import backtest as run

    settings = Settings(**asked)
    source = source_of(log, settings.mapping)
    _writable(json_, html)
    truth = _comparable(truth, settings)
    tune_garbage_collector()
    try:
        with progress(f"{'replay' if len(settings.methods) == 1 else 'backtest'} {log}", records(source)) as told:
            how = dict(
                store=kept[0], checkpoints=kept[1], poll=poll, every=every, told=told, truth=truth, pictures=bool(html)
            )
            result = (
                run.several(seeds, str(log), source, settings, **how)
                if seeds > 1
                else run.backtest(str(log), source, settings, **how, finished=finished)
            )
    except (KeyboardInterrupt, SystemExit):
        if kept[0]:
            note("the store stands where its last commit was, and the same command goes on from there")
        raise
    for place, why in source.left.items():
        warn(f"{source.file(place)}: {why}: it was left for the next run")
    _tell(result, json_, html)


def _comparable(truth: Any, settings: Settings) -> Any:
    """The truth, if it is of the window of the run."""
    if truth is None or settings.window >= (truth.window or 0):
        return truth
    warn(
        f"{truth.path}: tells who converts within {spell(truth.window)}, and --window is {spell(settings.window)}: "
        "nothing is compared with it"
    )
    return None


def _tell(result: Any, json_: Path | None, html: Path | None) -> None:
    """Print what came out, and write it: each of them whatever becomes of the others."""
    told = json.dumps(result.summary, indent=2)
    with ExitStack() as written:
        if html:
            from stream.report import write

            written.callback(write, result, html)
        if json_ and str(json_) != "-":
            written.callback(put, json_, told + "\n")
        if str(json_) == "-":
            typer.echo(told)
        else:
            results(result.summary)
    for what, path in (("results", json_), ("report", html)):
        if path and str(path) != "-":
            err.print(f"{what}: {path.resolve()}", soft_wrap=True)


def _writable(json_: Path | None, html: Path | None) -> None:
    """End at once where the results could not be written in the end."""
    from stream.export import misplaced

    for option, path in (("--json", json_), ("--html", html)):
        if path is None or str(path) == "-":
            continue
        why = misplaced(path)
        needed = [path] * path.exists() + [path.resolve().parent] * (path.is_file() or not path.exists())
        if not why and not all(os.access(place, os.W_OK) for place in needed):
            why = "cannot be written; name another file"
        if why:
            fail(f"{option} {path}: {why}")
    if html:
        from stream.report import ready

        ready()


def demo(
    folder: Annotated[Path, typer.Argument(help="where the log, the results and the report go")] = Path("demo"),
) -> None:
    """A year of a retailer's coupons: six ways of treating late labels, one pass, one report.

    Complete Journey study data; attribution window 60 days, first look after 7 days. Takes 7 minutes on an
    idle core, and 2 GB of memory.
    """
    log = folder / "completejourney"
    if not (log / "events" / "0.jsonl").exists():
        convert(options.Dataset.completejourney, "package", log)
    given = dict(methods=USUAL, window=duration("60d"), wait=duration("7d"))
    _run(log, given, 5000, 200_000, (None, None), folder / "results.json", folder / "report.html")
