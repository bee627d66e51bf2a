"""The delay curve against hand counts and against simulated conversions."""

import math

import pytest
import torch

from learner import delay
from learner.batch import KINDS, Batch, Look, Rows

WINDOW, ELAPSED = 320.0, 40.0


def conversions(shown: torch.Tensor, delays: torch.Tensor) -> Batch:
    """Outcomes: conversions of impressions shown then, known that much later."""
    size = len(shown)
    nothing, ones = torch.empty(0, dtype=torch.int64), torch.ones(size)
    rows = Rows(nothing, nothing, torch.zeros(size + 1, dtype=torch.int64), torch.zeros(size, 1))
    look = torch.full((size,), int(Look.CONVERSION))
    elapsed = torch.full((size,), ELAPSED, dtype=torch.float64)
    at = shown + delays
    none = torch.zeros(size, KINDS)
    return Batch(
        rows, look, look, at, shown, elapsed, ones, ones, delays, none, -elapsed, delays, ones, elapsed, none, none
    )


def simulate(until: float, rate: float, seed: int, mean: float = 60.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Impressions shown evenly in [0, until) that convert after an exponential delay cut at the window."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(int(until * rate), generator=generator, dtype=torch.float64) * until
    uniform = torch.rand(len(shown), generator=generator, dtype=torch.float64)
    delays = -mean * torch.log(1 - uniform * (1 - math.exp(-WINDOW / mean)))
    return shown, delays


def known(shown: torch.Tensor, delays: torch.Tensor, now: float) -> delay.Delay:
    """The curve after everything known by now, in the order in which it became known."""
    at = shown + delays
    order = torch.argsort(at)
    order = order[at[order] <= now]
    state = delay.init(ELAPSED, WINDOW)
    for start in range(0, len(order), 256):
        block = order[start : start + 256]
        state = delay.update(state, conversions(shown[block], delays[block]))
    return state


def truth(age: float, mean: float = 60.0) -> float:
    return (1 - math.exp(-age / mean)) / (1 - math.exp(-WINDOW / mean))


def test_the_curve_is_a_distribution() -> None:
    """It rises from 0 to 1 over the window, before and after conversions were seen, and knows the first look's age."""
    for state in (delay.init(ELAPSED, WINDOW), known(*simulate(1000, 2, 0), 1000)):
        curve = delay.curve(state, 1000.0)
        assert curve[0] == 0
        assert curve[-1] == 1
        assert bool((curve.diff() >= 0).all())
        assert ELAPSED in state.edges.tolist()


def test_the_prior_is_the_stated_one() -> None:
    """Before any conversion F(a) = log(1 + a / t) / log(1 + w / t), t = w / 1000."""
    state = delay.init(ELAPSED, WINDOW)
    expected = (state.edges / WINDOW * 1000).log1p() / math.log(1001)
    assert torch.allclose(delay.curve(state, 0.0), expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_truncated_sample_gives_the_true_curve(seed: int) -> None:
    """With more than a window of history the curve is right within 0.03, although the newest rows show short delays only."""
    state = known(*simulate(700, 6, seed), now=700)
    curve = delay.curve(state, 700.0)
    for edge, f in zip(state.edges.tolist(), curve.tolist(), strict=True):
        if edge >= 10:
            assert f == pytest.approx(truth(edge), abs=0.03)


def test_a_crude_histogram_would_be_biased() -> None:
    """On the same conversions the plain share of short delays is too high: the triangle is needed."""
    shown, delays = simulate(400, 10, 1)
    seen = shown + delays <= 400
    crude = float((delays[seen] <= ELAPSED).double().mean())
    age = torch.tensor([ELAPSED], dtype=torch.float64)
    mended = 1 - float(delay.survival(known(shown, delays, 400), age, 400.0))
    assert crude - truth(ELAPSED) > 0.06
    assert abs(mended - truth(ELAPSED)) < 0.03


def test_conversion_drift_does_not_enter() -> None:
    """Three times the conversions from one moment on leave the curve where it was."""
    calm, burst = simulate(700, 4, 2), simulate(700, 8, 3)
    late = burst[0] > 550
    state = known(torch.cat([calm[0], burst[0][late]]), torch.cat([calm[1], burst[1][late]]), now=700)
    age = torch.tensor([ELAPSED], dtype=torch.float64)
    assert 1 - float(delay.survival(state, age, 700.0)) == pytest.approx(truth(ELAPSED), abs=0.03)


def test_old_cohorts_fade() -> None:
    """After a delay drift the curve follows: many windows later it is the new one."""
    slow, fast = simulate(1500, 2, 4, mean=120.0), simulate(6000, 2, 5, mean=20.0)
    state = known(torch.cat([slow[0], fast[0] + 1500]), torch.cat([slow[1], fast[1]]), now=7500)
    age = torch.tensor([ELAPSED], dtype=torch.float64)
    assert 1 - float(delay.survival(state, age, 7500.0)) == pytest.approx(truth(ELAPSED, 20.0), abs=0.06)


@pytest.mark.parametrize("steps", [1, 5, 33, 34, 200])
def test_a_gap_in_one_step_or_in_many(steps: int) -> None:
    """Cohorts that fall out together are forgotten by the age of each, as if they had fallen out one by one."""
    generator = torch.Generator().manual_seed(steps)
    old, counts = torch.rand(3, generator=generator).double(), torch.rand(34, 3, generator=generator).double()
    at_once, left = delay.grown_old(old, counts, steps), delay.moved_on(counts, steps)
    for _ in range(steps):
        old, counts = delay.grown_old(old, counts, 1), delay.moved_on(counts, 1)
    assert torch.allclose(at_once, old)
    assert torch.equal(left, counts)


def test_survival_is_linear_within_a_bucket() -> None:
    """Between two edges the curve is interpolated; past the window nothing is still to come."""
    state = delay.init(ELAPSED, WINDOW)
    curve, edges = delay.curve(state, 0.0), state.edges
    ages = torch.tensor([float(edges[5] + edges[6]) / 2, WINDOW, 2 * WINDOW], dtype=torch.float64)
    expected = torch.stack([1 - (curve[5] + curve[6]) / 2, curve[0], curve[0]])
    assert torch.allclose(delay.survival(state, ages, 0.0), expected)


def test_what_converts_at_once_is_known_at_the_impression() -> None:
    """With a first look at the impression: half of the conversions at age 0, so half are still to come then."""
    shown = torch.arange(4000, dtype=torch.float64)
    delays = torch.where(torch.arange(4000) % 2 == 0, 0.0, 200.0).double()
    state = delay.init(0.0, WINDOW)
    for start in range(0, 4000, 250):
        state = delay.update(state, conversions(shown[start : start + 250], delays[start : start + 250]))
    assert float(delay.survival(state, torch.zeros(1, dtype=torch.float64), 4200.0)) == pytest.approx(0.5, abs=0.02)
