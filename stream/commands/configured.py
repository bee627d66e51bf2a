"""Options that were not given are taken from the environment and a file of settings, where these say something."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from stream.terminal import note

OFFLINE = ("kafka", "store", "http", "log")  # a log on disk needs none of these, and none of their secrets


def asked(ctx: typer.Context, file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name: as given on the command line, else as in the environment, the file, or the option's default.

    ``given``: the values of the options; the name of each is its parameter, ``methods`` also of ``--method``. What only
    those tell is there too.
    """
    from stream.config import load

    config = load(file, without=OFFLINE)
    said = {name: getattr(config.learner, name) for name in sorted(config.learner.model_fields_set)}
    return {**given, **{n: v for n, v in said.items() if not _typed(ctx, n)}, "mapping": config.mapping}


def unkept(file: Path | None, store: str | None) -> None:
    """Say that nothing is kept, where a store is named but not by --store: it may be the one of a daemon."""
    if store:
        return
    from stream.config import told
    from stream.environment import variable

    found, above = told(file)
    if "url" in found.get("store", {}):
        place = variable("store.url") if "url" in above.get("store", {}) else f"store.url of {file}"
        note(f"nothing is kept: {place} is for the daemon; give --store to keep what is learned here")


def _typed(ctx: typer.Context, name: str) -> bool:
    """Whether a person has written the option."""
    sources = [ctx.get_parameter_source(name), ctx.get_parameter_source("method") if name == "methods" else None]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)
