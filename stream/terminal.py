"""What a person sees in a terminal, whatever the command: a progress bar with a rate, event times, figures, errors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from shlex import quote
from typing import Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from learner.names import ORACLES

WIDE = 170  # columns of a table that goes to a file
out = Console(width=None if Console().is_terminal else WIDE)
err = Console(stderr=True)


class Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s", style="progress.data.speed")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar on standard error; the body tells how far it is, and of how many where that is not known before."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of=total: bar.update(task, completed=done, total=of)


def when(ms: int) -> str:
    """An event time, UTC."""
    text = datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return text.removesuffix(".000").removesuffix(" 00:00:00")


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def aside(methods: Mapping[str, Any]) -> str:
    """What follows "the lowest" where an oracle, which is never named the best, takes part."""
    return ", oracle aside" if any(name in methods for name in ORACLES) else ""


def converted(methods: Mapping[str, Any]) -> bool:
    """Whether a settled row of any method has; where none has, nobody is the best."""
    return any(told["settled"]["positives"] for told in methods.values())


def behind(told: Mapping[str, Any]) -> str:
    """Log loss above that of the best, in 1e-4, with the 95 % interval."""
    if not told["behind_best"]:
        return ""
    interval = [f"{bound * 1e4:+.1f}" for bound in told["interval"]["behind_best"] or ()]
    return f"{told['behind_best'] * 1e4:+.1f}" + (f" [{', '.join(interval)}]" if interval else "")


def to_validate(log: str) -> str:
    """The command that says what is wrong with a log, to be named in a sentence."""
    return f"`belated validate {quote(log)}` (with the same -c, if one was given)"


def counted(times: int, name: str) -> str:
    """As a person writes it: `1 signal`, `2 dead letters`."""
    words = name.replace("_", " ")
    return f"{times:,} {words.removesuffix('s') if times == 1 else words}"


def grid() -> Table:
    """A table without columns yet, as every command shows one."""
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def plain(text: str) -> str:
    """A text from a log, safe to print: what a terminal would obey, or nobody would see, is spelled out.

    >>> plain("a\\x1b[2Jb\\u202ec"), plain("größe")
    ('a\\\\x1b[2Jb\\\\u202ec', 'größe')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def error(message: str) -> None:
    """One sentence on standard error."""
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


def note(message: str) -> None:
    """One sentence on standard error, where standard output may be the result."""
    err.print(message, markup=False, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """One sentence on standard error; the work goes on."""
    err.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say what is wrong, and end with status 2."""
    error(message)
    raise typer.Exit(2)
