"""The run-off triangle with signals, against worlds whose delays, rates and signals are known."""

from typing import NamedTuple

import pytest
import torch

from learner import delay, later, runoff, triangle
from learner.batch import KINDS, Batch, Look, Rows
from learner.model import MOVES

WINDOW, ELAPSED, DAYS = 7 * 86_400.0, 3_600.0, 22
PER_DAY = 12_000
F = torch.tensor([0.02, 0.06, 0.1, 0.25])  # of four kinds of impressions, as served


class World(NamedTuple):
    """From ``change`` (days) on: conversions ``more`` times as often, ``fast`` the share within the hour, carts of those who
    do not buy ``carts`` times."""

    change: float = 16.0
    more: float = 1.0
    fast: float = 0.4
    carts: float = 1.0
    a_day: int = PER_DAY


class Log(NamedTuple):
    """Per impression: shown, delay (inf: none), cart, f; s."""

    shown: torch.Tensor
    delay: torch.Tensor
    cart: torch.Tensor
    f: torch.Tensor


def simulate(world: World, seed: int = 0) -> Log:
    chance = torch.Generator().manual_seed(seed)
    n = DAYS * world.a_day

    def uniform() -> torch.Tensor:
        return torch.rand(n, generator=chance, dtype=torch.float64)

    shown = (uniform() * DAYS * 86_400).sort().values
    changed = shown >= world.change * 86_400
    f = F[torch.randint(0, len(F), (n,), generator=chance)].double()
    converts = uniform() < f * torch.where(changed, world.more, 1.0)
    fast = uniform() < torch.where(changed, world.fast, 0.4)
    wait = torch.where(fast, uniform() * ELAPSED, ELAPSED + uniform() ** 2 * (WINDOW - ELAPSED))
    cart = uniform() < torch.where(converts, 0.6, 0.05 * torch.where(changed, world.carts, 1.0))
    return Log(shown, torch.where(converts, wait, torch.inf), cart, f)


def batch(log: Log, rows: torch.Tensor, look: Look, at: torch.Tensor) -> Batch:
    nothing = torch.empty(0, dtype=torch.int64)
    features = Rows(nothing, nothing, torch.zeros(len(rows) + 1, dtype=torch.int64), torch.zeros(len(rows), 1))
    signals = torch.zeros(len(rows), KINDS)
    signals[:, 1] = log.cart[rows].float()
    shown, wait = log.shown[rows], log.delay[rows]
    label = (shown + wait <= at).float()
    elapsed = torch.full_like(shown, ELAPSED)
    found = torch.where(label > 0, wait, -1.0)
    looks = torch.full((len(rows),), int(look))
    first = (wait <= ELAPSED).float()
    signalled = torch.where(signals > 0, 1.0, -1.0).double()
    nothing_before = (0 * label, 0 * elapsed)
    return Batch(
        features, looks, rows, at, shown, elapsed, label, first, found, signals, -elapsed, at - shown, *nothing_before,
        signals, signalled,
    )  # fmt: skip


def known(log: Log, until: float = DAYS * 86_400.0) -> runoff.RunOff:
    """After everything known by then, in the order in which it became known, as much at a time as lies between two fits."""
    everything = torch.arange(len(log.shown))
    looks = [
        (Look.FIRST, log.shown + ELAPSED),
        (Look.CONVERSION, log.shown + log.delay),
        (Look.CLOSE, log.shown + WINDOW),
    ]
    state = runoff.init(ELAPSED, WINDOW)
    width = WINDOW / runoff.FITS
    for step in range(1, int(until / width) + 1):
        for look, at in looks:
            rows = everything[(at >= (step - 1) * width) & (at < step * width)]
            if len(rows):
                state = runoff.update(state, batch(log, rows, look, at[rows]), log.f[rows])
    return state


def within_the_hour(state: runoff.RunOff) -> float:
    return float(runoff.curve(state)[int(state.first)])


def test_a_calm_world_is_known() -> None:
    """The share within the hour, the curve after it, and the ratio of a cart are those of the world."""
    log = simulate(World())
    state = known(log)
    curve = runoff.curve(state)
    for edge, f in zip(state.edges.tolist(), curve.tolist(), strict=True):
        expected = 0.4 + 0.6 * max(edge - ELAPSED, 0) ** 0.5 / (WINDOW - ELAPSED) ** 0.5
        if edge >= ELAPSED:
            assert f == pytest.approx(expected, abs=0.05)
    assert float(state.rho[1]) == pytest.approx(1, abs=0.15)
    ages = torch.full((1,), ELAPSED).double()
    for cart, expected in ((True, 0.6 * 0.6 / 0.05), (False, 0.6 * 0.4 / 0.95)):
        row = (log.cart == cart).nonzero()[:1, 0]
        found = runoff.log_ratio(state, batch(log, row, Look.FIRST, log.shown[row] + ELAPSED), log.f[row], ages).exp()
        assert float(found) == pytest.approx(expected, rel=0.2)


def test_what_no_cohort_has_lived_through_is_as_believed() -> None:
    """Three days after the beginning nothing is known of buyers who take longer, whatever those who do not buy put into
    their carts: the last two reverse hazards are the belief's, and carts say next to nothing."""
    log = simulate(World())
    state = known(log, until=3 * 86_400.0)
    curve, believed = runoff.curve(state), runoff.curve(runoff.init(ELAPSED, WINDOW))
    for edge in (-2, -3):
        assert float(curve[edge] / curve[edge + 1]) == pytest.approx(
            float(believed[edge] / believed[edge + 1]), abs=0.04
        )
    assert 0.25 < within_the_hour(state) < 0.5
    rows = torch.stack([(log.cart == cart).nonzero()[0, 0] for cart in (True, False)])
    ages = torch.full((2,), ELAPSED).double()
    found = runoff.log_ratio(state, batch(log, rows, Look.FIRST, log.shown[rows] + ELAPSED), log.f[rows], ages)
    assert float(found[0] - found[1]) == pytest.approx(0, abs=0.15)


def test_signals_that_begin_late_are_not_taken_for_buyers_alone() -> None:
    """Carts are sent from day 9 on, by buyers and others: two days later none of them has settled, and hundreds have bought.
    A cart then says little (its ratio is 7.2, once known), and not what buyers are against rows that could not have one."""
    log = simulate(World())
    log = log._replace(cart=log.cart & (log.shown > 9 * 86_400))
    state = known(log, until=11 * 86_400.0)
    row = log.cart.nonzero()[:1, 0]
    ages = torch.full((1,), ELAPSED).double()
    found = runoff.log_ratio(state, batch(log, row, Look.FIRST, log.shown[row] + ELAPSED), log.f[row], ages).exp()
    assert 0.2 < float(found) < 10


def test_a_dozen_rows_say_what_a_state_is_worth() -> None:
    """Two days after the first windows have closed 150 rows with a cart have settled without a conversion, in four bins of
    f: the ratio of a cart is known to 35 % in each, and to 20 % in the mean."""
    log = simulate(World(a_day=1_500))
    state = known(log, until=9 * 86_400.0)
    rows = torch.stack([((log.f == f) & log.cart).nonzero()[0, 0] for f in F.double()])
    ages = torch.full((len(rows),), ELAPSED).double()
    found = runoff.log_ratio(state, batch(log, rows, Look.FIRST, log.shown[rows] + ELAPSED), log.f[rows], ages).exp()
    assert found.tolist() == pytest.approx([0.6 * 0.6 / 0.05] * 4, rel=0.35)
    assert float(found.log().mean().exp()) == pytest.approx(0.6 * 0.6 / 0.05, rel=0.2)


def test_slower_buyers_are_known_before_they_have_bought() -> None:
    """Two days after half of the fast buyers have become slow, the curve has gone most of the way; the ladder has not."""
    log = simulate(World(fast=0.2))
    state = known(log, until=18 * 86_400.0)
    assert within_the_hour(state) < 0.3
    ladder = delay.init(ELAPSED, WINDOW)
    at = log.shown + log.delay
    for day in range(18):
        rows = torch.arange(len(at))[(at >= day * 86_400) & (at < (day + 1) * 86_400)]
        ladder = delay.update(ladder, batch(log, rows, Look.CONVERSION, at[rows]))
    age = torch.tensor([ELAPSED]).double()
    assert 1 - float(delay.survival(ladder, age, 18 * 86_400.0)) > 0.36


def test_more_conversions_do_not_enter() -> None:
    """Twice the conversions from one moment on leave curve and carts where they were."""
    state = known(simulate(World(more=2.0)), until=20 * 86_400.0)
    assert within_the_hour(state) == pytest.approx(0.4, abs=0.05)
    assert float(state.rho[1]) == pytest.approx(1, abs=0.25)


def test_carts_of_those_who_do_not_buy_are_no_buyers() -> None:
    """Twice the carts of the others move rho most of the way within four days, and the curve by a fifth at most."""
    state = known(simulate(World(carts=2.0)), until=20 * 86_400.0)
    assert 1.4 < float(state.rho[1]) < 2.2
    assert within_the_hour(state) > 0.8 * 0.4


def test_carts_of_the_others_in_a_small_market() -> None:
    """Twice the carts of the others where there are sixty of them a day: rho goes most of the way within four days."""
    state = known(simulate(World(carts=2.0, a_day=1_500)), until=20 * 86_400.0)
    assert 1.6 < float(state.rho[1]) < 2.5


def test_before_anything_is_known() -> None:
    """No signal says anything; survival is the belief's."""
    state = runoff.init(ELAPSED, WINDOW)
    log = simulate(World())
    rows = torch.arange(50)
    found = runoff.log_ratio(
        state, batch(log, rows, Look.FIRST, log.shown[rows] + ELAPSED), log.f[rows], log.shown[rows] * 0 + ELAPSED
    )
    expected = 1 - torch.log1p(torch.tensor(ELAPSED / WINDOW * 1000).double()) / torch.log1p(
        torch.tensor(1000.0).double()
    )
    assert torch.allclose(found.exp(), expected.expand(50))


def test_an_age_of_whole_milliseconds_is_at_its_edge() -> None:
    """The look at a 64th of 15 minutes falls at 14.062 s, its edge at 14.0625: what is not known by then is the same."""
    state = runoff.init(60.0, 900.0)
    looks = torch.tensor([14.062, 28.125, 60.0, 900.0]).double()
    edges = torch.tensor([900.0 / 64, 900.0 / 32, 60.0, 900.0]).double()
    assert torch.equal(runoff.trust(state, looks), runoff.trust(state, edges))
    assert float(runoff.trust(state, torch.tensor([14.06]).double())) < float(runoff.trust(state, edges[:1]))


def test_waits_of_odd_milliseconds_are_edges_to_the_millisecond() -> None:
    """Above 60,000 s single precision has no milliseconds: what converts at the first look would fall after it."""
    window = 14 * 86_400.0
    for milliseconds in range(60_000_001, 400_000_000, 1_234_567):
        elapsed = milliseconds / 1000
        state = runoff.init(elapsed, window)
        assert float(state.edges[state.first]) == elapsed
        assert float(later.init(8, elapsed, window).ages[0]) == elapsed


def test_what_converts_at_once_was_never_pending() -> None:
    """With a first look at the impression, conversions of that moment are known at it and never wait."""
    log, state = simulate(World()), runoff.init(0.0, WINDOW)
    log.delay[::2] = 0.0
    rows = torch.arange(20_000)
    for look, at in ((Look.FIRST, log.shown), (Look.CONVERSION, log.shown + log.delay)):
        some = rows[(at[rows] < log.shown[20_000])]
        told = batch(log, some, look, at[some])
        state = runoff.update(state, told._replace(elapsed=0 * told.elapsed), log.f[some])
    facts = runoff._facts(state, float(log.shown[20_000]))
    after = (log.delay[rows] > 0) & (log.shown + log.delay < log.shown[20_000])[rows]
    assert float(state.pending.sum()) == float((log.delay[rows] > 0).sum())
    assert float(facts.pending.sum()) >= float(state.pending.sum() - after.sum())


def test_old_cohorts_fall_out_and_are_kept_in_sum() -> None:
    """No conversion is lost where its cohort is no longer told apart: sums fade, and do not jump."""
    log = simulate(World())
    state = known(log, until=21 * 86_400.0)
    counted = float(state.converted.sum() + state.old.sum())
    total = float(((log.shown + log.delay) < 21 * 86_400).sum())
    assert 0.7 * total < counted <= total


def test_evidence_counts_as_far_as_the_curve_is_known() -> None:
    """t(a) is where t^2 V + (1 - t)^2 M^2 is least; it rises with age and with conversions, and is 1 at the close."""
    state = known(simulate(World()), until=3 * 86_400.0)
    found = [runoff.trust(s, state.edges) for s in (runoff.init(ELAPSED, WINDOW), state)]
    for t in found:
        assert bool((t.diff() >= 0).all())
        assert float(t[-1]) == 1
    assert bool((found[1] >= found[0])[int(state.first) :].all())
    share, age = runoff.curve(state), int(state.first)
    variance = (1 - share[age]) / (share[age] * state.known)
    wait = torch.trapezoid(1 - share, state.edges / WINDOW)
    tried = torch.linspace(0, 1, 100_001).double()
    best = tried[(tried.square() * variance + (1 - tried).square() * MOVES**2 * wait).argmin()]
    assert float(found[1][age]) == pytest.approx(float(best), abs=1e-4)


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("times", [0.5, 1.5, 2.5])
def test_signals_of_others_are_as_frequent_as_they_were_found(share: float, times: float) -> None:
    """Nobody buys, and a signal that ``share`` of all had is so many times as frequent: rows with it and without are known
    to half a percent, also where the signal is common (a click)."""
    none = torch.zeros(4, 2, 3).double()
    rows, share_now = 1e6, share * times
    never = torch.tensor([[1 - share, share]] * 2).double()
    pending = (rows * torch.tensor([1 - share_now, share_now]).double()).repeat(4, 2, 1)
    kinds = torch.zeros(KINDS, 2).double()
    kinds[0, 1] = 1
    facts = triangle.Facts(
        torch.full((4,), 2 * ELAPSED).double(), torch.zeros(4, 1, 3).bool(), none, pending,
        torch.full((4, 2), rows).double(), torch.zeros(3, 2).double(), never, kinds, torch.arange(2),
    )  # fmt: skip
    start = triangle.Fit(torch.full((3, 3), 1 / 3).double(), torch.ones(KINDS).double())
    found = triangle.fit(facts, start, torch.ones(3).double(), torch.zeros(3).double(), ELAPSED, WINDOW)
    expected = torch.tensor([1 - share_now, share_now]).repeat(2, 1)
    assert triangle.moved(facts, found.rho).numpy() == pytest.approx(expected.numpy(), rel=0.005)
