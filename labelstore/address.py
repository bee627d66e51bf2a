"""URLs of stores: how they are read, what is shown of them, and where the password comes from."""

import os
import re
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

SECRET = "BELATED_STORE__PASSWORD"  # noqa: S105  # the variable, not the password
EXPECTED = "expected a URL such as sqlite:///belated.db or postgresql+psycopg://user@host/database"
SQLITE, POSTGRES = "sqlite", "postgresql"
HIDDEN = "***"


def shown(url: str) -> str:
    """A URL as it may be printed: without its password.

    >>> shown("postgresql+psycopg://ada:secret@host/shop"), shown("sqlite:///belated.db")
    ('postgresql+psycopg://ada:***@host/shop', 'sqlite:///belated.db')
    >>> shown("postgres//ada:secret@host"), shown("postgresql://host/shop?user=ada&password=secret")
    ('postgres//ada:***@host', 'postgresql://host/shop?user=ada&password=***')
    """
    return re.sub(r"((?:^|[?&])\w*password=)[^&]*", rf"\1{HIDDEN}", re.sub(r"(//[^:/@]*:).*@", rf"\1{HIDDEN}@", url))


def read(url: str) -> URL:
    """The URL for the driver, which on PostgreSQL is psycopg; the password from the environment where none is given.

    Raises:
        ArgumentError: it cannot be read.
    """
    try:
        found = make_url(url)
    except ValueError:
        raise ArgumentError("the port is no number") from None
    if found.drivername.split("+")[0] in ("postgres", POSTGRES):
        found = found.set(drivername=f"{POSTGRES}+psycopg")
    password = os.environ.get(SECRET)
    if password and not found.password and "password" not in found.query and found.get_backend_name() == POSTGRES:
        found = found.set(password=password)
    return found


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite store; None for a store on a server, or one in memory.

    Raises:
        ArgumentError: the URL cannot be read.
    """
    found = read(url)
    file = found.get_backend_name() == SQLITE and found.database not in (None, "", ":memory:")
    return Path(found.database or "") if file else None


def on_a_server(url: str) -> bool:
    """Whether it is a store on PostgreSQL.

    Raises:
        ArgumentError: the URL cannot be read.
    """
    return read(url).get_backend_name() == POSTGRES


def named(url: str) -> str:
    """How a store is told from others: host, port and database, and its schema where one is given; of a file its name, so
    that it may move with its folder.

    >>> named("postgresql+psycopg://ada@db/shop"), named("sqlite:////var/belated.db")
    ('postgresql://db:5432/shop', 'belated.db')
    """
    found = read(url)
    if found.get_backend_name() != POSTGRES:
        return Path(found.database or "").name
    host, options = found.host or found.query.get("host", "local"), found.query.get("options")
    return f"{POSTGRES}://{host}:{found.port or 5432}/{found.database or ''}" + (f" {options}" if options else "")
