"""When methods look: the schedules of the published methods, as data."""

from typing import Literal, NamedTuple


class Looks(NamedTuple):
    """When a method looks at an impression; times in seconds. `stream` turns it into the label store's schedule.

    ``conversion``: again at a conversion after a first look that saw none. ``ages``: again at these ages, after the first
    look and up to the window, until one has seen a conversion (``every``: whatever was seen). ``confirm``: the close is
    learned, of "all" that were not learned again at a conversion, or of the "negatives" at the close.
    ``deadline``: an age at which auxiliary models are told what is known by then; 0 is none.
    ``hindsight``: with the final label, which only a backtest can know.
    """

    first: float
    conversion: bool = False
    ages: tuple[float, ...] = ()
    every: bool = False
    confirm: Literal["", "all", "negatives"] = ""
    deadline: float = 0.0
    hindsight: bool = False


def now(elapsed: float, window: float) -> Looks:
    """Label 0 at the impression, label 1 again at the conversion."""
    return Looks(0.0, conversion=True)


def once(elapsed: float, window: float) -> Looks:
    """Once, at the elapsed time, with what is known then."""
    return Looks(elapsed)


def wait(elapsed: float, window: float) -> Looks:
    """Once at the elapsed time with what is known then, and again on a later conversion."""
    return Looks(elapsed, conversion=True)


def confirmed(elapsed: float, window: float) -> Looks:
    """As `wait`, and everything that was not learned again at a conversion once more when it is final: two rows each."""
    return Looks(elapsed, conversion=True, confirm="all")


def closed(elapsed: float, window: float) -> Looks:
    """As `wait`, and at the close where there is no conversion then."""
    return Looks(elapsed, conversion=True, confirm="negatives")


def counterfactual(elapsed: float, window: float) -> Looks:
    """As `once`; auxiliary models are told what became of it halfway between the first look and the close."""
    return Looks(elapsed, deadline=(elapsed + window) / 2)


def reveals(elapsed: float, window: float) -> Looks:
    """At the elapsed time, and at each age of `reveal_ages`, whatever was seen before."""
    return Looks(elapsed, ages=reveal_ages(elapsed, window), every=True)


def reveal_ages(elapsed: float, window: float) -> tuple[float, ...]:
    """A sixteenth, a quarter and all of the window, as far as they come after the first look."""
    return tuple(age for age in (window / 16, window / 4, window) if age > elapsed)


def ages(elapsed: float, window: float) -> Looks:
    """As `reveals`, at ages that double from a sixteenth of the window on: what becomes known waits for the next look no
    longer than it has waited already."""
    doubling = (window / 2**k for k in (4, 3, 2, 1, 0))
    return Looks(elapsed, ages=tuple(age for age in doubling if age > elapsed), every=True)


def settled(elapsed: float, window: float) -> Looks:
    """Once, at the end of the attribution window."""
    return Looks(window)


def at_once(elapsed: float, window: float) -> Looks:
    """At the impression, with its final label: the future is known."""
    return Looks(0.0, hindsight=True)
