"""No learner may know the future: held for every method there is, and for every method to come."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from labelstore.observations import Observations
from learner.batch import Batch
from learner.names import LIVE
from strategies import DAY, HOUR
from stream.backtest import backtest
from stream.comparison import DRAWS
from stream.learning import Learner
from stream.settings import Settings
from test_loop import one, shop

pytestmark = pytest.mark.usefixtures("few_buckets")
METHODS = (*LIVE, "river:LogisticRegression")
SETTINGS = Settings(methods=METHODS, window=2 * DAY, wait=HOUR, keep=400 * DAY)
EVENTS = shop(6000, seed=11, days=10)


def behind(events: list[dict[str, Any]], by: int) -> list[dict[str, Any]]:
    """The same events, each conversion, signal and adjustment read ``by`` ms later: it stands behind younger records."""
    return sorted(events, key=lambda event: event["at"] + (by if event["type"] != "impression" else 0))


def losses(events: list[dict[str, Any]]) -> dict[str, dict[int, tuple[float, int]]]:
    """Learner -> hour -> (sum of log losses, rows), against labels that no shift can change."""
    result = backtest("log", one(events), SETTINGS)
    return {name: {h: (told.loss_sum, told.rows) for h, told in found.items()} for name, found in result.hours.items()}


@pytest.fixture(scope="module")
def shifted() -> dict[str, np.ndarray[Any, Any]]:
    """Learner -> how much worse each hour's mean log loss is when outcomes are known an hour later [hours].

    Only impressions whose label is the same either way are compared: a purchase in the last hour of its window is none.
    """
    close = {event["impression_id"]: event["at"] + 2 * DAY for event in EVENTS if event["type"] == "impression"}
    bought = {event["event_id"]: event for event in EVENTS if event["type"] == "conversion"}
    dropped = {
        name for name, event in bought.items() if abs(close[event["impression_id"]] - event["at"]) < 2 * HOUR
    } | {event["conversion_id"] for event in EVENTS if event["type"] == "adjustment"}
    kept = [
        event for event in EVENTS if event.get("event_id") not in dropped and event.get("conversion_id") not in dropped
    ]
    before, after = losses(kept), losses(behind(kept, HOUR))
    return {
        name: np.array([(after[name][h][0] - loss) / rows for h, (loss, rows) in sorted(found.items())])
        for name, found in before.items()
    }


@pytest.mark.parametrize("name", METHODS)
def test_knowing_later_improves_nothing(shifted: dict[str, np.ndarray[Any, Any]], name: str) -> None:
    """With every conversion and signal an hour behind, settled log loss does not fall beyond its bootstrap interval."""
    worse = shifted[name]
    assert len(worse) > 150
    drawn = np.random.default_rng(0).choice(worse, (DRAWS, len(worse))).mean(1)
    assert np.quantile(drawn, 0.975) >= 0


def test_no_prediction_after_its_row_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the method, an impression is scored before any look at it is in a step."""
    learned: dict[str, set[int]] = defaultdict(set)
    scored: dict[str, set[int]] = defaultdict(set)
    learn, score = Learner._learn, Learner.score

    def spy_learn(self: Learner, now: int) -> None:
        taken = {int(seq) for part in self.looks for seq in part.impression.tolist()}
        learn(self, now)
        assert taken <= scored[self.name], "learned before it was scored"
        learned[self.name] |= taken

    def spy_score(self: Learner, count: int) -> None:
        new = {int(seq) for seq in self._unscored.seq[self.scored : count].tolist()}
        assert not new & learned[self.name], "scored after it was learned"
        score(self, count)
        scored[self.name] |= new

    monkeypatch.setattr(Learner, "_learn", spy_learn)
    monkeypatch.setattr(Learner, "score", spy_score)
    backtest("log", one(EVENTS[:3000]), SETTINGS)
    for name in METHODS:
        assert len(learned[name]) > 500
        assert learned[name] <= scored[name]


def test_looks_see_only_what_had_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """No learner is handed a look, an outcome or a delay from after the moment of that look."""
    walk = Learner.walk

    def spy(self: Learner, seen: Observations, batch: Batch, place: int, may: Any, hear: bool) -> None:
        assert bool((seen.delay <= seen.at - seen.shown_at).all())
        mine = (seen.schedule == place) & seen.learn
        assert bool((seen.first_at[mine] <= seen.at[mine]).all())
        assert all(age >= 0 for _, _, age in seen.signals)
        walk(self, seen, batch, place, may, hear)

    monkeypatch.setattr(Learner, "walk", spy)
    backtest("log", one(EVENTS[:2000]), SETTINGS)
