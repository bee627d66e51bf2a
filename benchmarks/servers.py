"""Servers of our own, for tests and benchmarks: a broker and a database that can crash and come back."""

import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema, DropSchema

PASSWORD = "pa:ss@w/ord"  # noqa: S105  # of a server that lives as long as its script, on loopback
LOWEST, HIGHEST = 10_000, 32_000  # below the ports that systems give to clients: none takes a server's while it is down


def free_port() -> int:
    """A port that nobody listens on, and whose successor nobody does either: a broker takes both."""
    while True:
        port = random.SystemRandom().randrange(LOWEST, HIGHEST)
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            return port


class Broker:
    """Kafka, by a script that knows ``start``, ``kill``, ``--port``, ``--dir``, ``--heap``, ``--set``.

    ``settings``: lines of its server.properties.
    """

    def __init__(self, script: str | Path, folder: Path, *settings: str, heap: str = "256m") -> None:
        port = free_port()
        self._how = ["--heap", heap, *(word for line in settings for word in ("--set", line))]
        self._script, self._where = script, ["--port", str(port), "--dir", str(folder)]
        self.server = f"127.0.0.1:{port}"

    def start(self) -> None:
        """Returns once it answers."""
        subprocess.run([self._script, "start", *self._where, *self._how], check=True, capture_output=True)

    def kill(self) -> None:
        """SIGKILL."""
        subprocess.run([self._script, "kill", *self._where], check=True, capture_output=True)


def binaries() -> Path | None:
    """Where PostgreSQL's initdb and pg_ctl are; None where they cannot be used."""
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -float(place.parent.name))
    fit = [place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()]
    return fit[0] if fit and (os.getuid() or shutil.which("runuser")) else None


class Database:
    """PostgreSQL in a folder that is made here. It refuses to run as root: then as the user `postgres`.

    Args:
        settings: of the server, ``name=value``; without any, it loses nothing that was committed.
    """

    def __init__(self, found: Path, folder: Path, *settings: str) -> None:
        self._binaries, self._who = found, [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
        self._folder, self._data, self._port = folder, folder / "data", free_port()
        own = (f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
        self._told = " ".join(f"-c {setting}" for setting in (*own, *settings))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password") if self._who else ():
            shutil.chown(path, "postgres")
        init = ["-U", "belated", "-E", "UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync"]
        self._run("initdb", "-D", self._data, *init, f"--pwfile={folder / 'password'}")
        url = URL.create("postgresql+psycopg", "belated", PASSWORD, "127.0.0.1", self._port, "postgres")
        self.url = url.render_as_string(hide_password=False)

    def start(self) -> None:
        """Returns once it answers, recovered from a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._folder / "log", "-o", self._told, "start")

    def kill(self) -> None:
        """End all its processes where they stand; none the worse if they have ended."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, signal.SIGQUIT)
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop", check=False)

    @property
    def pid(self) -> int:
        """Of its first process, which takes SIGQUIT for `kill`."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def answers(self) -> bool:
        """Whether anybody listens."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def _run(self, name: str, *given: str | Path, check: bool = True) -> None:
        command = [*self._who, self._binaries / name, *given]
        subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")


@contextmanager
def schema(server: str, name: str) -> Iterator[str]:
    """The URL of a store in a schema of its own, which is dropped unless the body fails."""
    engine = create_engine(server, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateSchema(name))
    yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{name}"
    with engine.begin() as connection:
        connection.execute(DropSchema(name, cascade=True))
