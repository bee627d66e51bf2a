"""Who converts later than others, against a world in which one half takes hours and the other days."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from learner import later, schedules
from learner.batch import KINDS, Batch, Look, Rows
from learner.model import Shape
from learner.trainer import BATCH, Trainer

WINDOW, ELAPSED, DAY = 7 * 86_400.0, 3_600.0, 86_400.0
RATE = 0.1  # of conversions, of both halves
MEAN = torch.tensor([DAY / 8, 3 * DAY]).double()  # of the delay, an exponential that is cut at the window
AGES = torch.tensor([ELAPSED, *schedules.ages(ELAPSED, WINDOW).ages]).double()


def survives(mean: Tensor, age: Tensor) -> Tensor:
    """P(delay > age | y = 1)."""
    return ((-age / mean).exp() - (-WINDOW / mean).exp()) / (1 - (-WINDOW / mean).exp())


def log_of(days: int, a_day: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Per impression: shown, which half, delay (inf: none); s."""
    chance, n = torch.Generator().manual_seed(seed), days * a_day
    shown = (torch.rand(n, generator=chance).double() * days * DAY).sort().values
    half = torch.randint(0, 2, (n,), generator=chance)
    u, mean = torch.rand(n, generator=chance).double(), MEAN[half]
    delay = -mean * torch.log1p(-u * (1 - (-WINDOW / mean).exp()))
    converts = torch.rand(n, generator=chance) < RATE
    return shown, half, torch.where(converts, (delay * 1000).round() / 1000, torch.inf)


def batch(log: tuple[Tensor, Tensor, Tensor], of: Tensor, look: Look, age: Tensor, before: Tensor) -> Batch:
    """Looks at impressions ``of`` at an ``age``, after one at the age ``before``."""
    shown, half, delay = (column[of] for column in log)
    n = len(of)
    rows = Rows(half + 1, torch.zeros(n, dtype=torch.int64), torch.arange(n + 1), torch.full((n, 4), math.nan).double())
    known = delay <= age
    none = torch.zeros(n, KINDS)
    return Batch(
        rows, torch.full((n,), int(look)), of, shown + age, shown, torch.full((n,), ELAPSED).double(), known.float(),
        (delay <= ELAPSED).float(), torch.where(known, delay, -1.0), none, torch.full((n,), -1.0).double(), age,
        (delay <= before).float() * (before > 0), before, none, none.double() - 1,
    )  # fmt: skip


def test_the_ratio_is_what_it_says() -> None:
    """Within .12 at all ages of looks. Its mean over those who convert is 1, so the level is the triangle's. At the close
    and before the first look there is nothing to say."""
    log = log_of(60, 4_000)
    state, everyone = later.init(64, ELAPSED, WINDOW), torch.arange(len(log[0]))
    for part in torch.split(everyone, BATCH):
        age = torch.full((len(part),), ELAPSED).double()
        state = later.update(state, batch(log, part, Look.FIRST, age, 0 * age), torch.full((len(part),), RATE))
        closes = batch(log, part, Look.CLOSE, age + WINDOW - ELAPSED, age)
        state = later.update(state, closes, torch.full((len(part),), RATE))
    told = (torch.arange(2).repeat_interleave(len(AGES)), AGES.repeat(2))
    asked = batch((torch.zeros(2).double(), torch.arange(2), torch.full((2,), torch.inf)), *_looks(told))
    found = later.log_ratio(state, later.log_ratios(state, asked), told[1]).view(2, -1)
    truth = survives(MEAN[:, None], AGES)
    expected = truth / truth.mean(0)
    assert ((found.exp() - expected)[:, :-1].abs() < 0.12).all(), (found.exp(), expected)
    assert found.exp().mean(0) == pytest.approx(torch.ones(len(AGES)).numpy(), abs=0.03)
    assert found[:, -1].tolist() == [0, 0]
    assert later.log_ratio(state, later.log_ratios(state, asked), 0 * told[1]).abs().max() == 0


def _looks(told: tuple[Tensor, Tensor]) -> tuple[Tensor, Look, Tensor, Tensor]:
    return told[0], Look.AGE, told[1], 0 * told[1]


def test_who_has_just_converted_teaches_nothing() -> None:
    """They are the quick ones: until their window has closed they say nothing of delays."""
    log, of = log_of(2, 500), torch.arange(1_000)
    of = of[log[2].isfinite()]
    state = later.init(64, ELAPSED, WINDOW)
    after = later.update(
        state, batch(log, of, Look.CONVERSION, log[2][of], 0 * log[2][of]), torch.full((len(of),), RATE)
    )
    for name, before, now in zip(state._fields, state, after, strict=True):
        assert torch.equal(before, now), name


def test_whoever_takes_longer_is_not_thought_to_convert_less() -> None:
    """Both halves convert at the same rate. With one delay for both `hybrid` said .122 and .078 (enumerated)."""
    log = log_of(35, 1_000)
    shown, _, delay = log
    trainer = Trainer("hybrid", ELAPSED, WINDOW, 0, Shape(64, 4, 4, 4, (8, 8), 0.05))
    everyone = torch.arange(len(shown))
    looks = [
        (shown + age, look, torch.full_like(shown, age), torch.full_like(shown, before))
        for look, (before, age) in zip((Look.FIRST, *[Look.AGE] * 9), pairwise([0.0, *AGES.tolist()]), strict=False)
    ]
    heard = [
        (shown + WINDOW, Look.CLOSE, torch.full_like(shown, WINDOW), 0 * shown),
        (shown + delay, Look.CONVERSION, delay, 0 * shown),
    ]
    at = torch.cat([look[0] for look in looks + heard])
    which = torch.arange(len(looks + heard)).repeat_interleave(len(shown))
    order = torch.argsort(at, stable=True)
    order = order[at[order] <= 35 * DAY]
    scores = []
    for part in torch.split(order, BATCH * 2):
        for n, (_, look, age, before) in enumerate(looks + heard):
            of = everyone[part[which[part] == n] % len(shown)]
            if len(of) and (n >= len(looks) or look == Look.FIRST):
                trainer.observe(batch(log, of, look, age[of], before[of]))
        for n, (_, look, age, before) in enumerate(looks):
            of = everyone[part[which[part] == n] % len(shown)]
            if len(of):
                trainer.learn(batch(log, of, look, age[of], before[of]))
        if at[part[-1]] > 21 * DAY:
            ask = batch(
                (torch.zeros(2).double(), torch.arange(2), torch.full((2,), torch.inf)),
                torch.arange(2),
                Look.FIRST,
                *torch.zeros(2, 2).double(),
            )
            scores.append(trainer.score(ask.rows))
    quick, slow = torch.stack(scores).mean(0).tolist()
    assert quick == pytest.approx(RATE, rel=0.1)
    assert slow == pytest.approx(RATE, rel=0.1)
