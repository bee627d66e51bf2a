"""A store on PostgreSQL: the same facts as on SQLite, one writer, every command, and what is said when it cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, func, make_url, select, text

from command_line import belated
from labelstore import lock
from labelstore.address import SECRET, read, shown
from labelstore.events import Impression
from labelstore.ledger import newest
from labelstore.stats import digest
from labelstore.store import LabelStore, StoreError, existing
from labelstore.tables import conversions, dead_letters, impressions
from strategies import DAY, HOUR, T0, lines
from stream.backtest import backtest
from stream.codec import Codec
from stream.environment import variable
from stream.erasure import forget
from stream.files import FileSource
from stream.settings import Settings
from stream.sources import ListSource, Record
from stream.upkeep import compact
from stream.workspace import opened
from test_erasure import BROKEN, EVENTS, USER, his, write

SETTINGS = Settings(methods=("pq_signals", "settled"), window=2 * DAY, wait=5 * HOUR, keep=5 * DAY)
OPTIONS = ("--method", "settled", "--window", "2d", "--wait", "5h")
ODD = ["Ä", "a", "B", "_", "é", "z", "ß", "\U0001f600", "～", "a b", "a-b", "ab", "A", "'", "\\", "\t", "\\N"]


def strange() -> list[bytes]:
    """Events whose texts collations would order differently, floats to the last bit, and records nobody can read."""
    events = list(EVENTS)
    for n, name in enumerate(ODD):
        at = T0 + n * HOUR
        events.append({"type": "item", "item_id": name, "at": at, "features": {name: n / 7}})
        events.append(
            {"type": "impression", "impression_id": f"odd {name}", "at": at, "user_id": name, "item_id": name}
        )
        value = [-0.0, 0.1 + 0.2, 1e308, 5e-324, -1 / 3][n % 5]
        bought = {"type": "conversion", "event_id": name, "kind": "purchase", "user_id": name, "item_id": name}
        events.append({**bought, "at": at + n, "value": value})
    records = lines(sorted(events, key=lambda event: int(event["at"])))
    return [
        *records,
        *BROKEN,
        b'{"type":"item","item_id":"i","at":1700000000000,"features":{"\\u0000":null}}',
        b"\xff\x00",
    ]


def test_the_same_log_gives_the_same_store(schema: str, tmp_path: Path) -> None:
    """Results, weights and the digest of all rows are equal on both databases, in other polls and commits."""
    records = strange()
    log = {("events", 0): records[::2], ("events", 1): records[1::2]}
    found: list[tuple[Any, ...]] = []
    for url, poll, every in ((f"sqlite:///{tmp_path}/s.db", 50, 10_000), (schema, 999, 400)):
        result = backtest("log", ListSource(log), SETTINGS, url, poll, every, checkpoints=tmp_path / "s.checkpoints")
        with existing(url) as connection:
            checkpoint = newest(connection)
            assert checkpoint is not None
            summary = result.summary
            told = (summary["methods"], summary["events"], result.reasons, digest(connection), checkpoint.progress)
            found.append(told)
            assert connection.execute(select(func.count()).select_from(impressions)).scalar_one() > 100
        for file in (tmp_path / "s.checkpoints").iterdir():
            file.unlink()
    assert found[0] == found[1]


def test_a_reason_holds_no_nul() -> None:
    """A record whose broken field has NUL in its name is a dead letter whose reason any database can keep."""
    letter = Codec().decode(Record("t", 0, 0, None, None, strange()[-2]))
    assert "\0" not in letter.reason  # type: ignore[union-attr]  # it is one


@pytest.mark.parametrize("spelled", [rb"\ud800", rb"a\udfff", b"\xed\xa0\x80", rb"\u0000"])
def test_texts_no_database_keeps(spelled: bytes) -> None:
    """Half a surrogate pair, or NUL, makes a record a dead letter, whatever the database."""
    value = b'{"type":"item","item_id":"i%s","at":1700000000000}' % spelled
    assert hasattr(Codec().decode(Record("t", 0, 0, None, None, value)), "reason")


def test_reading_sees_one_moment(schema: str, tmp_path: Path) -> None:
    """What is committed while a store is read is not seen by that reader."""
    with opened(schema, SETTINGS, tmp_path) as (store, _), existing(schema) as reader:
        count = select(func.count()).select_from(impressions)
        assert reader.execute(count).scalar_one() == 0
        store.pass_on([(T0, Impression(impression_id="i", at=T0))])
        store.commit()
        assert reader.execute(count).scalar_one() == 0
        with existing(schema) as later:
            assert later.execute(count).scalar_one() == 1


def test_one_writer(schema: str, tmp_path: Path) -> None:
    """A second writer is refused by the database though it names another folder, and by the folder likewise."""
    with (
        opened(schema, SETTINGS, tmp_path / "a"),
        pytest.raises(StoreError, match="another process is writing to it"),
        opened(schema, SETTINGS, tmp_path / "b"),
    ):
        pass
    with opened(schema, SETTINGS, tmp_path / "b"):
        pass


def test_a_server_that_ends_idle_sessions(schema: str) -> None:
    """Neither the lock of the writer nor what waits for a commit is given up."""
    limits = ("idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout")
    impatient = schema + "".join(f" -c{limit}%3D200" for limit in limits)
    with lock.alone(impatient):
        store = LabelStore(impatient, {"purchase": DAY}, DAY)
        store.pass_on([(T0, Impression(impression_id="i", at=T0))])
        store.connection.exec_driver_sql("SELECT pg_sleep(.3)")
        time.sleep(0.5)
        store.commit()
        store.close()
        with pytest.raises(StoreError, match="another process is writing to it"), lock.alone(schema):
            pass


def test_a_folder_belongs_to_one_store(schema: str, postgres: str, tmp_path: Path) -> None:
    """A folder with the checkpoints of another store is refused by name, without passwords."""
    with opened(schema, SETTINGS, tmp_path):
        pass
    with pytest.raises(StoreError, match=r"holds the checkpoints of postgresql://.*folder of its own") as error:
        backtest("log", ListSource({}), SETTINGS, postgres, checkpoints=tmp_path)
    assert str(make_url(postgres).password) not in str(error.value)


def test_the_folder_has_to_be_named(schema: str) -> None:
    """A store on a server has no folder beside it."""
    with pytest.raises(StoreError, match="name their folder with --checkpoints") as error:
        backtest("log", ListSource({}), SETTINGS, schema)
    assert str(make_url(schema).password) not in str(error.value)


def other(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"password": "wrong-one"}, rf"password authentication failed.*{SECRET}"),
        ({"database": "nowhere"}, "does not exist; create it, as docs/stores.md shows"),
        ({"port": 1}, "start the server, or mend host and port"),
        ({"host": "no-such-host.invalid"}, "mend host and port"),
        ({"query": {"options": "-csearch_path=nowhere"}}, "search_path does not exist"),
    ],
)
def test_a_server_that_cannot_be_used_says_why(postgres: str, tmp_path: Path, parts: dict[str, Any], says: str) -> None:
    """The URL without its password, what the server said, and the remedy; no traceback, no folder."""
    url = other(postgres, **parts)
    if parts.get("password") and os.environ.get("BELATED_POSTGRES"):
        pytest.skip("a server that is given may trust everybody: unset BELATED_POSTGRES")
    for use in (lambda: LabelStore(url, {"purchase": DAY}, DAY), lambda: existing(url).__enter__()):
        with pytest.raises(StoreError, match=f"(?s){says}") as error:
            use()
        assert "\n" not in str(error.value)
        for password in ("wrong-one", make_url(postgres).password, "%40"):
            assert str(password) not in str(error.value)
    with pytest.raises(StoreError, match=f"(?s){says}"):
        backtest("log", ListSource({}), SETTINGS, url, checkpoints=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_who_cannot_write_tables_anew_cannot_erase(schema: str, tmp_path: Path) -> None:
    """A role with rights on rows alone is refused before anything is deleted: its bytes would stay in the files."""
    backtest("log", ListSource({("events", 0): lines(EVENTS)}), SETTINGS, schema, checkpoints=tmp_path)
    role, name = f"writer_{os.getpid()}", str(make_url(schema).query["options"]).split("=")[1]
    server = create_engine(read(schema))
    with server.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {name} TO {role}"))
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {role}"))
    try:
        url = make_url(schema).set(username=role, password=role).render_as_string(hide_password=False)
        for use in (lambda: forget(USER, url, checkpoints=tmp_path), lambda: compact(url, tmp_path)):
            with pytest.raises(StoreError, match=r"the table .* belongs to another role.*give the owner"):
                use()
        with existing(schema) as reader:
            theirs = select(func.count()).select_from(impressions).where(impressions.c.user_id == USER)
            assert reader.execute(theirs).scalar_one() > 0
    finally:
        with server.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
        server.dispose()


def test_the_password_from_the_environment(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL without a password takes that of the environment; the configuration names the same variable."""
    assert variable("store.password") == SECRET
    plain = make_url(schema)._replace(password=None, drivername="postgresql")
    url = plain.render_as_string(hide_password=False)
    monkeypatch.setenv(SECRET, str(make_url(schema).password))
    assert read(url) == make_url(schema)
    LabelStore(url, {"purchase": DAY}, DAY).close()
    assert shown(url) == url


@pytest.mark.parametrize("url", ["postgresql://a:secret@h:12x/d", "postgresql//a:secret@h", "mysql+x://a:secret@h/d"])
def test_urls_that_cannot_be_read(url: str) -> None:
    """What is no URL of a store is refused without its password, with an example."""
    with pytest.raises(StoreError, match=r"a:\*\*\*@h.*expected a URL such as") as error, existing(url):
        pass
    assert "secret" not in str(error.value)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where psycopg is not installed, the command that installs it is said."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'belated\[postgres\]'"), existing("postgresql://a:b@c/d"):
        pass


def test_a_server_that_goes_away(schema: str, tmp_path: Path) -> None:
    """A session that is ended in the middle ends the run with the remedy; the next run goes on to the same end."""
    records = lines(EVENTS)
    expected = backtest("log", ListSource({("events", 0): records}), SETTINGS).summary["methods"]

    class Gone(ListSource):
        def commit(self, offsets: Any) -> None:
            engine = create_engine(schema, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                connection.execute(text(others + "AND application_name = 'belated'"))
            engine.dispose()

    with pytest.raises(StoreError, match="what was committed is kept"):
        backtest("log", Gone({("events", 0): records}), SETTINGS, schema, 50, 300, checkpoints=tmp_path)
    again = backtest("log", ListSource({("events", 0): records}), SETTINGS, schema, 50, 300, checkpoints=tmp_path)
    assert again.summary["methods"] == expected


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "stream.cli", *command], stdout=-3, stderr=-3) as process:
        try:
            yield process
        finally:
            process.kill()


def test_killed_and_resumed(schema: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of a replay: no lock stays, and what goes on knows what a run without it knows."""
    shown_ = [{"type": "impression", "impression_id": f"i{n}", "at": T0 + n * 60_000} for n in range(6000)]
    log = write(tmp_path / "log", lines(shown_))
    with running(
        "replay", str(log), *OPTIONS, "--poll", "50", "--checkpoint-every", "200",
        "--store", schema, "--checkpoints", str(tmp_path / "c"),
    ) as process:  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end and len(list((tmp_path / "c").glob("*.safetensors"))) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    settings = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR)
    whole = f"sqlite:///{tmp_path}/whole.db"
    while time.monotonic() < end + 60:  # the server notices within moments that nobody is there any more
        with suppress(StoreError):
            backtest("log", FileSource(log), settings, schema, checkpoints=tmp_path / "c")
            break
    backtest("log", FileSource(log), settings, whole)
    digests = []
    for url in (schema, whole):
        with existing(url) as connection:
            digests.append(digest(connection))
    assert digests[0] == digests[1]


@pytest.fixture
def kept(schema: str, tmp_path: Path) -> tuple[str, ...]:
    """A replayed log; the options that name the store and its checkpoints."""
    records = lines(EVENTS)
    for n, line in enumerate(BROKEN):
        records.insert(100 * n + 50, line)
    settings = Settings(methods=("settled",), window=2 * DAY, wait=5 * HOUR)
    log = write(tmp_path / "log", records)
    backtest("log", FileSource(log), settings, schema, checkpoints=tmp_path / "c")
    return "--store", schema, "--checkpoints", str(tmp_path / "c")


def test_the_commands(kept: tuple[str, ...], tmp_path: Path) -> None:
    """Statistics, compacting, dead letters, lives, exports and upgrades work as on SQLite; nobody prints the password."""
    url, password = kept[1], str(make_url(kept[1]).password)
    log = str(tmp_path / "log")
    (tmp_path / "c" / "99.partial").write_bytes(b"x")

    def ok(*words: str) -> str:
        status, out, err = belated(*words)
        assert (status, err) == (0, ""), words
        assert password not in out
        return out

    told = json.loads(ok("store", "stats", *kept, "--digest", "--json"))
    assert told["bytes"]["database"] > 100_000 < told["bytes"]["checkpoints"]
    assert told["rows"]["dead_letters"] == len(BROKEN)
    assert "dead letters" in ok("store", "stats", "--store", url)
    assert "1 files (99.partial)" in ok("store", "compact", *kept)
    ok("store", "compact", "--store", url)
    with existing(url) as connection:
        assert digest(connection) == told["digest"]
        name = connection.execute(select(impressions.c.id).limit(1)).scalar_one()
    assert "events/0@50" in ok("dlq", "list", "--store", url, "--reason", "MISSING")
    assert "missing" in ok("dlq", "show", "events/0@50", "--store", url, "--log", log)
    mended = json.dumps({"type": "item", "item_id": "mended", "at": T0})
    ok("dlq", "retry", "events/0@50", "--store", url, "--log", log, "--value", mended)
    with existing(url) as connection:
        assert connection.execute(select(func.count(dead_letters.c.retried))).scalar_one() == 1
    assert name in ok("labels", "show", name, "--store", url)
    ok("store", "upgrade", "--store", url)
    status, _, _ = belated("labels", "export", str(tmp_path / "t.csv"), "--store", url)
    assert (status, (tmp_path / "t.csv").exists()) == (0, True)


def test_forgetting(kept: tuple[str, ...], tmp_path: Path) -> None:
    """A user is erased, from rows and log; the rest stays, and the replay goes on."""
    status, out, _ = belated("forget", "--user", USER, *kept, "--log", str(tmp_path / "log"))
    assert (status, out.startswith("erased from postgresql")) == (0, True)
    status, out, err = belated("forget", "--user", USER, *kept, "--log", str(tmp_path / "log"))
    assert (status, "erased before" in out + err) == (0, True)  # and its tables are written anew again
    with existing(kept[1]) as connection:
        left = set(connection.execute(select(impressions.c.id)).scalars())
        bought = set(connection.execute(select(conversions.c.id)).scalars())
    mine = his(EVENTS)
    stay = {e["impression_id"] for e, his_ in zip(EVENTS, mine, strict=True) if e["type"] == "impression" and not his_}
    gone = {e["event_id"] for e, his_ in zip(EVENTS, mine, strict=True) if e["type"] == "conversion" and his_}
    assert left == stay
    assert not bought & gone
    assert belated("replay", str(tmp_path / "log"), *OPTIONS, *kept)[0] == 0
