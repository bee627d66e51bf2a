"""When to look at an impression, and what is known then: pure functions over one impression's facts.

Nothing here reads a clock or a database. The label store evaluates these rules for many rows at once; any other
joiner that calls them on the same facts gives the same looks.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Schedule(NamedTuple):
    """When to look at an impression. Plain data: the label store never sees a method. Times in ms.

    ``first``: elapsed time of the first look; 0 = at the impression, the attribution window = when it is settled.
    ``conversion``: look again when a conversion becomes known after a first look that saw none.
    ``outcomes``: also report conversions and the close, for auxiliary models; these never reach the loss.
    ``hindsight``: the label is the final one, which a first pass over the log has found.
    ``ages``: look again at these ages, rising, after the first and up to the window, until a look has seen a conversion;
    one between two looks waits for the next, so ``conversion`` does not go with it. ``every``: look at all of them anyway.
    ``confirm``: whose close is learned. ALL: every impression that was not learned again at its conversion, so that each
    is learned twice; NEGATIVES: those without a conversion at the close.
    ``deadline``: if not 0, also report what was known at this age, as an outcome.
    """

    first: int
    conversion: bool = False
    outcomes: bool = False
    hindsight: bool = False
    ages: tuple[int, ...] = ()
    every: bool = False
    confirm: str = ""
    deadline: int = 0


ALL, NEGATIVES = "all", "negatives"


class Look(IntEnum):
    """Why a row is looked at. The order is that of looks that fall at the same time."""

    FIRST = 0
    CONVERSION = 1
    CLOSE = 2
    AGE = 3


class Credit(NamedTuple):
    """A conversion credited to an impression: known from ``credited_at``, until ``retracted_at`` if it is taken back."""

    at: int
    credited_at: int
    retracted_at: int | None


class Due(NamedTuple):
    """One look at one impression; looks are taken in the order of these tuples.

    ``turn``: looks of the same ms have no order of their own, and their neighbours by id are alike (one customer, one
    coupon), so they take turns by a scrambled number of their impression.
    ``learn``: it goes to the loss; otherwise it is an outcome for auxiliaries only.
    """

    at: int
    turn: int
    impression: int
    look: Look
    schedule: int
    learn: bool


class Observations(NamedTuple):
    """Looks with what was known then, in columns of equal length; times in ms. ``schedule`` indexes the ones asked for.

    ``label`` is what was known at the look, ``final`` says that it will not change by rule. ``delay`` runs from the
    impression to the moment its conversion was known, -1 where none is. ``first_at``, ``first_label`` and ``signals``
    (rows of (row, kind, ms before the look)) describe the FIRST look of the same impression under the same schedule; in
    an outcome before it, label and signals are those of the outcome's time: nobody knows yet what the first look will see.
    ``before`` and ``before_at``: label and time of the look before this one that was learned; 0 and ``shown_at`` if there
    is none. ``signalled`` (rows of (row, kind, ms from the impression to the moment it was known)): signals by THIS look.
    ``features``, ``graph``: of the impressions by seq, JSON as shown and as scored.
    """

    at: NDArray[np.int64]
    impression: NDArray[np.int64]
    look: NDArray[np.int64]
    schedule: NDArray[np.int64]
    learn: NDArray[np.bool_]
    shown_at: NDArray[np.int64]
    first_at: NDArray[np.int64]
    first_label: NDArray[np.int64]
    label: NDArray[np.int64]
    final: NDArray[np.bool_]
    delay: NDArray[np.int64]
    before: NDArray[np.int64]
    before_at: NDArray[np.int64]
    signals: list[tuple[int, str, int]]
    signalled: list[tuple[int, str, int]]
    features: dict[int, str]
    graph: dict[int, str]


def turn(seq: int) -> int:
    """Knuth's multiplicative hash of an impression's number: a fixed shuffle."""
    return seq * 2_654_435_761 % 2**32


def look_at(age: int, at: int, known_at: int) -> int:
    """A look at age a falls at max(at + a, known_at): nobody looks at what he does not know of."""
    return max(at + age, known_at)


def label_at(time: int, credits: Iterable[Credit]) -> int:
    """1 if a conversion is known at this time and not taken back by then. Records precede looks of the same ms."""
    return int(any(c.credited_at <= time and not (c.retracted_at and c.retracted_at <= time) for c in credits))


def converted_at(until: int, credits: Sequence[Credit]) -> int | None:
    """When the impression was first known as converted, by ``until``; None if it was not."""
    times = sorted(c.credited_at for c in credits if c.credited_at <= until)
    return next((time for time in times if label_at(time, credits)), None)


def conversion_look(at: int, known_at: int, window: int, schedule: Schedule, credits: Sequence[Credit]) -> int | None:
    """When the one look at a delayed positive falls: the first time after a first look without a label, by the close."""
    first, close = look_at(schedule.first, at, known_at), look_at(window, at, known_at)
    if not schedule.conversion or label_at(first, credits):
        return None
    times = sorted(c.credited_at for c in credits if first < c.credited_at <= close)
    return next((time for time in times if label_at(time, credits)), None)


def age_looks(at: int, known_at: int, schedule: Schedule, credits: Sequence[Credit]) -> list[int]:
    """When the learned looks at later ages fall. Ages that had passed when the impression was known bring no new look."""
    last = look_at(schedule.first, at, known_at)
    found: list[int] = []
    for age in schedule.ages:
        if not schedule.every and label_at(last, credits):
            break
        if (time := look_at(age, at, known_at)) > last:
            found.append(time)
            last = time
    return found


def is_confirmed(at: int, known_at: int, window: int, schedule: Schedule, credits: Sequence[Credit]) -> bool:
    """Whether the close is learned."""
    if schedule.confirm == NEGATIVES:
        return not label_at(look_at(window, at, known_at), credits)
    return schedule.confirm == ALL and conversion_look(at, known_at, window, schedule, credits) is None


def look_before(
    time: int, at: int, known_at: int, window: int, schedule: Schedule, credits: Sequence[Credit]
) -> int | None:
    """When the last learned look fell before a look at ``time`` that is not the first; None before the first."""
    first = look_at(schedule.first, at, known_at)
    if time < first:
        return None
    again = conversion_look(at, known_at, window, schedule, credits)
    later = [first, *age_looks(at, known_at, schedule, credits), *([] if again is None else [again])]
    return max([first, *(look for look in later if look < time)])
