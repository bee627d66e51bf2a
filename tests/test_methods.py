"""The contract of the methods, free of data: under its own schedule, a method's loss is stationary at its stated optimum.

At one x with known P(y = 1), delay and signals, the rows a schedule produces are enumerated with their probabilities, the
true estimates are filled in, and the root of the expected gradient, read as a probability, is compared in float64.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from learner.batch import KINDS, Batch, Look, Rows
from learner.methods import AUXILIARIES, DEFAULT, METHODS, Looks, Outputs

ELAPSED, WINDOW = 7.0, 60.0
EARLY, LATE, NEVER = 3.0, 20.0, math.inf  # when a conversion is known


class World:
    """P(y = 1) = p; a conversion is known early or late; a signal by the first look depends on what will become."""

    def __init__(self, p: float, late: float, cart: tuple[float, float, float]) -> None:
        self.p, self.late, self.cart = p, late, cart

    @property
    def p_dp(self) -> float:
        return self.p * self.late

    def cases(self) -> list[tuple[float, float, int]]:
        """(probability, when the conversion is known, signal by the first look)."""
        fate = ((self.p * (1 - self.late), EARLY), (self.p * self.late, LATE), (1 - self.p, NEVER))
        return [
            (share * (c if s else 1 - c), known, s)
            for (share, known), c, s in itertools.product(fate, [None], (0, 1))
            for c in [self.cart[(EARLY, LATE, NEVER).index(known)]]
        ]

    def log_r(self, s: int) -> float:
        """log P(s, h > e | y = 1) / P(s | y = 0)."""
        late, never = (c if s else 1 - c for c in self.cart[1:])
        return math.log(self.late * late / never)

    def p_rn(self) -> float:
        """P(y = 0 | x, not converted by e), the signals averaged out."""
        return (1 - self.p) / (1 - self.p + self.p_dp)


Entry = tuple[float, float, int]  # probability, label, signal


def log_of(looks: Looks, world: World) -> list[Entry]:
    """The rows that a schedule writes."""
    rows: list[Entry] = []
    for share, known, s in world.cases():
        first = float(known <= (WINDOW if looks.hindsight else looks.first))
        rows.append((share, first, s))
        if looks.conversion and not first and known <= WINDOW:
            rows.append((share, 1.0, s))
    return rows


def batch_of(rows: list[Entry]) -> Batch:
    size = len(rows)
    nothing = torch.empty(0, dtype=torch.int64)
    label = torch.tensor([label for _, label, _ in rows], dtype=torch.float64)
    time = torch.full((size,), ELAPSED, dtype=torch.float64)
    features = Rows(nothing, nothing, torch.zeros(size + 1, dtype=torch.int64), torch.zeros(size, 1))
    look = torch.full((size,), int(Look.FIRST))
    return Batch(features, look, look, time, time, time, label, label, time, torch.zeros(size, KINDS), time)


def gradient(name: str, world: World, q: float) -> float:
    """Expected gradient of a method's loss with respect to the logit, where the model says q."""
    method = METHODS[name]
    rows = log_of(method.looks(ELAPSED, WINDOW), world)
    logit = torch.full((len(rows),), math.log(q / (1 - q)), dtype=torch.float64, requires_grad=True)

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    uses_signals = "signals" in method.auxiliaries
    plain = math.log(world.late)
    outputs = Outputs(
        logit,
        log_r=each([world.log_r(s) if uses_signals else plain for _, _, s in rows]),
        p_dp=each([world.p_dp for _ in rows]),
        p_rn=each([world.p_rn() for _ in rows]),
    )
    loss, _, _ = method.loss(outputs, batch_of(rows))
    (found,) = torch.autograd.grad((loss * each([share for share, _, _ in rows])).sum(), logit)
    return float(found.sum())


def root(name: str, world: World) -> float:
    """Where the expected gradient vanishes, by bisection on the probability."""
    low, high = 1e-4, 1 - 1e-4
    assert gradient(name, world, low) < 0 < gradient(name, world, high)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gradient(name, world, middle) < 0 else (low, middle)
    return (low + high) / 2


WORLDS = [
    World(p, late, cart)
    for p in (0.02, 0.2, 0.6)
    for late in (0.1, 0.5, 0.95)
    for cart in ((0.7, 0.6, 0.05), (0.2, 0.3, 0.3), (0.5, 0.9, 0.5))
]


@pytest.mark.parametrize("name", METHODS)
def test_the_optimum_is_the_stated_one(name: str) -> None:
    """Under its own schedule and true estimates, a method ends where it says, to 1e-8."""
    for world in WORLDS:
        assert root(name, world) == pytest.approx(METHODS[name].optimum(world.p, world.p_dp), abs=1e-8)


def test_a_loss_on_another_schedule_is_wrong() -> None:
    """ES-DFM's weights on FNW's log miss p by more than 0.08: a schedule and its loss belong together."""
    world = World(0.6, 0.5, (0.5, 0.5, 0.5))
    swapped = METHODS["esdfm"]._replace(looks=METHODS["fnw"].looks)
    METHODS["swapped"] = swapped
    try:
        assert abs(root("swapped", world) - world.p) > 0.08
    finally:
        del METHODS["swapped"]


def test_the_default_is_a_method() -> None:
    """The default method is one of the table, and every auxiliary that is named exists."""
    assert DEFAULT in METHODS
    assert {name for method in METHODS.values() for name in method.auxiliaries} <= set(AUXILIARIES)
