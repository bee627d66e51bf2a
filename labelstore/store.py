"""The label store: what was shown, what came back, and what was known when.

Records pass through it in one order (`pass_on`); it then tells which looks are due in a span of event time and what was
known at each of them (`target(...).due`). Looks are a function of the facts and the schedules alone: asked again, in
other spans, or after a restart, they are the same rows. Nothing is durable before `commit`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine

from labelstore import layout, passing, postgres
from labelstore.address import on_a_server
from labelstore.bulk import insert_rows
from labelstore.due import Target
from labelstore.engines import as_it_was, engine_of
from labelstore.events import Event
from labelstore.observations import Schedule
from labelstore.refusals import StoreError as StoreError
from labelstore.refusals import told_plainly as told_plainly
from labelstore.retention import at_least, delete_known_before, whole_from
from labelstore.tables import looks, predictions

FEW = 1000  # records, before the planner of a server is told how large its tables are


class LabelStore:
    """Facts and looks in SQL.

    Args:
        url: an SQLAlchemy URL; ``sqlite:///file.db``, ``sqlite://`` for memory, ``postgresql+psycopg://user@host/database``.
        windows: target kind -> attribution window, ms. Conversions of other kinds are kept, and credited to nothing.
        keep: how long a record is kept after it was known, ms; at least the longest window and a day.

    Raises:
        StoreError: the URL cannot be read or opened.
    """

    def __init__(self, url: str, windows: Mapping[str, int], keep: int) -> None:
        self.windows = dict(windows)
        self.keep = at_least(keep, max(self.windows.values()))
        self.engine = open_engine(url)
        try:
            with told_plainly(url):
                layout.create(self.engine)
                self.connection: Connection = self.engine.connect()
        except BaseException:
            self.engine.dispose()
            raise
        self.seq = 0  # of the last record that passed; whoever goes on from a commit sets it
        self._analyzed = FEW if on_a_server(url) else None

    def close(self) -> None:
        """Leave; what was not committed is gone."""
        self.connection.close()
        self.engine.dispose()

    def commit(self) -> None:
        """Make everything since the last commit durable, as one."""
        self.connection.commit()

    def pass_on(
        self, facts: Sequence[tuple[int, Event]], graph: Sequence[str | None] = ()
    ) -> tuple[list[passing.Shown], Counter[str]]:
        """Take records that pass now, as (known_at, event) in their one order; see `passing.pass_on`."""
        if self._analyzed and self.seq >= 2 * self._analyzed:
            postgres.analyze(self.connection)
            self._analyzed = self.seq
        shown, counts, self.seq = passing.pass_on(self.connection, facts, self.seq, self.windows, graph)
        return shown, counts

    def target(self, kind: str, schedules: Sequence[Schedule], hindsight: Set[tuple[str, int]] = frozenset()) -> Target:
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
def existing(url: str) -> Iterator[Connection]:
    """A store that is there already, for reading: as it is now, whatever another process commits meanwhile.

    Raises:
        StoreError: there is none; it was written to meanwhile and nothing could be kept beside it.
    """
    engine = open_engine(url, create=False)
    try:
        with told_plainly(url), as_it_was(engine, url), engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # else each query would see its own moment
            else:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
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
        StoreError: the URL cannot be read or opened, or the store has another revision of the tables.
    """
    engine = engine_of(url, create)
    try:
        with told_plainly(url), engine.connect() as connection:
            layout.check(connection, url, create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def is_newest(url: str) -> bool:
    """Whether there is a store, and nothing in it to upgrade.

    Raises:
        StoreError: a newer one, or the database refuses.
    """
    engine = engine_of(url, create=True)
    try:
        with told_plainly(url), engine.connect() as connection:
            return layout.is_newest(connection, layout.recognised(connection, url))
    finally:
        engine.dispose()


def upgrade(url: str, make: bool = False) -> tuple[str | None, str]:
    """Bring the tables of a store to the newest revision, or ``make`` them. Returns the revisions before and after.

    Raises:
        StoreError: there is no store, or the database refuses.
    """
    engine = engine_of(url, create=make)
    try:
        with told_plainly(url):
            return layout.upgrade(engine, url, make)
    finally:
        engine.dispose()
