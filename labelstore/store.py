"""The label store: what was shown, what came back, and what was known when.

Records pass through it in one order (`pass_on`); it then tells which looks are due in a span of event time and what was
known at each of them (`target(...).due`). Looks are a function of the facts and the schedules alone: asked again, in
other spans, or after a restart, they are the same rows. Nothing is durable before `commit`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from labelstore import passing
from labelstore.bulk import insert_rows
from labelstore.due import Target
from labelstore.events import Event
from labelstore.observations import Schedule
from labelstore.retention import at_least, delete_known_before, whole_from
from labelstore.tables import checkpoints, looks, metadata, predictions


class StoreError(Exception):
    """The store cannot be used as asked; the message names it and the remedy."""


class LabelStore:
    """Facts and looks in SQL.

    Args:
        url: an SQLAlchemy URL; ``sqlite:///file.db``, or ``sqlite://`` for memory.
        windows: target kind -> attribution window, ms. Conversions of other kinds are kept, and credited to nothing.
        keep: how long a record is kept after it was known, ms; at least the longest window and a day.

    Raises:
        StoreError: the URL cannot be read or opened.
    """

    def __init__(self, url: str, windows: Mapping[str, int], keep: int) -> None:
        self.windows = dict(windows)
        self.keep = at_least(keep, max(self.windows.values()))
        self.engine = open_engine(url)
        metadata.create_all(self.engine)
        self.connection: Connection = self.engine.connect()
        self.seq = 0  # of the last record that passed; whoever goes on from a commit sets it

    def close(self) -> None:
        """Leave; what was not committed is gone."""
        self.connection.close()
        self.engine.dispose()

    def commit(self) -> None:
        """Make everything since the last commit durable, as one."""
        self.connection.commit()

    def pass_on(self, facts: Sequence[tuple[int, Event]]) -> tuple[list[passing.Shown], Counter[str]]:
        """Take records that pass now, as (known_at, event) in their one order; see `passing.pass_on`."""
        shown, counts, self.seq = passing.pass_on(self.connection, facts, self.seq, self.windows)
        return shown, counts

    def target(self, kind: str, schedules: Sequence[Schedule], hindsight: Set[int] = frozenset()) -> Target:
        """What is due for the learners of one kind of conversion; see `Target`."""
        return Target(self.connection, kind, self.windows[kind], schedules, hindsight)

    def keep_predictions(
        self, learner: int, seqs: NDArray[np.int64], scores: NDArray[np.float64], version: int
    ) -> None:
        """Store scores as they were given, before anything could be learned from the impressions."""
        rows = [(seq, learner, score, version) for seq, score in zip(seqs.tolist(), scores.tolist(), strict=True)]
        insert_rows(self.connection, predictions, ("impression", "learner", "score", "version"), rows)

    def keep_looks(self, learner: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Store looks a learner has learned from, with their weights: impression, look, at, label, weight."""
        names = ("impression", "learner", "look", "at", "label", "weight")
        given = {**columns, "learner": np.full(len(columns["at"]), learner)}
        rows = list(zip(*(given[name].tolist() for name in names), strict=True))
        insert_rows(self.connection, looks, names, rows)

    def forget_before(self, midnight: int) -> None:
        """Delete what has been known for longer than ``keep``; called at every midnight of event time."""
        delete_known_before(self.connection, whole_from(midnight, self.keep))


@contextmanager
def told_plainly(url: str) -> Iterator[None]:
    """What the database refuses is told as a `StoreError` with the remedy.

    Raises:
        StoreError: the disk is full, the file is locked, read-only, damaged, or has another layout.
    """
    try:
        yield
    except DatabaseError as error:
        said = str(error.orig)
        raise StoreError(
            f"store {url}: {said}; what was committed is kept: mend this and run the same command again"
            + (" (free some room on the disk)" if "full" in said or "I/O" in said else "")
        ) from None


@contextmanager
def existing(url: str) -> Iterator[Connection]:
    """A store that is there already, for reading: as it is now, whatever another process commits meanwhile.

    Raises:
        StoreError: there is none.
    """
    engine = open_engine(url, create=False)
    try:
        with told_plainly(url), engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # else each query would see its own moment
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
    finally:
        engine.dispose()


@contextmanager
def amended(url: str) -> Iterator[Connection]:
    """A store that is there already, for one change beside the log: durable when the body ends, nothing if it fails.

    Facts, offsets and weights are none of it: they are one commit (`commit`).

    Raises:
        StoreError: there is none, or it cannot be written.
    """
    engine = open_engine(url, create=False)
    try:
        with told_plainly(url), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def open_engine(url: str, create: bool = True) -> Engine:
    """An engine for the store.

    Raises:
        StoreError: the URL cannot be read or opened.
    """
    try:
        engine = create_engine(url)
        if not create and engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            raise StoreError(f"store {url}: there is no such file; give the URL used with --store")
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _sqlite_settings)
        with engine.connect() as connection:
            _check_layout(connection, url, create)
    except (ArgumentError, SQLAlchemyError, ImportError) as error:
        said = str(error).splitlines()[0]
        raise StoreError(f"store {url}: {said}; expected a URL such as sqlite:///belated.db") from None
    return engine


def _check_layout(connection: Connection, url: str, create: bool) -> None:
    """Refuse a store that an older version wrote: one whose tables lack a column. Missing tables may be created."""
    found = inspect(connection).get_multi_columns(filter_names=list(metadata.tables))
    there = {name: {column["name"] for column in columns} for (_, name), columns in found.items()}
    if not create and checkpoints.name not in there:
        raise StoreError(f"store {url}: holds no label store; give the URL used with --store")
    for table in metadata.sorted_tables:
        columns = there.get(table.name, set(table.columns.keys()) if create else set())
        if lacking := [column.name for column in table.columns if column.name not in columns]:
            raise StoreError(
                f"store {url}: written by an older version (it lacks {table.name}.{lacking[0]}); "
                "replay the log into a new --store"
            )


def _sqlite_settings(connection: Any, _: object) -> None:
    """WAL: readers never block the writer. NORMAL: a power cut may lose the last commit, never half of one."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}")
