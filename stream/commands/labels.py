"""`belated labels`: look into the label store, and take the joined table out of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from labelstore.address import shown
from labelstore.events import EARLIEST
from labelstore.export import Joined
from labelstore.life import Life
from labelstore.observations import Credit, Look, label_at, look_at
from learner.names import ORACLES
from stream.commands import options
from stream.settings import UNITS, Settings, moment, spell
from stream.terminal import fail, note, out, plain, progress, warn, when


def show(
    impression_id: Annotated[str, typer.Argument(help="an impression_id of the log")],
    store: options.StoreThere,
) -> None:
    """The life of one impression: shown, signals, looks, weights, settled."""
    from labelstore import ledger
    from labelstore.life import life, some_ids
    from labelstore.store import existing

    with existing(store) as connection:
        checkpoint = ledger.newest(connection)
        found = life(connection, impression_id)
        if found is None or checkpoint is None:
            some = ", ".join(map(plain, some_ids(connection))) or "none"
            gone = checkpoint and _gone(connection, Settings(**checkpoint.settings), checkpoint.progress)
            fail(
                f"impression {impression_id!r}: the store {shown(store)} has no such impression; it has, for example: {some}"
                + (f"; {gone}" if gone else "")
            )
        settings = Settings(**checkpoint.settings)
        _tell(found, settings.learners, settings.target, settings.window, checkpoint.progress["passed"])


def export(
    file: Annotated[
        Path, typer.Argument(help="what to write: .csv, .csv.gz or .parquet; - for CSV on standard output")
    ],
    store: options.StoreThere,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="event time: ISO 8601, UTC where no offset is given, or ms since 1970; default all that has passed",
        ),
    ] = None,
) -> None:
    """The joined table as it was KNOWN at a moment: a row per impression that is kept, with label, signals, scores.

    Only records known before that moment take part, so nothing of the future leaks into offline work.

    Example: belated labels export labels.parquet --store sqlite:///belated.db --as-of 2017-12-01
    """
    from labelstore import ledger
    from labelstore.store import existing, told_plainly
    from stream.export import ending

    ending(file)
    asked = _moment(as_of)
    with told_plainly(store), existing(store) as connection:
        checkpoint = ledger.newest(connection)
        if checkpoint is None:
            fail(f"store {shown(store)}: nothing was committed to it yet; replay a log into it first")
        settings, reached = Settings(**checkpoint.settings), checkpoint.progress["passed"]
        time = reached if asked is None else asked
        _caution(settings, reached, time)
        _retention(connection, settings, checkpoint.progress, time)
        joined = Joined(connection, settings.target, settings.window, time, len(settings.learners))
        _write(joined, file, settings)


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else moment(text)
    except ValueError as error:
        fail(f"--as-of: {error}")


def _when(ms: int) -> str:
    """An event time; a store that has read nothing stands before all of them."""
    return f"{when(ms)} UTC" if ms >= EARLIEST else "the beginning of its log"


def _caution(settings: Settings, reached: int, time: int) -> None:
    """Say what in an export as of ``time`` is not as of then. Both in ms."""
    if time > reached:
        warn(
            f"the store has reached {_when(reached)}, asked for is {_when(time)}: "
            "what became known in between is not in it"
        )
    for name in settings.learners:
        if name in ORACLES:
            warn(f"score_{name} is of no moment: {name} knew the final labels beforehand")


def _keeps(settings: Settings) -> int:
    """How long a store of these settings keeps records, ms."""
    from labelstore.retention import at_least

    return at_least(settings.kept, settings.window)


def _gone(connection: Any, settings: Settings, stood: Mapping[str, Any]) -> str:
    """Which impressions a store does not keep any more, if any."""
    from labelstore.retention import deleted, whole_from

    if not deleted(connection, stood["counts"]):
        return ""
    keep = _keeps(settings)
    since = _when(whole_from(stood["midnight"], keep))
    return f"it keeps {spell(keep)}, of impressions shown before {since} not all"


def _retention(connection: Any, settings: Settings, stood: Mapping[str, Any], time: int) -> None:
    """Say from when on the export is whole, where records were deleted; warn if at ``time`` (ms) there still were more.

    ``stood``: the progress of the checkpoint.
    """
    from labelstore.retention import DAY, deleted, whole_from

    if not deleted(connection, stood["counts"]):
        return
    midnight, then = stood["midnight"], time - time % DAY
    keep = _keeps(settings)
    whole = f"the export is whole for impressions shown from {_when(whole_from(midnight, keep))} on"
    if then >= midnight:
        note(f"the store keeps {spell(keep)}: {whole}")
        return
    warn(
        f"the store keeps {spell(keep)} and has reached {_when(stood['passed'])}; at {_when(time)} it still had "
        f"impressions known from {_when(whole_from(then, keep))} on, since deleted: {whole}. "
        f"To have the others, replay the log into a new --store with --keep {spell(keep + midnight - then)} or longer"
    )


def _write(joined: Joined, file: Path, settings: Settings) -> None:
    from stream.export import writing

    put_to = writing(file, settings.learners, settings.graph_every is not None)
    rows = converted = settled = 0
    with progress(f"export {file}", joined.size()) as told, put_to as put:
        for page in joined.pages():
            put(page)
            rows += len(page)
            converted += sum(row.label for row in page)
            settled += sum(row.settled for row in page)
            told(rows)
    note(
        f"{file}: {rows:,} impressions as of {_when(joined.as_of)}, {converted:,} of them converted, {settled:,} settled"
    )


def _tell(told: Life, learners: Sequence[str], target: str, window: int, passed: int) -> None:
    """What `belated labels show` says. ``passed``: event time the store has reached, ms."""
    shown = told.impression
    out.print(f"impression {plain(shown['id'])}", style="bold", markup=False)
    for name in ("user_id", "item_id", "context_item_id", "served"):
        if shown[name] is not None:
            out.print(f"  {name}: {plain(str(shown[name]))}", markup=False)
    out.print(f"  features: {plain(json.dumps(json.loads(shown['features']), ensure_ascii=False))}", markup=False)
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
        out.print(f"  {when(at):<23}  {plain(said)}", markup=False, highlight=False)


def _since(row: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    behind = f", known {_long(row['known_at'] - row['at'])} later" if row["known_at"] > row["at"] else ""
    after = row["at"] - shown["at"]
    return f", {_long(abs(after))} {'after' if after >= 0 else 'before'} it was shown{behind}"


def _long(ms: int) -> str:
    """A stretch of time in its two largest units.

    >>> _long(186_883_233), _long(5_100), _long(40), _long(0)
    ('2d 3h', '5s 100ms', '40ms', '0s')
    """
    parts = []
    for unit, of in sorted(UNITS.items(), key=lambda each: -each[1]):
        if unit != "w" and ms >= of:
            parts.append(f"{ms // of}{unit}")
            ms %= of
    return " ".join(parts[:2]) or "0s"
