"""A comma-separated file whose first line names its columns: the columns a converter needs, row by row."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from stream.convert.log import Advance, Summary, rows
from stream.sources import SourceError


def table(
    src: Path, names: Sequence[str], summary: Summary, advance: Advance, *, about: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of ``src`` (text or .gz) as (line, column -> value); all columns, of which ``names`` must be there.

    The header is no row. A row with another number of columns is refused. ``about`` says where the file comes from.

    Raises:
        FileNotFoundError: there is no such file.
        SourceError: the first line does not name the columns.
    """
    lines = rows(src, summary, advance)
    header = _split(next(lines, "")) or []
    if lacking := [name for name in names if name not in header]:
        raise SourceError(
            f"{src}: its first line names no column {', '.join(lacking)}, so this is no file of {about}; "
            f"give that file as published, with its header, as text or .gz"
        )
    summary.rows -= 1
    for text in lines:
        fields = _split(text)
        if fields is None:
            summary.refuse("cannot be read as CSV", text)
        elif len(fields) == len(header):
            yield text, dict(zip(header, fields, strict=True))
        elif text:
            summary.refuse(f"{len(fields)} columns instead of {len(header)}", text)
        else:
            summary.refuse("an empty line", text)


def _split(text: str) -> list[str] | None:
    """The fields of a line; None if it is none of CSV."""
    try:
        return next(csv.reader([text]), []) if '"' in text else text.split(",")
    except csv.Error:
        return None
