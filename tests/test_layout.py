"""Revisions of the tables: a migrated store is a created one, and a store of another revision is refused with the remedy."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, column, inspect, table, text

from command_line import belated
from labelstore import layout
from labelstore.engines import engine_of
from labelstore.store import LabelStore, StoreError, existing, upgrade
from labelstore.tables import metadata
from strategies import DAY, HOUR, T0, lines
from stream.backtest import backtest
from stream.settings import Settings
from stream.sources import ListSource
from stream.workspace import alone

SETTINGS = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR)
SHOWN: list[dict[str, Any]] = [{"type": "impression", "impression_id": f"i{n}", "at": T0 + n} for n in range(20)]
LOOKS = "impression BIGINT, learner SMALLINT, look SMALLINT, at BIGINT NOT NULL, label SMALLINT NOT NULL"
BACK: dict[str, tuple[str, ...]] = {
    "0006": tuple(
        change
        for events in ("signals", "conversions")
        for change in (
            f"DROP INDEX {events}_open_touch",
            f"CREATE INDEX {events}_open_touch ON {events} (user_id, item_id) WHERE impression IS NULL",
        )
    ),
}
BACK |= {
    "0005": (
        *BACK["0006"],
        "CREATE INDEX conversions_uncredited ON conversions (seq) WHERE credited_at IS NULL AND impression IS NOT NULL",
        "DROP INDEX dead_letters_unforwarded",
    ),
}
BACK |= {
    "0004": (
        *BACK["0005"],
        "DROP TABLE item_pairs",
        "DROP TABLE swaps",
        "ALTER TABLE impressions DROP COLUMN graph",
        "DROP INDEX conversions_user",
        "DROP INDEX clicks_session",
        "DROP INDEX clicks_user",
    ),
}
BACK |= {
    "0003": (
        *BACK["0004"],
        "ALTER TABLE looks RENAME TO newer",
        f"CREATE TABLE looks ({LOOKS}, weight FLOAT NOT NULL, PRIMARY KEY (impression, learner, look))",
        "INSERT INTO looks SELECT impression, learner, look, at, label, weight FROM newer",
        "DROP TABLE newer",
    ),
}
BACK["0002"] = (*BACK["0003"], "DROP TABLE journal", "ALTER TABLE dead_letters DROP COLUMN forwarded")
BACK["0001"] = (*BACK["0002"], "DROP TABLE erasures", "ALTER TABLE dead_letters DROP COLUMN retried")
COLLATIONS = (
    "SELECT table_name, column_name, collation_name FROM information_schema.columns "
    "WHERE table_schema = current_schema()"
)


def migrate(engine: Engine, target: str) -> None:
    from alembic import command

    with engine.begin() as connection:
        command.upgrade(layout.configuration(connection), target)


def index(found: Any) -> str:
    """An index as text, with its condition."""
    where = {option: str(value) for option, value in found.get("dialect_options", {}).items()}
    return f"{found['name']} {found['column_names']} {found['unique']} {where}"


def described(engine: Engine) -> dict[str, Any]:
    """Everything the database says of the tables: columns, keys, indexes with their conditions, collations."""
    found = inspect(engine)
    told: dict[str, Any] = {}
    for name in found.get_table_names():
        told[name] = (
            sorted((column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)),
            found.get_pk_constraint(name)["constrained_columns"],
            sorted(str(one["column_names"]) for one in found.get_unique_constraints(name)),
            sorted(map(index, found.get_indexes(name))),
            [(one["constrained_columns"], one["referred_table"]) for one in found.get_foreign_keys(name)],
        )
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            told["collations"] = sorted(map(str, connection.execute(text(COLLATIONS))))
    return told


def replay(store: str, folder: Path) -> dict[str, int]:
    log = ListSource({("events", 0): lines(SHOWN)})
    found = backtest("log", log, SETTINGS, store, checkpoints=folder)
    return dict(found.summary["events"])


def test_the_newest_revision_is_the_last_file() -> None:
    """The revision that new stores get is the head of the migrations, and each is one step."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "labelstore:migrations")
    files = ScriptDirectory.from_config(config)
    assert files.get_heads() == [layout.HEAD]
    assert sorted(one.revision for one in files.walk_revisions()) == layout.known()


def test_migrated_equals_created(store_url: str) -> None:
    """The migrations make what `tables` says: alembic finds no difference, nor does a look at all the database tells."""
    engine = engine_of(store_url)
    migrate(engine, "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, parents: name != layout.version.name}
        )
        assert compare_metadata(context, metadata) == []
    migrated = described(engine)
    metadata.drop_all(engine)
    layout.BESIDE.drop_all(engine)
    layout.create(engine)
    assert described(engine) == migrated
    engine.dispose()


@pytest.mark.parametrize("before", ["0001", "0002", "0003", "0004", "0005", "0006"])
@pytest.mark.parametrize("marked", [True, False])
def test_an_older_store_is_refused_and_upgraded(store_url: str, tmp_path: Path, before: str, marked: bool) -> None:
    """A store of an older revision, or of before revisions, is refused with the remedy; upgraded, it goes on."""
    if before >= "0003" and not marked:
        pytest.skip("stores were marked by then")
    folder = tmp_path / "store.checkpoints"
    replay(store_url, folder)
    engine = engine_of(store_url)
    with engine.begin() as connection:
        for change in BACK[before]:
            connection.execute(text(change))
        connection.execute(
            text("UPDATE alembic_version SET version_num = :n" if marked else "DROP TABLE alembic_version"),
            {"n": before} if marked else {},
        )
    for use in (lambda: replay(store_url, folder), lambda: existing(store_url).__enter__()):
        says = rf"revision {before} .* needs {layout.HEAD}; run: belated store upgrade --store"
        with pytest.raises(StoreError, match=says):
            use()
    assert upgrade(store_url) == (before, layout.HEAD)
    assert upgrade(store_url) == (layout.HEAD, layout.HEAD)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, parents: name != layout.version.name}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    assert replay(store_url, folder)["read"] == len(SHOWN)


def test_a_newer_store_is_refused(store_url: str) -> None:
    """A revision nobody knows here is neither used nor upgraded."""
    LabelStore(store_url, {"purchase": DAY}, DAY).close()
    engine = engine_of(store_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    engine.dispose()
    with pytest.raises(StoreError, match="revision 0099, which a newer belated wrote; install that one"):
        LabelStore(store_url, {"purchase": DAY}, DAY)
    with pytest.raises(StoreError, match="revision 0099"):
        upgrade(store_url)


def test_tables_of_others_are_left_alone(store_url: str, tmp_path: Path) -> None:
    """A database that has a table of one of our names, or somebody else's mark, is refused, and nothing is made in it."""
    engine = engine_of(store_url)
    marks = [("alembic_version", mark) for mark in ("a1b2c3", "0003", layout.HEAD, "0042")]
    for name, told in [("items", "a"), ("checkpoints", "1"), *marks]:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {name} (version_num TEXT)"))
            connection.execute(table(name, column("version_num")).insert(), {"version_num": told})
        uses = (
            lambda: replay(store_url, tmp_path),
            lambda: existing(store_url).__enter__(),
            lambda: upgrade(store_url),
        )
        for use in uses:
            with pytest.raises(StoreError, match=rf"a table {name} that belated did not make; give the store a file"):
                use()
        with engine.begin() as connection:
            assert inspect(connection).get_table_names() == [name]
            connection.execute(text(f"DROP TABLE {name}"))
    engine.dispose()


def test_a_store_is_made_whole_or_not_at_all(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while its tables are made, it has none, and the next run makes them."""

    def killed(*of: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layout, "insert", killed)  # the last step, which says which revision it is
        with pytest.raises(KeyboardInterrupt):
            LabelStore(store_url, {"purchase": DAY}, DAY)
    engine = engine_of(store_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engine.dispose()
    LabelStore(store_url, {"purchase": DAY}, DAY).close()


def test_the_command(tmp_path: Path) -> None:
    """`belated store upgrade` says from which revision to which; where there is no store it makes none."""
    url = f"sqlite:///{tmp_path}/s.db"
    with closing(LabelStore(url, {"purchase": DAY}, DAY)) as store, store.engine.begin() as connection:
        for change in (*BACK["0001"], "DROP TABLE alembic_version"):
            connection.execute(text(change))
    assert belated("store", "upgrade", "--store", url)[:2] == (0, f"revision 0001 -> {layout.HEAD}\n")
    assert "newest already" in belated("store", "upgrade", "--store", url)[1]
    with alone(url, tmp_path / "s.checkpoints"):  # somebody is writing: a store that needs nothing is left alone
        assert belated("store", "upgrade", "--create", "--store", url)[0] == 0
    (tmp_path / "empty.db").write_bytes(b"")
    for name, says in (("none.db", "no such file"), ("empty.db", "holds no label store")):
        status, _, err = belated("store", "upgrade", "--store", f"sqlite:///{tmp_path}/{name}")
        assert (status, says in " ".join(err.split())) == (2, True)
