"""An option that names some of what there is, for the scripts beside it."""

import argparse
from collections.abc import Callable, Iterable


def among(there: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads "a,b" as ("a", "b"), each once; a name that is not there is told with those that are."""
    known = tuple(there)

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; name some of {', '.join(known)}")
        return names

    return read
