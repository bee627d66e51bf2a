"""`belated store` and `belated forget`: where a store stands, how it is kept small, and who is erased from it."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from labelstore.address import shown
from labelstore.events import EARLIEST
from stream.commands import options
from stream.commands.logs import source_of
from stream.settings import spell
from stream.terminal import error, fail, out, plain, progress, when

DURATIONS = {"window", "wait", "lateness", "keep", "pretrain", "graph_every", "graph_window", "graph_half_life"}
REASONS = 10


def stats(
    store: options.StoreThere,
    checkpoints: options.Checkpoints = None,
    digest: Annotated[bool, typer.Option("--digest", help="also the sha256 of all that is known")] = False,
    json_: options.AsJson = False,
) -> None:
    """Where a store stands, what it holds, and how large it is.

    Two stores that know the same have the same digest.

    Example: belated store stats --store sqlite:///belated.db
    """
    from labelstore.stats import digest as of
    from labelstore.store import existing

    with existing(store) as connection:
        told = _stand(store, checkpoints, connection) | ({"digest": of(connection)} if digest else {})
    if json_:
        typer.echo(json.dumps(told, indent=2))
    else:
        _tell(told)


def upgrade(
    store: options.StoreThere,
    create: Annotated[bool, typer.Option("--create", help="make the tables where there are none")] = False,
) -> None:
    """Bring the tables of a store to what this version needs; it runs in one transaction.

    Keep a backup: there is no way back. A store that needs nothing is left alone, whoever is writing to it.

    Example: belated store upgrade --store sqlite:///belated.db
    """
    from labelstore.engines import engine_of
    from labelstore.layout import HEAD
    from labelstore.store import is_newest
    from labelstore.store import upgrade as run
    from stream.workspace import alone, known_folder

    engine_of(store, create=create)  # or there is nothing to lock
    if is_newest(store):
        out.print(f"revision {HEAD} is the newest already", highlight=False)
        return
    with alone(store, known_folder(store)):
        before, after = run(store, create)
    out.print(f"revision {before} -> {after}" if before else f"created, revision {after}", highlight=False)


def compact(store: options.StoreThere, checkpoints: options.Checkpoints = None) -> None:
    """Make room of what was deleted, and remove checkpoint files that belong to nothing.

    A SQLite file is written anew, which needs room for a second copy. Nothing that is known changes.

    Example: belated store compact --store sqlite:///belated.db
    """
    from stream.upkeep import compact as run

    done = run(store, checkpoints)
    for name, before in done.before._asdict().items():
        after = getattr(done.after, name)
        out.print(f"{name.replace('_', ' ')}: {before:,} -> {after:,} bytes", highlight=False)
    if done.removed:
        some = ", ".join(done.removed[:5]) + (", ..." if len(done.removed) > 5 else "")
        out.print(f"removed, for no checkpoint names them: {len(done.removed):,} files ({some})", highlight=False)


def forget(
    user: Annotated[str, typer.Option(help="the user_id to erase")],
    store: options.StoreThere,
    log: options.LogMaybe = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Erase a user: all that the store keeps of one, and with --log the lines of the log as well.

    Lines become blank, so that offsets stay. What is erased, and what is not, is in docs/erasure.md.
    Ends with status 1 if nothing of that user is found.

    Example: belated forget --user u17 --store sqlite:///belated.db --log log/
    """
    from stream.erasure import forget as run

    if not user.strip():
        fail("--user is empty; give the user_id to erase")
    source = source_of(log) if log else None
    with progress(f"search {log}") if log else nullcontext(lambda read: None) as told:
        found = run(user, store, source, told, checkpoints)
    if found.nothing and not found.before:
        error(plain(f"user {user!r}: nothing was found in {shown(store)}" + (f" and {log}" if log else "")))
        raise typer.Exit(1)
    if found.nothing:
        out.print(f"erased before, at event time {_time(found.before[-1])}; nothing has come since", highlight=False)
        return
    counted = ", ".join(f"{name.replace('_', ' ')} {rows:,}" for name, rows in found.counts.items())
    out.print(f"erased from {shown(store)}: {counted or 'nothing'}", markup=False, highlight=False)
    if log:
        out.print(f"blanked in {log}: lines {found.lines:,}, in files {found.files:,}", markup=False, highlight=False)
    else:
        out.print("a log still has this user, and a replay of it brings the user back; --log LOG blanks its lines")


def _stand(store: str, checkpoints: Path | None, connection: Any) -> dict[str, Any]:
    """What `belated store stats` says, as plain values."""
    from labelstore import ledger, letters, stats
    from stream.upkeep import sizes

    newest = ledger.newest(connection)
    return {
        "store": shown(store),
        "checkpoint": newest and newest.n,
        "code": newest and newest.code,
        "passed": newest and newest.progress["passed"],
        "offsets": {f"{t}/{p}": n for t, p, n in newest.progress["offsets"]} if newest else {},
        "settings": newest.settings if newest else {},
        "rows": stats.sizes(connection),
        "impressions": stats.span(connection),
        "dead_letters": [count._asdict() for count in letters.counted(connection)],
        "bytes": sizes(store, checkpoints)._asdict(),
    }


def _tell(told: dict[str, Any]) -> None:
    if told["checkpoint"] is None:
        out.print(f"{told['store']}: no checkpoint yet, so nothing is known", markup=False, highlight=False)
        return
    settings = told["settings"]
    of = [f"{n} {_setting(n, value)}" for n, value in settings.items() if value is not None and value is not False]
    offsets = ", ".join(f"{place} to {offset:,}" for place, offset in list(told["offsets"].items())[:8])
    more = len(told["offsets"]) - 8
    span = told["impressions"]
    facts = {
        "checkpoint": f"{told['checkpoint']} (belated {told['code']})",
        "event time": _time(told["passed"]),
        "read": (offsets or "nothing") + (f" and {more:,} further partitions" if more > 0 else ""),
        "settings": ", ".join(of),
        "impressions": f"{when(span[0])} to {when(span[1])} UTC" if span else "none",
        "on disk": ", ".join(f"{name.replace('_', ' ')} {size:,} bytes" for name, size in told["bytes"].items()),
        **({"digest": told["digest"]} if "digest" in told else {}),
    }
    for name, said in facts.items():
        out.print(plain(f"{name + ':':<12} {said}"), markup=False, highlight=False, soft_wrap=True)
    out.print("rows:")
    for name, rows in told["rows"].items():
        out.print(f"  {name.replace('_', ' '):<13}{rows:>14,}", highlight=False)
    for count in told["dead_letters"][:REASONS]:
        again = f", {count['retried']:,} of them retried" if count["retried"] else ""
        out.print(plain(f"dead letters, {count['letters']:,}: {count['reason']}{again}"), markup=False, highlight=False)
    if len(told["dead_letters"]) > REASONS:
        out.print(f"dead letters: {len(told['dead_letters']) - REASONS:,} further reasons; see belated dlq list")


def _setting(name: str, value: Any) -> str:
    return spell(value) if name in DURATIONS else "+".join(value) if isinstance(value, list | dict) else str(value)


def _time(passed: int) -> str:
    return f"{when(passed)} UTC" if passed >= EARLIEST else "none has passed"
