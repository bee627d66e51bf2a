"""What the scripts beside it are asked: options with their defaults in the help, and names of what there is."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any


class Parser(argparse.ArgumentParser):
    """Options of a script; ``about``, its docstring, is shown as it is written, and each option with its default."""

    def __init__(self, about: str | None) -> None:
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_argument(self, *names: Any, **told: Any) -> argparse.Action:
        if told.get("default") not in (None, False, argparse.SUPPRESS):
            told["help"] = f"{told.get('help', '')} (default %(default)s)".strip()
        return super().add_argument(*names, **told)


def among(there: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads "a,b" as ("a", "b"), each once; a name that is not there is told with those that are."""
    known = tuple(there)

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; name some of {', '.join(known)}")
        return names

    return read
