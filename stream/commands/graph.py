"""`belated related` and `belated graph`: which products go together, as a store knows it, and how well it knows."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from labelstore.events import LONGEST
from learner.names import GRAPH_DEFAULT
from stream.commands import configured, options
from stream.settings import Settings
from stream.terminal import error, fail, grid, note, number, out, plain, progress, to_validate, warn, when

if TYPE_CHECKING:
    from stream.bundle import Bundle
    from stream.prequential import Interval
    from stream.related import Stand
    from stream.snapshot import Snapshot

NO_PAIRS = (
    "none; at each midnight of event time those of its day are counted, of conversions and of clicks whose user_id and "
    "item_id are known, from themselves or from an impression that they name and that came before them"
)
SHORT = 40  # characters of a name that is too long to be shown

Every = Annotated[str, typer.Option("--graph-every", help="event time between two versions")]
Place = Annotated[Path | None, typer.Argument(help="a log, to be replayed into a temporary store")]
StoreMaybe = Annotated[str | None, typer.Option("--store", help="or a store: how its versions did at what came after")]


def related(
    item: Annotated[str, typer.Argument(help="item_id of the product")],
    store: options.StoreThere,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many")] = 10,
    new: Annotated[int, typer.Option("--new", min=0, max=1000, help="and how many further ones that are cold")] = 0,
    checkpoints: options.Checkpoints = None,
    json_: options.AsJson = False,
) -> None:
    """The products that follow one best, by the version of the product graph that is served.

    rel is the logit of "it follows"; bought is the weight of co-purchases counted so far; cold: nothing was known to lead
    to it. Cold products seldom come first: --new gives them places of their own, after the others. Where nothing is known of
    the product, those that are bought most are shown, and that is said. Ends with status 1 if there are none.

    Example: belated related p17 --new 5 --store sqlite:///belated.db
    """
    from stream.related import related as of

    if not item:
        fail("ITEM is empty: give the item_id of a product, as events name it")
    if len(item) > LONGEST:
        named = f"{plain(item[:SHORT])!r}... has {len(item):,} characters"
        fail(f"ITEM {named}, and an item_id at most {LONGEST}: give that of a product, as events name it")
    found = of(store, item, k, new, checkpoints)
    if found and not found[0].known:
        warn(plain(f"item {item!r}: the version that is served knows nothing of it; these are bought most"))
    if json_:
        typer.echo(json.dumps([one._asdict() for one in found], indent=2))
    elif found:
        table = _table("item", "rel", "cold", "bought")
        for one in found:
            bought = number(one.bought, 2) if one.bought else "-"
            table.add_row(escape(plain(one.item)), number(one.rel, 3), "cold" if one.cold else "", bought)
        out.print(table)
        if new and len(found) <= k:
            out.print(
                "no other product is cold: `item` records tell of products before they are bought", highlight=False
            )
    if not found:
        error(plain(f"item {item!r}: the version that is served knows of nothing that follows it"))
        raise typer.Exit(1)


def status(store: options.StoreThere, checkpoints: options.Checkpoints = None, json_: options.AsJson = False) -> None:
    """Which version of the product graph is served since when, what it was measured at, and what was refused.

    newest hits: share of the newest edges whose target it has among the first ten, and of them the version before (it has
    learned from them, unlike the versions of `belated graph evaluate`). residual and overlap: how far products that both
    know have moved after the turn, and how many of their first ten stayed. settings and shift (of cold products) were chosen
    when there were `chosen at` edges; popularity is what the log of an in-degree adds to rel (docs/graph.md).

    Example: belated graph status --store sqlite:///belated.db
    """
    from stream.related import stand

    found = stand(store, checkpoints)
    if json_:
        typer.echo(json.dumps(found._asdict(), indent=2))
        return
    if not found.bundles:
        out.print("no version yet")
    for one in found.bundles:
        back = one["version"] > found.bundles[0]["version"]
        word = "served" if one is found.bundles[0] else "rolled back" if back else "before"
        told = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in sorted(one["metrics"].items()))
        head = f"{word}: version {one['version']}, space {one['space']}, from {when(one['at'])} UTC"
        _say(f"{head}; {told}")
    pairs = ", ".join(f"{kind} {count:,}" for kind, count in found.pairs.items())
    _say(f"pairs: {pairs or NO_PAIRS}")
    if found.last is not None:
        due = f"{when(found.last + found.every)} UTC"
        out.print(f"event time {when(found.passed)} UTC; the next refresh is due at {due}", highlight=False)
    for version, midnight, why in found.refused:
        _say(f"refused: version {version}, {when(midnight)} UTC: {why}")


def refresh(store: options.StoreThere, checkpoints: options.Checkpoints = None) -> None:
    """Learn a version now, and serve it from the event time on that the store has reached.

    No other process may be writing to the store. A replay of the log does not know of it.

    Example: belated graph refresh --store sqlite:///belated.db
    """
    from stream.related import refresh as run

    made = run(store, checkpoints)
    said = f"version {made.version} is served: {made.metrics['products']:,} products, {made.metrics['edges']:,} edges"
    out.print(said, highlight=False)


def rollback(store: options.StoreThere, checkpoints: options.Checkpoints = None) -> None:
    """Serve the version before again, from the event time on that the store has reached.

    Impressions keep what the version of their time said. No other process may be writing to the store.

    Example: belated graph rollback --store sqlite:///belated.db
    """
    from stream.related import roll_back

    out.print(f"version {roll_back(store, checkpoints)} is served again", highlight=False)


def evaluate(
    ctx: typer.Context,
    log: Place = None,
    config: options.Config = None,
    store: StoreMaybe = None,
    graph_every: Every = "7d",
    graph_method: options.GraphMethod = GRAPH_DEFAULT,
    window: options.Window = "30d",
    seed: options.Seed = 0,
    checkpoints: options.Checkpoints = None,
    json_: options.AsJson = False,
) -> None:
    """Each version at the edges that came after it, beside popularity and a walk of three steps.

    A log is replayed, with a version each --graph-every; of a store the versions that are kept are asked. Records are kept
    for two --window, so pairs depend on it: give the one of the store.

    Example: belated graph evaluate log/ --graph-every 7d
    """
    if (log is None) == (store is None):
        fail("give a log, or --store and the URL of a label store: one of them")
    if store is not None:
        from stream.related import evaluate as of
        from stream.related import stand

        found = of(store, checkpoints)
        why = "" if found else _unjudged(stand(store, checkpoints), "no pair that was counted after it is new")
    else:
        assert log is not None
        given = {"graph_every": graph_every, "graph_method": graph_method, "window": window, "seed": seed}
        found, why = _replayed(log, Settings(**configured.asked(ctx, config, given)))
    if json_:
        typer.echo(json.dumps([_plain(one) for one in found], indent=2))
    if not found:
        (note if json_ else _say)(f"no version yet that anything came after: {why}")
    if json_ or not found:
        return
    table = _table("until", "new edges", "cold", "by", "HR@10", "MRR@10", "direction", "cold HR@10", "cold MRR@10")
    for one in found:
        for n, (name, f) in enumerate(one.figures.items()):
            head = (when(one.until), f"{one.warm + one.cold:,}", f"{one.cold:,}") if n == 0 else ("", "", "")
            figures = (f.hits, f.reciprocal, f.direction, f.cold_hits, f.cold_reciprocal)
            table.add_row(*head, name, *(_figure(value) for value in figures))
    out.print(table)


def _unjudged(told: "Stand", after: str) -> str:
    """Why no version is judged; ``after``: what is missing where there is one."""
    if told.last is None:
        return "event time has not passed a midnight, at which pairs are counted"
    if not told.pairs:
        return f"pairs: {NO_PAIRS}"
    what = f"the last one was refused: {told.refused[-1][2]}" if told.refused else "none was learned"
    if told.bundles:
        what = f"version {max(one['version'] for one in told.bundles)} is the last, and {after}"
    due = f"is due at {when(told.last + told.every)} UTC, or at the end of the next day with pairs"
    return f"{what}; event time has reached {when(told.passed)} UTC, and the next refresh {due}"


def _replayed(log: Path, settings: Settings) -> tuple[list["Interval"], str]:
    """How versions did, and if there is none that can be judged, why."""
    import torch

    from labelstore.item_pairs import sizes
    from stream.commands.logs import records, source_of
    from stream.loop import Loop
    from stream.prequential import interval
    from stream.related import Stand
    from stream.workspace import opened

    torch.set_num_threads(1)  # the last bits of some methods depend on it
    source, found = source_of(log, settings.mapping), list["Interval | None"]()
    nobody = settings.without_learners()
    with opened(None, nobody) as (store, saved), progress(f"evaluate {log}", records(source)) as told:
        loop = Loop(source, nobody, store, saved)

        def watch(taken: "Snapshot", before: "Bundle | None") -> None:
            found.append(interval(before, taken) if before else None)
            note(f"version {taken.number}: learning from {taken.bought.shape[1]:,} pairs up to {when(taken.until)} UTC")

        loop.graph.watch = watch
        loop.run(told)
        graph = loop.graph
        bundles = [{"version": graph.served.bundle.version}] if graph.served else []
        end = Stand(bundles, sizes(store.connection), graph.refused, graph.last, graph.every or 0, loop.passed)
    if refused := loop.graph.refusals:
        warn(f"{refused:,} versions must not be served, the last one: {loop.graph.refused[-1][2]}")
    if bad := loop.counts["dead_letters"]:
        warn(f"{bad:,} of {loop.counts['read']:,} records could not be read: {to_validate(str(log))} says why")
    after = "none was learned after it: a shorter --graph-every learns more"
    why = _unjudged(end, after) if loop.counts["read"] else "the log holds no record"
    return [one for one in found if one is not None], why


def _say(sentence: str) -> None:
    out.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _plain(one: "Interval") -> dict[str, Any]:
    figures = {
        name: {figure: None if value != value else value for figure, value in told._asdict().items()}
        for name, told in one.figures.items()
    }
    return {**one._asdict(), "figures": figures}


def _figure(value: float | int | str | None) -> str:
    return value if isinstance(value, str) else number(None if value != value else value)  # NaN is no figure


def _table(*headings: str) -> Table:
    table = grid()
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("item", "by", "until", "cold") else "right")
    return table
