"""The joined table as a file, in the format its ending names, or CSV on standard output.

    .csv        RFC 4180 in UTF-8, lines end in a line feed; no value is an empty cell, truth is true or false
    .csv.gz     the same, packed without name or time: the same table gives the same bytes
    .parquet    with types, in row groups of 65,536 rows; needs the extra `parquet`

A file has its name only when it is complete, see `stream.drafts`.
"""

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic_core import to_json

from labelstore.export import Row
from labelstore.refusals import BelatedError
from stream.drafts import draft

COLUMNS = {
    "impression_id": "string", "user_id": "string", "item_id": "string", "at": "int64", "label": "int8",
    "delay_s": "float64", "settled": "bool", "value": "float64", "signals": "string", "features": "string",
}  # fmt: skip
"""The columns and their types in Parquet; that of the product graph follows, if there is one, and those of the scores."""
GRAPH = {"graph": "string"}
GROUP = 65_536  # rows in a row group
STDOUT = Path("-")
QUOTED = re.compile('[,"\r\n]')

Cell = str | int | float | bool | None
Put = Callable[[Sequence[Row]], None]
"""Takes the rows that come next."""


class ExportError(BelatedError):
    """The table cannot be written; the message names the file and the remedy."""


def cells(row: Row, columns: Mapping[str, str]) -> tuple[Cell, ...]:
    """A row in the order of the columns. Seconds, and kinds of signal in the order of their names."""
    delay = None if row.delay is None else row.delay / 1000
    signals = to_json(dict(sorted(row.signals.items()))).decode()
    told = row.impression_id, row.user_id, row.item_id, row.at, row.label, delay, row.settled, row.value
    said = (row.graph,) if "graph" in columns else ()
    return *told, signals, row.features, *said, *row.scores


def line(values: Sequence[Cell]) -> str:
    """A line of CSV. Python's csv module leaves a carriage return unquoted here, or not, by its version.

    >>> line(["a", None, True, 0.5, 'x"y', "x,y"])
    'a,,true,0.5,"x""y","x,y"\\n'
    """
    return ",".join(map(_text, values)) + "\n"


def _text(value: Cell) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"' if QUOTED.search(value) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else repr(value)


@contextmanager
def _csv(stream: IO[bytes], columns: Mapping[str, str]) -> Iterator[Put]:
    stream.write(line(list(columns)).encode())

    def put(rows: Sequence[Row]) -> None:
        stream.write("".join(line(cells(row, columns)) for row in rows).encode())

    yield put


@contextmanager
def _packed(stream: IO[bytes], columns: Mapping[str, str]) -> Iterator[Put]:
    with (
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
        _csv(packed, columns) as put,  # type: ignore[arg-type]  # it is a stream of bytes, if not by name
    ):
        yield put


@contextmanager
def _parquet(stream: IO[bytes], columns: Mapping[str, str]) -> Iterator[Put]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    always = ("impression_id", "at", "label", "settled", "signals", "features")
    schema = pa.schema([pa.field(name, pa.type_for_alias(of), name not in always) for name, of in columns.items()])
    pages: list[Any] = []

    def flush() -> None:
        if pages:
            writer.write_table(pa.Table.from_batches(pages, schema), row_group_size=GROUP)
            pages.clear()

    def put(rows: Sequence[Row]) -> None:
        values = zip(*(cells(row, columns) for row in rows), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
        pages.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        if sum(page.num_rows for page in pages) >= GROUP:
            flush()

    with ParquetWriter(stream, schema, compression="zstd") as writer:
        yield put
        flush()


FORMATS: dict[str, Callable[[IO[bytes], Mapping[str, str]], AbstractContextManager[Put]]] = {
    ".csv": _csv,
    ".csv.gz": _packed,
    ".parquet": _parquet,
}
"""Ending -> format: what writes a table with these columns and types to a stream of bytes."""


def misplaced(path: Path) -> str | None:
    """Why there can be no file of this name, and the remedy; None if there can."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}; make it first, or name another file"
    return "this is a folder; name a file" if path.is_dir() else None


def ending(path: Path) -> str:
    """The format of a file that is to be written, by its name; `-` is CSV.

    Raises:
        ExportError: no format has this ending, its folder is not there, or pyarrow is not installed.
    """
    if path == STDOUT:
        return ".csv"
    found = next((one for one in FORMATS if path.name.lower().endswith(one)), None)
    if found is None:
        raise ExportError(
            f"{path}: no format has this ending; name it {', '.join(FORMATS)}, or - for CSV on standard output"
        )
    if why := misplaced(path):
        raise ExportError(f"{path}: {why}")
    if found == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ExportError(f"{path}: Parquet needs an extra; pip install 'belated[parquet]'") from None
    return found


@contextmanager
def writing(path: Path, learners: Sequence[str], graph: bool = False) -> Iterator[Put]:
    """The table with the scores of these learners, being written; complete when the body ends without an error.

    ``graph``: with what the product graph said.

    Raises:
        ExportError: as `ending`; or the file cannot be written.
    """
    form = FORMATS[ending(path)]
    columns = COLUMNS | (GRAPH if graph else {}) | {f"score_{name}": "float64" for name in learners}
    if path == STDOUT:
        with form(sys.stdout.buffer, columns) as put:
            yield put
        sys.stdout.buffer.flush()
        return
    try:
        with draft(path) as part, part.open("wb", buffering=1 << 20) as stream:
            with form(stream, columns) as put:
                yield put
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); name another file, or make room") from None
