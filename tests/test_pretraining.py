"""The protocol of the papers: pre-training, a gap, predict then train; and the two rows every method is held against."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from labelstore.due import Target
from labelstore.ledger import Hour
from labelstore.observations import Look, Observations
from labelstore.tables import impressions, looks, predictions
from learner.methods import METHODS
from learner.names import LIVE
from strategies import DAY, HOUR, T0
from stream.backtest import Result, backtest
from stream.comparison import _improvement, compare
from stream.hindsight import converted
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import ListSource
from stream.workspace import opened
from test_loop import EVENTS, Interrupted, one, run, shop, told

pytestmark = pytest.mark.usefixtures("few_buckets")
PRETRAIN = Settings(methods=tuple(METHODS), window=2 * DAY, wait=5 * HOUR, pretrain=2 * DAY, keep=400 * DAY)
FEW = PRETRAIN.model_copy(update={"methods": ("oracle", "fnw", "bidefuse", "hybrid")})
UNTIL, STREAM = T0 + 2 * DAY, T0 + 4 * DAY


@pytest.fixture(scope="module")
def whole() -> Result:
    return run(one(EVENTS), PRETRAIN)


def labels(events: list[dict[str, Any]]) -> dict[str, int]:
    """The final label of each impression, by loops."""
    shown = {event["impression_id"]: event["at"] for event in events if event["type"] == "impression"}
    back = {event["conversion_id"]: event["at"] for event in events if event["type"] == "adjustment"}
    found = dict.fromkeys(shown, 0)
    for event in events:
        if event["type"] == "conversion":
            at, close = event["at"], shown[event["impression_id"]] + 2 * DAY
            if at <= close and back.get(event["event_id"], close + 1) > close:
                found[event["impression_id"]] = 1
    return found


def test_the_first_pass_finds_the_final_labels() -> None:
    """Its impressions are those that a naive join calls converted, and the source stands at its beginning again."""
    source = one(EVENTS)
    found = converted(source, FEW, 100, lambda read: None)
    assert len(source.poll(10)) == 10
    expected = labels(EVENTS)
    last = EVENTS[-1]["at"]
    settled = {e["impression_id"] for e in EVENTS if e["type"] == "impression" and e["at"] + 2 * DAY <= last}
    assert {name for name, _ in found} & settled == {name for name, label in expected.items() if label} & settled
    assert len(settled) > 1000


def test_both_passes_know_the_same_duplicates() -> None:
    """An impression that is sent again after ``keep``: the first pass keeps for as long as the one that follows."""
    again = [event | {"at": event["at"] + 100 * HOUR} for event in EVENTS[:3] if event["type"] == "impression"]
    events = sorted(EVENTS + again, key=lambda event: event["at"])
    long, short = (FEW.model_copy(update={"keep": keep}) for keep in (4 * DAY, 3 * DAY))
    assert long.kept == short.kept == 4 * DAY
    found = [converted(one(events), settings, 100, lambda read: None) for settings in (long, short)]
    assert found[0] == found[1]


def test_who_learns_what() -> None:
    """`pretrained` learns impressions of the pre-training once, settled; the others those that came later, and of those
    before the gap what is seen again. Only impressions of the stream are scored, and `oracle` has their final labels."""
    hindsight = converted(one(EVENTS), PRETRAIN, 5000, lambda read: None)
    with opened(None, PRETRAIN) as (store, checkpoints):
        loop = Loop(one(EVENTS), PRETRAIN, store, checkpoints, hindsight=hindsight)
        loop.run()
        connection = store.connection
        query = select(looks.c.learner, looks.c.look, looks.c.at, looks.c.label, impressions.c.at, impressions.c.id)
        rows = connection.execute(query.join_from(looks, impressions, looks.c.impression == impressions.c.seq)).all()
        scored = connection.execute(
            select(impressions.c.at).join_from(predictions, impressions, predictions.c.impression == impressions.c.seq)
        ).scalars()
        assert min(scored) >= STREAM
    names = ("pretrained", *METHODS)
    final = labels(EVENTS)
    seen = dict.fromkeys(names, 0)
    for learner, look, at, label, shown, name in rows:
        seen[names[learner]] += 1
        if names[learner] == "pretrained":
            assert shown < UNTIL
            assert at == shown + 2 * DAY
            assert label == final[name]
        else:
            assert at >= UNTIL
            assert shown >= UNTIL or look != Look.FIRST
        if names[learner] == "oracle":
            assert at == shown
            assert label == final[name] or shown + 2 * DAY > EVENTS[-1]["at"]
    before = sum(1 for e in EVENTS if e["type"] == "impression" and e["at"] < UNTIL)
    assert seen["pretrained"] == before  # also the last ones, fewer than a batch
    assert min(seen.values()) >= 256


def test_the_gap_is_looked_at_by_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the window: the looks of a day at most are held at once; they are those of the whole gap."""
    asked: list[int] = []
    due = Target.due

    def heard(self: Target, start: int, stop: int) -> Iterator[Observations]:
        asked.append(stop - start)
        return due(self, start, stop)

    monkeypatch.setattr(Target, "due", heard)
    with opened(None, FEW) as (store, checkpoints):
        loop = Loop(one(EVENTS), FEW, store, checkpoints)
        loop.run()
        assert asked.count(DAY) >= 2
        assert max(asked) == DAY
        days = list(loop.target.due_by_days(UNTIL, STREAM))
        whole = list(due(loop.target, UNTIL, STREAM))
    for column in ("at", "impression", "look", "schedule", "label"):
        one_by_one, at_once = (np.concatenate([getattr(page, column) for page in pages]) for pages in (days, whole))
        np.testing.assert_array_equal(one_by_one, at_once)


def test_all_start_from_the_same_weights() -> None:
    """Where nothing is shown or bought after the pre-training, every learner has its weights: of those with one head at the
    base rate, and no looks that come without a conversion."""
    until = [event for event in EVENTS if event["at"] < UNTIL]
    end = {"type": "item", "item_id": "end", "at": STREAM + HOUR}
    methods = run(one([*until, end]), PRETRAIN).summary["methods"]
    plain = ["pretrained"]
    for name, method in METHODS.items():
        later = method.looks(5.0, 48.0)
        if method.starts(0.05, 5.0, 48.0) == (0.05,) and not later.ages and not later.confirm:
            plain.append(name)
    assert len(plain) > 10
    assert len({methods[name]["digest"] for name in plain}) == 1
    assert methods["pretrained"]["looks"] > 300


def test_pretrained_stays_as_it_is(whole: Result) -> None:
    """After the pre-training `pretrained` never changes; every method does."""
    until = [event for event in EVENTS if event["at"] < STREAM + 3 * HOUR]
    start = run(one(until), PRETRAIN).summary["methods"]["pretrained"]["digest"]
    digests = {name: told["digest"] for name, told in whole.summary["methods"].items()}
    assert digests.pop("pretrained") == start
    assert start not in digests.values()


def test_frozen_auxiliaries_stay_as_they_are() -> None:
    """With `frozen` auxiliary models hear nothing after the pre-training; without it they do, and the methods differ."""
    methods = ("pq_signals", "esdfm", "ulc", "gdfm")
    digests = {}
    for frozen in (True, False):
        settings = Settings(**PRETRAIN.model_dump() | {"methods": methods, "frozen": frozen})
        with opened(None, settings) as (store, checkpoints):
            loop = Loop(one(EVENTS), settings, store, checkpoints)
            begin = loop._begin_stream
            before: dict[str, Any] = {}

            def remember(loop: Loop = loop, begin: Any = begin, before: dict[str, Any] = before) -> None:
                begin()
                before.update({learner.name: auxiliaries(learner.trainer) for learner in loop.learners})

            loop._begin_stream = remember  # type: ignore[method-assign]
            loop.run()
            after = {learner.name: auxiliaries(learner.trainer) for learner in loop.learners}
            for name in methods:
                assert before[name]
                assert (before[name] == after[name]) == frozen
            digests[frozen] = [learner.trainer.digest() for learner in loop.learners[1:]]
    assert not set(digests[True]) & set(digests[False])


def auxiliaries(trainer: Any) -> dict[str, list[Any]]:
    """Every tensor of a learner's auxiliary models, as lists."""
    return {
        f"{name}.{field}": value.tolist()
        for name, state in trainer.auxiliaries.items()
        for field, value in state._asdict().items()
    }


def test_nobody_else_sees_the_future(whole: Result) -> None:
    """With and without `oracle` beside them, all other learners learn the same bytes."""
    others = run(one(EVENTS), PRETRAIN.model_copy(update={"methods": LIVE})).summary["methods"]
    for name in others:
        assert others[name]["digest"] == whole.summary["methods"][name]["digest"]
        assert others[name]["settled"] == whole.summary["methods"][name]["settled"]


@pytest.mark.parametrize("poll", [7, 500])
def test_polls_and_interruptions_change_nothing(tmp_path: Path, poll: int) -> None:
    """The protocol keeps the promise of the same bytes."""
    expected = told(run(one(EVENTS), FEW))
    assert told(run(one(EVENTS), FEW, poll=poll)) == expected
    for polls in (4, 12):
        url = f"sqlite:///{tmp_path}/{polls}.db"
        source = Interrupted({("events", 0): [record.value for record in one(EVENTS).poll(10**6)]})
        source.polls = polls
        with pytest.raises(KeyboardInterrupt):
            run(source, FEW, store=url, poll=100, every=300)
        assert told(run(one(EVENTS), FEW, store=url, poll=100, every=300)) == expected


def test_features_of_the_gap_get_their_places_as_they_pass() -> None:
    """A feature first met in the gap, and one first met later, have the same places however the log was read."""
    events = []
    for event in EVENTS:
        more = {"gap": "x"} if STREAM - 4 * HOUR < event["at"] < STREAM else {}
        more = {"new": "y"} if event["at"] >= STREAM + 6 * HOUR else more
        events.append(event | {"features": event["features"] | more} if event["type"] == "impression" else event)
    settings = PRETRAIN.model_copy(update={"methods": ("pq", "settled")})
    assert told(run(one(events), settings, poll=20)) == told(run(one(events), settings))


def test_improvement_and_excess() -> None:
    """Excess and RI are what their formulas say, and stand where oracle and pretrained can be told apart."""
    methods = run(one(shop(9000, seed=5, days=12)), FEW).summary["methods"]
    loss = {name: told["settled"]["log_loss"] for name, told in methods.items()}
    low, _ = methods["pretrained"]["interval"]["excess_log_loss"]
    for name, told_ in methods.items():
        assert told_["excess_log_loss"] == pytest.approx(loss[name] - loss["oracle"])
        if low > 0:
            room = loss["oracle"] - loss["pretrained"]
            assert told_["ri"]["log_loss"] == pytest.approx((loss[name] - loss["pretrained"]) / room)
        else:
            assert told_["ri"] == {"auc": None, "log_loss": None}
    assert methods["oracle"]["excess_log_loss"] == 0


def test_no_improvement_where_the_oracle_is_behind() -> None:
    """RI of a metric in which `oracle` is behind `pretrained` would count the better for the worse."""
    figures = {"pretrained": (0.59, 0.40), "oracle": (0.58, 0.30), "fnw": (0.62, 0.28)}
    methods = {name: {"settled": {"auc": auc, "log_loss": loss}} for name, (auc, loss) in figures.items()}
    assert _improvement(methods, "fnw", "oracle", [0.05, 0.15]) == {"auc": None, "log_loss": pytest.approx(1.2)}
    assert str(_improvement(methods, "pretrained", "oracle", [0.05, 0.15])["log_loss"]) == "0.0"


def test_the_bootstrap_covers() -> None:
    """Over 200 draws of two methods with a known difference, the 95 % interval holds it about as often as it says."""
    from labelstore.ledger import Hour

    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        shock = generator.normal(0, 0.2, 240)  # both methods suffer alike
        one_ = {h: Hour(100, 10, 10.0, 100 * (0.3 + shock[h] + generator.normal(0, 0.02))) for h in range(240)}
        other = {h: Hour(100, 10, 10.0, 100 * (0.31 + shock[h] + generator.normal(0, 0.02))) for h in range(240)}
        methods: dict[str, Any] = {
            name: {"settled": {"rows": 24000, "log_loss": sum(h.loss_sum for h in hours.values()) / 24000}}
            for name, hours in (("one", one_), ("other", other))
        }
        made = compare(methods, [{"one": one_, "other": other}])
        low, high = methods["other"]["interval"]["behind_best"]
        held += low <= 0.01 <= high
        assert made["blocks"] == 30
    assert 180 <= held <= 199


def test_a_short_log_has_no_interval() -> None:
    """With few blocks no interval is pretended."""
    methods = run(one(shop(600, seed=1, days=0.2))).summary["methods"]
    assert all(told["interval"]["log_loss"] is None for told in methods.values())


def test_seeds_are_put_together() -> None:
    """Several seeds: means of their figures, the figures of each, and one interval over all."""
    from stream.backtest import several

    settings = Settings(methods=("pq", "settled"), window=2 * DAY, wait=5 * HOUR)
    events = shop(1500, seed=1)
    each = [run(one(events), settings.model_copy(update={"seed": seed})).summary for seed in range(3)]
    found = several(3, "log", one(events), settings).summary
    for name in settings.methods:
        losses = [summary["methods"][name]["settled"]["log_loss"] for summary in each]
        assert found["methods"][name]["settled"]["log_loss"] == pytest.approx(np.mean(losses))
        assert [told["log_loss"] for told in found["methods"][name]["seeds"]] == losses
        assert found["methods"][name]["settled"]["rows"] == each[0]["methods"][name]["settled"]["rows"]
    assert found["intervals"]["seeds"] == 3


def test_a_source_of_lists_is_read_again() -> None:
    """A first pass sets the source back; what follows reads everything."""
    result = backtest("log", ListSource({("events", 0): [r.value for r in one(EVENTS).poll(10**6)]}), FEW)
    assert result.summary["events"]["read"] == len(EVENTS)


def test_where_nothing_has_converted_there_is_no_pcoc() -> None:
    """Neither the figure nor an interval; the log loss has one."""
    hours = {hour: Hour(50, 0, 5.0, 6.0) for hour in range(40)}
    methods: dict[str, Any] = {"fnw": {"settled": {"rows": 2000, "log_loss": 0.12}}}
    compare(methods, [{"fnw": hours}])
    assert methods["fnw"]["interval"]["pcoc"] is None
    assert methods["fnw"]["interval"]["log_loss"] == pytest.approx([0.12, 0.12])
