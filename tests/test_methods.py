"""The contract of the methods, free of data: under its own schedule, a method's loss is stationary at its stated optimum.

At one x with known P(y = 1), delay and signals, the rows a schedule produces are enumerated with their probabilities, the
true estimates are filled in, and the root of the expected gradient, read as a probability, is compared in float64.
"""

import itertools
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from learner import names, schedules
from learner.auxiliaries import AUXILIARIES
from learner.batch import KINDS, Batch, Look, Rows
from learner.contract import DelayedFeedback, Outputs
from learner.graph.methods import GRAPH_METHODS
from learner.losses import exponential_delay
from learner.methods import METHODS
from learner.schedules import Looks

ELAPSED, WINDOW = 7.0, 60.0
EARLY, LATE, LAST, NEVER = 3.0, 20.0, 50.0, math.inf  # when a conversion is known
LAST_SHARE = 0.25  # of the conversions after the first look, that come after the deadline
LOG_RATE = 1.3  # of the further head, where it is one of delays


class World:
    """P(y = 1) = p; a conversion is known early or later; a signal by the first look depends on what will become."""

    def __init__(self, p: float, late: float, cart: tuple[float, float, float], early: float = EARLY) -> None:
        self.p, self.late, self.cart, self.early = p, late, cart, early

    @property
    def p_dp(self) -> float:
        return self.p * self.late

    def cases(self) -> list[tuple[float, float, int]]:
        """(probability, when the conversion is known, signal by the first look)."""
        later = self.p * self.late
        fate = (
            (self.p * (1 - self.late), self.early, self.cart[0]),
            (later * (1 - LAST_SHARE), LATE, self.cart[1]),
            (later * LAST_SHARE, LAST, self.cart[1]),
            (1 - self.p, NEVER, self.cart[2]),
        )
        return [(share * (c if s else 1 - c), known, s) for (share, known, c), s in itertools.product(fate, (0, 1))]

    def log_r(self, age: float, s: int | None) -> float:
        """log P(s, not converted by an age | y = 1) / P(s | y = 0); without signals where s is None."""
        mine = [(share, known) for share, known, signal in self.cases() if s is None or signal == s]
        late = sum(share for share, known in mine if age < known < NEVER) / self.p
        never = sum(share for share, known in mine if known == NEVER) / (1 - self.p)
        return math.log(max(late, 1e-300) / never)

    def p_rn(self) -> float:
        """P(y = 0 | x, not converted by e), the signals averaged out."""
        return (1 - self.p) / (1 - self.p + self.p_dp)


class Entry(NamedTuple):
    """A row of the log that a schedule writes, with its probability. ``before``: label and age of the look before."""

    share: float
    look: Look
    age: float
    label: float
    first: float
    signal: int
    known: float
    before: tuple[float, float]


def log_of(looks: Looks, world: World) -> list[Entry]:
    """The rows that a schedule writes."""
    rows: list[Entry] = []
    for share, known, s in world.cases():
        first = float(known <= (WINDOW if looks.hindsight else looks.first))
        seen = [(Look.FIRST, looks.first, first)]
        if looks.conversion and not first and known <= WINDOW:
            seen.append((Look.CONVERSION, known, 1.0))
        for age in looks.ages:
            if looks.every or not seen[-1][2]:
                seen.append((Look.AGE, age, float(known <= age)))
        final = float(known <= WINDOW)
        if (looks.confirm == "all" and len(seen) == 1) or (looks.confirm == "negatives" and not final):
            seen.append((Look.CLOSE, WINDOW, final))
        before = (0.0, 0.0)
        for look, age, label in seen:
            rows.append(Entry(share, look, age, label, first, s, known, before))
            before = (label, age)
    return rows


def each(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch_of(rows: list[Entry]) -> Batch:
    size, nothing = len(rows), torch.empty(0, dtype=torch.int64)
    features = Rows(nothing, nothing, torch.zeros(size + 1, dtype=torch.int64), torch.zeros(size, 1))
    look = torch.tensor([int(row.look) for row in rows])
    elapsed, age = torch.full((size,), ELAPSED, dtype=torch.float64), each([row.age for row in rows])
    signals = torch.zeros(size, KINDS, dtype=torch.float64)
    signals[:, 0] = each([row.signal for row in rows])
    return Batch(
        features,
        look,
        look,
        at=age,
        shown=0 * age,
        elapsed=elapsed,
        label=each([row.label for row in rows]),
        first_label=each([row.first for row in rows]),
        delay=each([row.known if row.known <= row.age else -1.0 for row in rows]),
        signals=signals,
        since=elapsed,
        age=age,
        before=each([row.before[0] for row in rows]),
        age_before=each([row.before[1] for row in rows]),
        signals_now=signals,
        signalled=torch.where(signals > 0, 1.0, -1.0),
    )


class Estimates(NamedTuple):
    """What auxiliary models say at this x, beside the likelihood ratio of the evidence."""

    p_dp: float
    p_rn: float
    p_early: float


def truth(world: World) -> Estimates:
    return Estimates(world.p_dp, world.p_rn(), 1 - world.late)


def by_deadline(world: World) -> Estimates:
    """What is learned where conversions after the deadline are taken for none."""
    late, early = world.p_dp * (1 - LAST_SHARE), world.p - world.p_dp
    return Estimates(late, (1 - early - late) / (1 - early), early / (early + late))


def trust(age: float) -> float:
    """Any that rises to 1 at the close: the optimum does not depend on it."""
    return 0.3 + 0.7 * age / WINDOW


def outputs_of(
    method: DelayedFeedback, world: World, rows: list[Entry], told: Estimates, logits: list[float]
) -> Outputs:
    """Heads that say ``logits``, and estimates that are true."""

    def log_r(row: Entry) -> float:
        if {"reveals", "run_off"} & set(method.auxiliaries):
            return world.log_r(row.age, row.signal)
        return world.log_r(ELAPSED, row.signal if "signals" in method.auxiliaries else None)

    heads = [torch.full((len(rows),), logit, dtype=torch.float64, requires_grad=True) for logit in logits]
    same = {name: each([value] * len(rows)) for name, value in told._asdict().items()}
    return Outputs(
        heads[0],
        heads[-1],
        window=each([WINDOW] * len(rows)),
        log_r=each([log_r(row) for row in rows]),
        log_r_before=each([world.log_r(row.before[1], row.signal) for row in rows]),
        trust=each([trust(row.age) for row in rows]),
        trust_before=each([trust(row.before[1]) for row in rows]),
        reveal=torch.exp(-each([row.age for row in rows]) / WINDOW),
        **same,
    )


def gradient(method: DelayedFeedback, world: World, logits: list[float], head: int, told: Estimates) -> float:
    """Expected gradient of a method's loss with respect to the logit of a head."""
    rows = log_of(method.looks(ELAPSED, WINDOW), world)
    outputs = outputs_of(method, world, rows, told, logits)
    loss = method.loss(outputs, batch_of(rows)).loss * each([row.share for row in rows])
    (found,) = torch.autograd.grad(loss.sum(), outputs.logit if head == 0 else outputs.other)
    return float(found.sum())


def roots(method: DelayedFeedback, world: World, told: Estimates | None = None) -> list[float]:
    """Where the expected gradient of each head vanishes, by bisection on its logit, one head after the other."""
    told = told or truth(world)
    logits = [LOG_RATE] * method.heads
    for head in range(method.heads):
        low, high = logits[:], logits[:]
        low[head], high[head] = (-12.0, 12.0) if head < method.inherits else (-1.9, 7.9)
        assert gradient(method, world, low, head, told) < 0 < gradient(method, world, high, head, told)
        for _ in range(100):
            logits[head] = (low[head] + high[head]) / 2
            (low if gradient(method, world, logits, head, told) < 0 else high)[head] = logits[head]
    return logits


def served(method: DelayedFeedback, world: World, told: Estimates | None = None) -> float:
    """The probability that is served where the expected gradient vanishes."""
    return float(method.serve(*(each([logit]) for logit in roots(method, world, told))))


WORLDS = [
    World(p, late, cart, early)
    for p in (0.02, 0.2, 0.6)
    for late in (0.1, 0.5, 0.95)
    for cart in ((0.7, 0.6, 0.05), (0.2, 0.3, 0.3), (0.5, 0.9, 0.5))
    for early in (EARLY, 0.0)  # at once: known at the impression itself
]


@pytest.mark.parametrize("name", METHODS)
def test_the_optimum_is_the_stated_one(name: str) -> None:
    """Under its own schedule and true estimates, a method ends where it says, to 1e-8."""
    method = METHODS[name]
    for world in WORLDS:
        assert served(method, world) == pytest.approx(method.optimum(world.p, world.p_dp), abs=1e-8)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.wanders])
def test_an_intercept_wanders_only_where_every_look_is_right_by_itself(name: str) -> None:
    """At the optimum the expected gradient vanishes for the looks of each age apart: a burst of impressions, whose looks of
    one age come together, moves no level at any of them."""
    method = METHODS[name]
    for world in WORLDS:
        rows = log_of(method.looks(ELAPSED, WINDOW), world)
        outputs = outputs_of(method, world, rows, truth(world), [math.log(world.p / (1 - world.p))])
        loss = method.loss(outputs, batch_of(rows)).loss * each([row.share for row in rows])
        (found,) = torch.autograd.grad(loss.sum(), outputs.logit)
        ages = sorted({row.age for row in rows})
        assert len(ages) > 1
        for age in ages:
            assert float(found[[row.age == age for row in rows]].sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["fsiw", "ulc"])
def test_a_deadline_misses_what_comes_after_it(name: str) -> None:
    """Where auxiliary models are told what is known by the deadline, a method ends at P(y = 1, h <= deadline): it is low
    by the share of conversions that come later, and by no more."""
    assert LATE < schedules.counterfactual(ELAPSED, WINDOW).deadline < LAST
    for world in WORLDS:
        found = served(METHODS[name], world, by_deadline(world))
        assert found == pytest.approx(world.p - world.p_dp * LAST_SHARE, abs=1e-8)


def test_the_delay_of_dfm_is_that_of_its_converters() -> None:
    """The second head of `dfm` ends where an exponential that ends with the window has the mean delay of the world."""
    for world in WORLDS:
        rate = math.exp(roots(METHODS["dfm"], world)[1])
        delays = [(share, known / WINDOW) for share, known, _ in world.cases() if known < NEVER]
        mean = sum(share * delay for share, delay in delays) / world.p
        assert 1 / rate - 1 / math.expm1(rate) == pytest.approx(mean, abs=1e-8)


def test_a_delay_outside_its_bounds_finds_back() -> None:
    """There lam is held, and the likelihood is flat; the rate is pulled back by delays, and what is within is left alone."""
    label, half, logit = torch.ones(3), torch.full((3,), 0.5), torch.zeros(3)
    rate = torch.tensor([-2.5, 1.0, 9.0], requires_grad=True)
    (slope,) = torch.autograd.grad(exponential_delay(logit, rate, label, half, half).sum(), rate)
    assert (float(slope[0]), float(slope[2])) == (-1.0, 1.0)
    lam = math.e
    assert float(slope[1]) == pytest.approx(lam * 0.5 - 1 + lam / math.expm1(lam), abs=1e-6)


@pytest.mark.parametrize("seen", [Look.FIRST, Look.CONVERSION])
def test_dfm_unlearns_what_is_taken_back(seen: Look) -> None:
    """The losses of an impression that converted, and is not converted at the close, add up to -log(1 - f) for any lam."""
    method, world = METHODS["dfm"], WORLDS[0]
    row = Entry(1.0, Look.FIRST, ELAPSED, 0.0, 0.0, 0, EARLY, (0.0, 0.0))
    converted = row._replace(look=seen, age=LATE, label=1.0, before=(0.0, ELAPSED))
    rows = [row] * (seen is Look.CONVERSION) + [converted]
    rows.append(row._replace(look=Look.CLOSE, age=WINDOW, before=(1.0, LATE)))
    told = method.loss(outputs_of(method, world, rows, truth(world), [-1.0, LOG_RATE]), batch_of(rows))
    assert float(told.loss.detach().sum()) == pytest.approx(math.log1p(math.exp(-1.0)), abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "schedule", "p", "late", "miss"),
    [
        ("esdfm", schedules.now, 0.9, 0.001, -0.43),
        ("fnw", schedules.closed, 0.4, 0.2, -0.15),
        ("esdfm", schedules.closed, 0.6, 0.01, -0.17),
    ],
)
def test_a_loss_on_another_schedule_is_wrong(loss: str, schedule: Any, p: float, late: float, miss: float) -> None:
    """A schedule and its loss belong together: ES-DFM on FNW's log, both with confirmed negatives."""
    world = World(p, late, (0.5, 0.5, 0.5))
    assert served(METHODS[loss], world) == pytest.approx(p, abs=1e-8)
    assert served(METHODS[loss]._replace(looks=schedule), world) - p == pytest.approx(miss, abs=0.01)


def test_a_part_of_the_served_probability_is_bounded() -> None:
    """Odds of more than 1 and sums of more than 1 are served as 1."""
    far = each([3.0])
    assert METHODS["fnc"].serve(far) == 1
    assert METHODS["bidefuse"].serve(far, far) == 1


def test_names_are_those_of_the_methods() -> None:
    """`learner.names` has them all, in their order, and tells those that know the future."""
    assert tuple(METHODS) == names.NAMES
    assert tuple(name for name, method in METHODS.items() if method.looks(ELAPSED, WINDOW).hindsight) == names.ORACLES
    assert {names.DEFAULT, *names.USUAL} <= set(names.LIVE)
    assert tuple(GRAPH_METHODS) == names.GRAPH_NAMES
    assert names.GRAPH_DEFAULT in GRAPH_METHODS


def test_every_auxiliary_model_that_is_named_exists() -> None:
    assert {name for method in METHODS.values() for name in method.auxiliaries} <= set(AUXILIARIES)
