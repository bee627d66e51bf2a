"""A PostgreSQL server for tests: the one that BELATED_POSTGRES names, or one that is started and ended here."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text

PASSWORD = "pa:ss@w/ord"  # noqa: S105  # of a server that lives as long as the tests, on loopback
HOW = (
    "needs PostgreSQL 15 or newer: install its server (initdb on PATH or in /usr/lib/postgresql/*/bin), or set "
    "BELATED_POSTGRES=postgresql+psycopg://user:password@host/database, and install psycopg: pip install 'belated[postgres]'"
)
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "max_connections=40")
_numbers = count()


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a database in which schemas may be made, with its password."""
    pytest.importorskip("psycopg", reason=HOW)
    if given := os.environ.get("BELATED_POSTGRES"):
        yield given
        return
    binaries = _binaries()
    if binaries is None:
        pytest.skip(HOW)
    folder = Path(tempfile.mkdtemp(prefix="belated-postgres-"))
    try:
        with _started(binaries, folder) as port:
            url = URL.create("postgresql+psycopg", "belated", PASSWORD, "127.0.0.1", port, "postgres")
            yield url.render_as_string(hide_password=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def schema(server: str) -> Iterator[str]:
    """The URL of a store in a schema of its own, which is dropped in the end."""
    name = f"belated_{os.getpid()}_{next(_numbers)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    try:
        yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{name}"
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()


def _binaries() -> Path | None:
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -float(place.parent.name))
    fit = [place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()]
    return fit[0] if fit and (os.getuid() or shutil.which("runuser")) else None


@contextmanager
def _started(binaries: Path, folder: Path) -> Iterator[int]:
    """A server on a free port of loopback. It refuses to run as root: then as the user `postgres`."""
    who = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
    (folder / "password").write_text(PASSWORD)
    if who:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    data = folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", *QUICK]
    init: list[str | Path] = [
        "-D",
        data,
        "-U",
        "belated",
        "-E",
        "UTF8",
        "--locale=C",
        "--auth=scram-sha-256",
        "--no-sync",
    ]
    _run(*who, binaries / "initdb", *init, f"--pwfile={folder / 'password'}")
    told = " ".join(f"-c {setting}" for setting in settings)
    _run(*who, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", told, "start")
    try:
        yield port
    finally:
        _run(*who, binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")
