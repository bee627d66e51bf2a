"""Criteo Conversion Logs (Chapelle, KDD 2014) into a log: every click an impression, every sale a `purchase`.

    click time   conversion time   8 integers   9 hashed categories       19 columns, tab separated, no header

Times are seconds from an origin that was never published. ORIGIN is arbitrary: only differences mean something, and
hours and weekdays do not. An empty conversion time is a click that did not convert; an empty feature is left out.
The numbers are `n1` to `n8`, the categories `c1` to `c9`. The file is sorted by click; a conversion waits in memory
(about 0.15 kB each, for at most 30 days of the source) until the clicks have reached its time.

Source: Chapelle, Modeling Delayed Feedback in Display Advertising, KDD 2014, and the columns it was published with:
15,898,883 clicks, 22.7 % of them converted within 30 days.
"""

from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from stream.convert.log import Advance, Log, Summary, rows, writing

ORIGIN = 1_356_998_400_000  # 2013-01-01 UTC, ms: arbitrary
LONGEST = 366 * 86_400  # seconds; later than this is no time of this data set
COLUMNS = 19
WIDEST = 1000  # characters of a category
NUMBERS = tuple(f"n{i}" for i in range(1, 9))
CATEGORIES = tuple(f"c{i}" for i in range(1, 10))


class Click(NamedTuple):
    """A row. Times in ms since 1970; ``converted`` None where nothing was bought."""

    at: int
    converted: int | None
    features: dict[str, int | str]


def convert(src: Path, dst: Path, *, advance: Advance) -> Summary:
    """Write the log of the file ``src`` (text or .gz) to the new folder ``dst``, in order of time.

    A click earlier than one before it is written where it stands, and noted.

    Raises:
        FileExistsError: ``dst`` is not empty.
        FileNotFoundError: there is no file ``src``.
    """
    summary = Summary()
    waiting: list[tuple[int, int]] = []  # (at, row) of conversions to come
    with writing(dst, summary) as log:
        for text in rows(src, summary, advance):
            if isinstance(click := _parse(text), str):
                summary.refuse(click, text)
                continue
            summary.passes(click.at)
            _release(log, waiting, click.at)
            _write(log, click, summary.rows)
            if click.converted is not None:
                heappush(waiting, (click.converted, summary.rows))
        _release(log, waiting, None)
    if summary.backwards:
        summary.notes.append(
            f"{summary.backwards:,} clicks are earlier than a click before them; they are written as they come"
        )
    return summary


def _parse(text: str) -> Click | str:
    """The row, or what is wrong with it."""
    fields = text.split("\t")
    if len(fields) != COLUMNS:
        return f"{len(fields)} columns instead of {COLUMNS}"
    try:
        clicked, converted = int(fields[0]), int(fields[1]) if fields[1] else None
    except ValueError:
        return "a time is not a whole number of seconds"
    if not 0 <= clicked <= LONGEST or (converted is not None and converted > LONGEST):
        return "a time is not within a year of the first click"
    if converted is not None and converted < clicked:
        return "the conversion is before the click"
    try:
        features: dict[str, int | str] = {
            name: int(value) for name, value in zip(NUMBERS, fields[2:10], strict=True) if value
        }
    except ValueError:
        return "a number is not an integer"
    if not all(-(2**63) <= value < 2**63 for value in features.values() if isinstance(value, int)):
        return "a number has more than 64 bits"
    features |= {name: value for name, value in zip(CATEGORIES, fields[10:], strict=True) if value}
    if any(len(value) > WIDEST for value in fields[10:]):
        return f"a category is longer than {WIDEST:,} characters"
    return Click(ORIGIN + clicked * 1000, None if converted is None else ORIGIN + converted * 1000, features)


def _write(log: Log, click: Click, row: int) -> None:
    log.write({"type": "impression", "impression_id": f"click.{row}", "at": click.at, "features": click.features})


def _release(log: Log, waiting: list[tuple[int, int]], before: int | None) -> None:
    """Write the conversions earlier than ``before``; all that are left when it is None."""
    while waiting and (before is None or waiting[0][0] < before):
        at, row = heappop(waiting)
        log.write(
            {
                "type": "conversion",
                "event_id": f"conversion.{row}",
                "kind": "purchase",
                "at": at,
                "impression_id": f"click.{row}",
            }
        )
