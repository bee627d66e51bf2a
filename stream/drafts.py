"""Files that have their names only when they are complete: until then each is called NAME.part. And what to do where the
file system takes none."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"
Place = Callable[[str], Path]
"""Where to write a file of a log, by the name it will have in the log's folder."""
REMEDIES = (
    {code: "free some room" for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
    | {code: "let this user read and write it" for code in (errno.EACCES, errno.EPERM)}
    | {errno.EROFS: "name a place that can be written"}
)


def refused(error: OSError, place: object = "output") -> str | None:
    """What the file system refuses, and the remedy; None if it is something else. ``place``: where the error names none."""
    if error.errno not in REMEDIES:
        return None
    return f"{error.filename or place}: {error.strerror}; {REMEDIES[error.errno]}"


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """Where to write a file, which has its name when the body ends without an error; one that is there stays until then.

    What is no regular file, such as /dev/stdout, is written to as it is.
    """
    real = file.resolve()
    special = real.exists() and not real.is_file()
    place = real if special else _part(real)
    try:
        yield place
        if not special:
            place.replace(real)
    except OSError as error:
        error.filename = str(file)
        raise
    finally:
        if not special:
            _remove(place)


def put(file: Path, text: str) -> None:
    """Write a text, whole or not at all, see `draft`."""
    with draft(file) as place:
        place.write_text(text, encoding="utf-8")


@contextmanager
def drafts(dst: Path) -> Iterator[Place]:
    """A new log in the folder ``dst``: its files get their names when the body ends, in the order they were asked for.

    What an error or a kill leaves behind is never taken for a log, and does not stand in the way of the next one.

    Raises:
        FileExistsError: ``dst`` holds something already, other than folders and what a kill left behind.
    """
    if dst.exists() and (not dst.is_dir() or any(f.suffix != PART and not f.is_dir() for f in dst.rglob("*"))):
        raise FileExistsError(f"{dst}: exists and is not empty; name a new folder, or remove this one first")
    files: list[Path] = []

    def place(name: str) -> Path:
        file = dst / name
        file.parent.mkdir(parents=True, exist_ok=True)
        files.append(file)
        return _part(file)

    try:
        yield place
        for file in files:
            _part(file).replace(file)
    except BaseException as error:
        for file in files:
            _remove(file)  # half of a log is none
        if isinstance(error, OSError) and error.errno in REMEDIES:
            error.filename = error.filename or str(dst)
        raise
    finally:
        for file in files:
            _remove(_part(file))


def _part(file: Path) -> Path:
    return file.with_name(file.name + PART)


def _remove(file: Path) -> None:
    with suppress(OSError):  # it was never there
        file.unlink()
