"""Who sees what, who converts, when, and what is seen before: arrays, one row per impression.

    p(y=1|x)   = sigmoid(base + campaign + category + device + segment + price + device x category + hour of the day)
    delay      ~ sum_c pi_c(x) Exp(tau_c), each cut at the attribution window
    pi(x)      = softmax(log (.336, .116, .548) + shift of fast and slow segments)

The delays are those of the Criteo conversion logs (35 % within the hour, half within a day): means of 15 minutes, 6
hours and 11.37 days of 30, the last scaled to the window.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.simulate.scenario import DAY, HOUR, MINUTE, START, Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CATEGORIES, ITEMS, CAMPAIGNS = 20, 2000, 40
DEVICES = ("phone", "tablet", "desktop")
SEGMENTS = ("fast", "usual", "slow")
MIXTURE = np.array([0.336, 0.116, 0.548])  # of 15 minutes, 6 hours, days
SHIFT = 0.8  # of the logit of the first part, for segments that are fast (+) and slow (-)
BACK_AFTER = 2 * DAY  # mean time from a purchase to its retraction
CYCLE = (1.0 - 0.6 * np.cos(2 * np.pi * (np.arange(24) - 3) / 24)) / 1.0  # traffic by the hour, lowest at 3
WEEK = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.35, 1.3])  # by the day, Monday first


class World(NamedTuple):
    """One row per impression [N], in the order in which they are shown. Times in ms.

    ``p``: P(label = 1 | x), retractions inside the window taken off. ``converts``: bought inside the window. ``delay``:
    from the impression to the purchase. ``part``: of the mixture. ``retracted``: from the purchase to its retraction, -1
    for none. ``click``, ``cart``: from the impression, -1 for none.
    """

    at: Ints
    user: Ints
    item: Ints
    category: Ints
    campaign: Ints
    device: Ints
    segment: Ints
    price: Floats
    p: Floats
    converts: Bools
    delay: Ints
    part: Ints
    retracted: Ints
    click: Ints
    cart: Ints

    @property
    def label(self) -> Bools:
        """What the label is when the attribution window has closed."""
        return self.converts & (self.retracted < 0)


def simulate(s: Scenario) -> World:
    """The world of a scenario. Scenarios of the same seed differ only in what their knobs name."""
    traffic, people, outcome, signals = (np.random.default_rng([s.seed, stream]) for stream in range(4))
    n = s.impressions
    at = _times(s, traffic)
    user, item = traffic.integers(0, max(10, n // 40), n), _popular(traffic, n)
    changed = at >= s.changes_at
    campaign, effects = _campaigns(s, traffic, people, at)
    category = people.integers(0, CATEGORIES, ITEMS)[item]
    price = people.lognormal(3, 0.8, ITEMS)[item]
    device, segment = people.integers(0, 3, n // 40 + 11)[user], people.choice(3, n // 40 + 11, p=(0.3, 0.4, 0.3))[user]
    logit = effects + people.normal(0, 0.5, CATEGORIES)[category] + np.array([-0.2, 0.0, 0.3])[device]
    logit += np.array([0.3, 0.0, -0.2])[segment] - 0.25 * (np.log(price) - 3)
    logit += people.normal(0, 0.3, (3, CATEGORIES))[device, category] + 0.2 * np.cos(
        2 * np.pi * (at / HOUR % 24 - 20) / 24
    )
    logit += _level(logit[~changed] if (~changed).any() else logit, s.rate)
    logit += np.where(changed, s.conversion_drift * (0.5 + category % 2), 0.0)
    converts, part, delay, back, kept = _outcomes(s, outcome, logit, segment, changed)
    click, cart = _signals(s, signals, converts, part, delay, changed)
    p = kept / (1 + np.exp(-logit))
    return World(
        at, user, item, category, campaign, device, segment, price, p, converts, delay, part, back, click, cart
    )  # fmt: skip


def _times(s: Scenario, generator: np.random.Generator) -> Ints:
    """Sorted times: constant within an hour, by cycles of day and week."""
    hours = np.arange(max(1, int(np.ceil(s.days * 24))))
    traffic = (CYCLE[hours % 24] * WEEK[hours // 24 % 7]).cumsum()
    spread = generator.random(s.impressions)
    at = np.interp(spread, np.concatenate([[0], traffic]) / traffic[-1], np.append(hours, s.days * 24))
    return START + np.sort((at * HOUR).astype(np.int64))


def _popular(generator: np.random.Generator, n: int) -> Ints:
    """Items by a power law of their rank."""
    weight = 1 / np.arange(1, ITEMS + 1) ** 0.8
    return np.searchsorted(weight.cumsum() / weight.sum(), generator.random(n)).clip(max=ITEMS - 1).astype(np.int64)


def _campaigns(s: Scenario, traffic: np.random.Generator, people: np.random.Generator, at: Ints) -> tuple[Ints, Floats]:
    """Which campaign shows each impression, and its effect: old ones, one newcomer a day, and a wave at the change."""
    days = int(np.ceil(s.days))
    starts = np.concatenate([START + DAY * np.arange(1, days), np.full(8, s.changes_at)])
    newcomers = min(s.newcomers, (1 - s.new_campaigns) / max(days - 1, 1))
    shares = np.concatenate([np.full(days - 1, newcomers), np.full(8, s.new_campaigns / 8)])
    effects = np.concatenate([people.normal(0, 0.6, CAMPAIGNS + days - 1), people.normal(0.3, 1.0, 8)])
    order = np.argsort(starts, kind="stable")
    upto = np.concatenate([[0.0], shares[order].cumsum()])
    begun = np.searchsorted(starts[order], at, side="right")  # newcomers that are there
    spread = traffic.random(len(at))
    newcomer = np.searchsorted(upto, spread, side="right") - 1
    old = (traffic.random(len(at)) ** 2 * CAMPAIGNS).astype(np.int64)
    campaign = np.where(newcomer < begun, CAMPAIGNS + order[newcomer.clip(max=len(order) - 1)], old)
    return campaign, effects[campaign]


def _level(logit: Floats, rate: float) -> float:
    """What is added to the logits so that their mean probability is the rate: bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-logit - middle))).mean() < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _means(s: Scenario) -> Floats:
    return np.array([15 * MINUTE, 6 * HOUR, 11.37 / 30 * s.window])


def mixture(s: Scenario, segment: Ints, changed: Bools) -> Floats:
    """pi(x) [N, 3]."""
    logit = np.log(MIXTURE) + np.zeros((len(segment), 3))
    logit[:, 0] += np.array([SHIFT, 0.0, -SHIFT])[segment]
    logit[:, :2] -= np.where(changed, s.delay_drift, 0.0)[:, None]
    pi: Floats = np.exp(logit - logit.max(1, keepdims=True))
    pi /= pi.sum(1, keepdims=True)
    return pi


def _outcomes(
    s: Scenario, generator: np.random.Generator, logit: Floats, segment: Ints, changed: Bools
) -> tuple[Bools, Ints, Ints, Ints, Floats]:
    """(bought, part of the mixture, delay, time to the retraction or -1, P(not taken back inside the window | bought))."""
    n, mean = len(logit), _means(s)
    converts = generator.random(n) * (1 + np.exp(-logit)) < 1
    pi = mixture(s, segment, changed)
    part = (generator.random(n)[:, None] > pi.cumsum(1)[:, :2]).sum(1)
    delay = cut_exponential(generator.random(n), mean[part], s.window)
    taken, after = generator.random(n) < s.retractions, generator.exponential(BACK_AFTER, n)
    inside = taken & converts & (delay + after < s.window)
    kept = 1 - s.retractions * pi @ np.array([taken_back(m, s.window) for m in mean])
    return converts, part, delay.astype(np.int64), np.where(inside, after, -1).astype(np.int64), kept


def cut_exponential(u: Floats, mean: Floats | float, window: float) -> Floats:
    """The u-th quantile of an exponential distribution that ends at the window."""
    return -mean * np.log1p(u * np.expm1(-window / mean))


def taken_back(mean: float, window: float) -> float:
    """P(h + R < w) for a delay h ~ Exp(mean) cut at w and R ~ Exp(BACK_AFTER), by quantiles of h."""
    delay = cut_exponential((np.arange(20_000) + 0.5) / 20_000, mean, window)
    return float(-np.expm1(-(window - delay) / BACK_AFTER).mean())


def _signals(
    s: Scenario, generator: np.random.Generator, converts: Bools, part: Ints, delay: Ints, changed: Bools
) -> tuple[Ints, Ints]:
    """Clicks and carts, within minutes; those of a buyer before the purchase."""
    n = len(converts)
    before = np.where(converts, delay * generator.uniform(0.1, 0.95, n), np.inf)
    click = np.minimum(generator.exponential(2 * MINUTE, n), before)
    cart = np.minimum(generator.exponential(10 * MINUTE, n), before)
    buyer = np.clip(s.cart_buyer + np.array([0.15, 0.0, -0.15])[part], 0, 1)
    other = np.clip(s.cart_other * np.where(changed, s.signal_drift, 1.0), 0, 1)
    clicked = generator.random(n) < np.where(converts, s.click_buyer, s.click_other)
    carted = generator.random(n) < np.where(converts, buyer, other)
    return np.where(clicked, click, -1).astype(np.int64), np.where(carted, cart, -1).astype(np.int64)
