"""`belated dlq`: look through dead letters, and try them again."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from labelstore.address import shown
from labelstore.ledger import DEAD_LETTER_BYTES
from labelstore.letters import Alike, Count, Letter, Place, Summary
from stream.commands import options
from stream.terminal import counted, fail, grid, out, plain, when

PLACE = "topic/partition@offset, such as events/0@17"
REASONS = LISTED = 20  # told one by one
ReadPlace = Annotated[str, typer.Argument(help=PLACE)]
ReadPlaces = Annotated[list[str] | None, typer.Argument(help=PLACE)]


def list_(
    store: options.StoreThere,
    reason: options.Reason = None,
    limit: Annotated[int, typer.Option(min=0, help="how many are listed; all are counted")] = 50,
    json_: options.AsJson = False,
) -> None:
    """Which records could not be read, where they stand, and why.

    Example: belated dlq list --store sqlite:///belated.db --reason "not JSON"
    """
    from labelstore import letters
    from labelstore.store import existing

    with existing(store) as connection:
        found, counts = letters.listed(connection, reason, limit), letters.counted(connection, reason)
    if json_:
        told = [{**row._asdict(), "place": str(row.place)} for row in found]
        typer.echo(json.dumps({"letters": told, "reasons": [count._asdict() for count in counts]}, indent=2))
    else:
        _tell_list(found, counts, reason)


def show(place: ReadPlace, store: options.StoreThere, log: options.LogMaybe = None) -> None:
    """Everything about one dead letter; with --log the whole record, as the log has it.

    Example: belated dlq show events/0@17 --store sqlite:///belated.db
    """
    from labelstore.store import existing
    from stream.files import FileSource
    from stream.retry import ELSEWHERE, letter_at, whole
    from stream.sources import Partition

    at = read_place(place)
    with existing(store) as connection:
        letter = letter_at(connection, at, store)
    if log is None:
        _tell(letter, letter.value, "store")
        return
    record = next(whole(FileSource(log), Partition(at.topic, at.partition), [letter]))
    if record is None:
        fail(f"{log}: {at}: {ELSEWHERE}")
    _tell(letter, record.value, "log")


def retry(
    store: options.StoreThere,
    log: options.LogThere,
    places: ReadPlaces = None,
    all_: Annotated[bool, typer.Option("--all", help="all of them")] = False,
    reason: options.Reason = None,
    value: Annotated[
        str | None, typer.Option(help="for one PLACE: the corrected record to append instead, JSON")
    ] = None,
    strict: options.Strict = False,
    again: Annotated[bool, typer.Option("--again", help="also what was retried before")] = False,
) -> None:
    """Append dead letters to the log as new records; the next `belated replay LOG --store STORE` reads them.

    What would still be refused is not appended, and told; the status then is 1. The old record stays where it is.

    Example: belated dlq retry events/0@17 --store sqlite:///belated.db --log log/ --value '{"type": "item", ...}'
    """
    from stream.files import FileSource
    from stream.retry import Choice
    from stream.retry import retry as run

    chosen = tuple(read_place(place) for place in places or ())
    if bool(chosen) == bool(all_ or reason):
        fail(f"which dead letters? give either places ({PLACE}), or --all, or --reason TEXT")
    if value is not None and len(chosen) != 1:
        fail(f"--value corrects one record, and {len(chosen)} places were given; give the one place it belongs to")
    corrected = None if value is None else value.encode("utf-8", "surrogateescape")
    found = run(store, FileSource(log), Choice(chosen, reason, again), corrected, strict)
    for place, offset in list(found.appended.items())[:LISTED]:
        out.print(f"{place}: appended as {place._replace(offset=offset)}", markup=False, highlight=False)
    _tell_refused(found.refused)
    _tell_retried(len(found.appended), found.already, str(log), store, bool(chosen))
    if found.refused or (chosen and found.already):
        raise typer.Exit(1)


def read_place(text: str) -> Place:
    """A place as a person writes it."""
    found = re.fullmatch(r"(.+)/(\d{1,9})@(\d{1,18})", text)
    if not found:
        fail(f"place {text!r}: expected {PLACE}, as `belated dlq list` shows them")
    return Place(found[1], int(found[2]), int(found[3]))


def _tell_list(found: list[Summary], counts: list[Count], reason: str | None) -> None:
    total, retried = sum(count.letters for count in counts), sum(count.retried for count in counts)
    if not total:
        out.print(plain(f"no dead letters with a reason that holds {reason!r}" if reason else "no dead letters"))
        return
    table = grid()
    for heading in ("place", "timestamp", "size", "retried as", "reason"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=heading != "reason")
    for row in found:
        size = f"{row.size:,}" + ("+" if row.size >= DEAD_LETTER_BYTES else "")
        again = "" if row.retried is None else f"@{row.retried}"
        time = "" if row.timestamp is None else when(row.timestamp)
        table.add_row(*(Text(plain(cell)) for cell in (str(row.place), time, size, again, row.reason)))
    if found:
        out.print(table)
    out.print(f"{counted(total, 'dead_letters')}, {len(found):,} of them listed; {retried:,} were retried")
    for count in counts[:REASONS]:
        out.print(plain(f"  {count.letters:,}: {count.reason}"), markup=False, highlight=False)
    if len(counts) > REASONS:
        out.print(f"  {sum(count.letters for count in counts[REASONS:]):,}: {len(counts) - REASONS:,} further reasons")


def _tell_refused(refused: Mapping[str, list[Place]]) -> None:
    alike, together = Alike(), dict[str, list[Place]]()
    for why, where in refused.items():
        together.setdefault(alike(why), []).extend(where)
    for why, where in sorted(together.items(), key=lambda one: -len(one[1]))[:REASONS]:
        out.print(plain(f"refused {len(where):,}: {why}  ({_some(where)})"), markup=False, style="red")
    if len(together) > REASONS:
        out.print(f"and for {len(together) - REASONS:,} further reasons", style="red", highlight=False)


def _tell(letter: Letter, value: bytes, where: str) -> None:
    facts: dict[str, Any] = {
        "refused": letter.reason,
        "timestamp": None if letter.timestamp is None else f"{when(letter.timestamp)} UTC ({letter.timestamp})",
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "retried": None if letter.retried is None else f"as {letter.place._replace(offset=letter.retried)}",
    }
    out.print(plain(f"dead letter {letter.place}"), style="bold", markup=False, highlight=False)
    for name, told in facts.items():
        if told is not None:
            out.print(plain(f"  {name}: {told}"), markup=False, highlight=False, soft_wrap=True)
    cut = where == "store" and len(value) >= DEAD_LETTER_BYTES
    kept = f"the first {len(value):,} bytes, which is all the store keeps; --log shows the rest" if cut else "whole"
    out.print(f"  value ({kept if cut else f'{len(value):,} bytes, {kept}, from the {where}'}):", highlight=False)
    for line in _readable(value).splitlines() or [""]:
        out.print(plain(f"    {line}"), markup=False, highlight=False, soft_wrap=True)


def _readable(value: bytes) -> str:
    """JSON with one field on a line, or the text as it is; bytes that are no text as \\xNN."""
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return value.decode("utf-8", "backslashreplace")


def _some(places: Iterable[Place]) -> str:
    shown = [str(place) for place in places]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def _tell_retried(appended: int, already: Mapping[Place, int], log: str, store: str, named: bool) -> None:
    if already and named:
        for place, offset in already.items():
            out.print(f"{place}: was retried already, as {place._replace(offset=offset)}; --again appends it once more")
    elif already:
        out.print(f"{len(already):,} were retried already, and left alone; --again appends them once more")
    if appended:
        again = f"belated replay {log} --store {shown(store)}, with the options of before"
        out.print(f"{appended:,} appended; what reads them: {again}", markup=False, highlight=False)
    elif not already:
        out.print("nothing was appended")
