"""`belated labels`: look into the label store."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from labelstore.life import Life
from labelstore.observations import Credit, Look, label_at, look_at
from stream.terminal import fail, out, when


def show(
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
            fail(f"impression {impression_id!r}: the store {store} has no such impression; it has, for example: {some}")
        settings = checkpoint.settings
        passed = checkpoint.progress["passed"]
        _tell(found, settings["methods"], settings["target"], settings["window"], passed)


def _tell(told: Life, learners: Sequence[str], target: str, window: int, passed: int) -> None:
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
