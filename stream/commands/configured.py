"""Options that were not given are taken from a file of settings, where it says something."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

OFFLINE = ("kafka", "store", "http", "log")  # a log on disk needs none of these, and none of their secrets


def asked(ctx: typer.Context, file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name: as given on the command line, else as in the file, else the option's default.

    ``given``: the values of the options; the name of each is its parameter, ``methods`` also of ``--method``. What only the
    file tells is there too.
    """
    if file is None:
        return dict(given)
    from stream.config import load

    config = load(file, without=OFFLINE)
    told = {name: getattr(config.learner, name) for name in sorted(config.learner.model_fields_set)}
    return {**given, **{n: v for n, v in told.items() if not _typed(ctx, n)}, "mapping": config.mapping}


def _typed(ctx: typer.Context, name: str) -> bool:
    """Whether a person has written the option."""
    sources = [ctx.get_parameter_source(name), ctx.get_parameter_source("method") if name == "methods" else None]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)
