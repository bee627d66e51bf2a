"""Files that have their names only when they are complete: until then each is called NAME.part."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
Place = Callable[[str], Path]
"""Where to write a file of a log, by the name it will have in the log's folder."""


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
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)  # half of a log is none
        raise
    finally:
        for file in files:
            _part(file).unlink(missing_ok=True)


def _part(file: Path) -> Path:
    return file.with_name(file.name + PART)
