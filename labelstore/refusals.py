"""What a database refuses, told as one sentence with the remedy and without a password."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from labelstore.address import SECRET, shown


class BelatedError(Exception):
    """The base of the errors that are expected: the message names the thing and the remedy, and needs no traceback."""


class StoreError(BelatedError):
    """The store cannot be used as asked; the message names it and the remedy."""


KEPT = "what was committed is kept"
AGAIN = f"{KEPT}: mend this and run the same command again"
REMEDIES: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied", f"put the right password into the environment: {SECRET}"),
    (r"no pg_hba\.conf entry", "let this host in: a line in the server's pg_hba.conf"),
    (r'database ".*" does not exist', "create it, as docs/stores.md shows, or give another --store"),
    (r'role ".*" does not exist', "create the role, as docs/stores.md shows, or give another user in --store"),
    (r"Connection refused|could not translate host name|failed to resolve host|timeout expired|No route to host",
     "start the server, or mend host and port in --store"),
    (r"too many clients|remaining connection slots", "close other clients, or raise max_connections on the server"),
    (r"readonly|read-only", "let this user write to the file and its folder, or to the database"),
    (r"permission denied", "grant it: the role must own the database, see docs/stores.md"),
    (r"is being accessed|lock timeout|locked", "another process is using it; wait until it is done, then run this again"),
    (r"starting up|shutting down|terminating connection|closed the connection|connection is lost|connection is closed"
     r"|consuming input failed|sending query failed|server closed", f"the server is gone; {AGAIN} when it is back"),
    (r"[Nn]o space left|full|I/O", f"{AGAIN} (free some room on the disk)"),
)  # fmt: skip


def remedy(said: str) -> str:
    """What to do about a message of the database.

    >>> remedy('connection failed: FATAL: database "shop" does not exist')
    'create it, as docs/stores.md shows, or give another --store'
    >>> remedy('could not extend file "base/5/16": No space left on device').split(" (")[1]
    'free some room on the disk)'
    """
    return next((what for pattern, what in REMEDIES if re.search(pattern, said)), AGAIN)


def sentence(error: BaseException) -> str:
    """The message of a database's error on one line: of several attempts to connect, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    several = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return several[-1] if several else " ".join(lines[:2]) if lines else type(error).__name__


@contextmanager
def told_plainly(url: str) -> Iterator[None]:
    """What the database refuses is told as a `StoreError` with the remedy.

    Raises:
        StoreError: the disk is full, the file is locked, read-only, damaged, the server gone, the password wrong, ...
    """
    try:
        yield
    except DBAPIError as error:
        said = sentence(error.orig or error)
        raise StoreError(f"store {shown(url)}: {said}; {remedy(said)}") from None
