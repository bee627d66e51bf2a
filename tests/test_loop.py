"""The whole line: the same log gives the same bytes, however it was cut, interleaved or interrupted; nothing is lost."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from labelstore.tables import dead_letters, impressions, predictions
from learner.names import LIVE
from strategies import DAY, HOUR, T0, lines, logs
from stream.backtest import Result, backtest
from stream.files import FileSource
from stream.loop import Loop
from stream.pace import Pace
from stream.settings import Settings
from stream.sources import ListSource, Partition, Record
from stream.workspace import opened

pytestmark = pytest.mark.usefixtures("few_buckets")
SOME = ("settled", "fnw", "dfm", "fsiw", "defer", "gdfm", "pq_signals", "hybrid")  # one of each schedule
SHORT = Settings(methods=SOME, window=2 * DAY, wait=5 * HOUR)


def shop(rows: int, seed: int, days: float = 8) -> list[dict[str, Any]]:
    """A log in order of time: impressions with a feature that matters, carts and purchases, some of them taken back."""
    generator = np.random.default_rng(seed)
    events: list[dict[str, Any]] = []
    for n, at in enumerate(np.sort(generator.integers(0, int(days * DAY), rows)).tolist()):
        good = bool(generator.random() < 0.3)
        features = {"page": "good" if good else "bad", "price": float(generator.lognormal(3, 1)), "user": f"u{n % 50}"}
        events.append({"type": "impression", "impression_id": f"i{n}", "at": T0 + at, "features": features})
        buys = generator.random() < (0.3 if good else 0.05)
        if generator.random() < (0.6 if buys else 0.05):
            cart = T0 + at + int(generator.exponential(HOUR))
            events.append({"type": "signal", "event_id": f"s{n}", "kind": "cart", "at": cart, "impression_id": f"i{n}"})
        if buys:
            bought = T0 + at + int(generator.exponential(12 * HOUR))
            event = {"type": "conversion", "event_id": f"c{n}", "kind": "purchase", "at": bought, "value": 10.0}
            events.append({**event, "impression_id": f"i{n}"})
            if generator.random() < 0.05:
                back = {"type": "adjustment", "event_id": f"a{n}", "conversion_id": f"c{n}", "action": "retract"}
                events.append({**back, "at": bought + HOUR})
    return sorted(events, key=lambda event: event["at"])


def run(source: Any, settings: Settings = SHORT, **how: Any) -> Result:
    return backtest("log", source, settings, **how)


def one(events: Sequence[dict[str, Any]]) -> ListSource:
    return ListSource({("events", 0): lines(list(events))})


def told(result: Result) -> dict[str, Any]:
    """All of a result but the time it took."""
    return {key: value for key, value in result.summary.items() if not key.endswith("second") and key != "seconds"}


EVENTS = shop(1500, seed=1)


@pytest.fixture(scope="module")
def whole() -> Result:
    """The log in one go."""
    return run(one(EVENTS))


@pytest.mark.parametrize("poll", [1, 7, 5000])
def test_polls_change_nothing(whole: Result, poll: int) -> None:
    """The same figures and the same weights, to the last bit, for polls of 1, 7 and 5000 records."""
    chosen = EVENTS if poll > 1 else EVENTS[:400]
    expected = whole if poll > 1 else run(one(chosen))
    found = run(one(chosen), poll=poll)
    assert told(found) == told(expected)
    assert found.hours == expected.hours
    assert found.deciles == expected.deciles


def test_commits_change_nothing(whole: Result) -> None:
    """A checkpoint after every few records leaves figures and weights as they are."""
    assert told(run(one(EVENTS), poll=100, every=100)) == told(whole)


@pytest.fixture(scope="module")
def together() -> Result:
    """Every method, in one go."""
    return run(one(EVENTS), SHORT.model_copy(update={"methods": LIVE}))


@pytest.mark.parametrize("method", LIVE)
def test_a_learner_does_not_notice_the_others(together: Result, method: str) -> None:
    """Alone, a method learns the same bytes as among all the others."""
    alone = run(one(EVENTS), SHORT.model_copy(update={"methods": (method,)}))
    assert own(alone.summary["methods"][method]) == own(together.summary["methods"][method])


def own(told: dict[str, Any]) -> dict[str, Any]:
    """What is told of a method, without what holds it against others."""
    mine = {name: value for name, value in told.items() if name not in ("behind_best", "excess_log_loss", "ri")}
    return mine | {"interval": {name: told["interval"][name] for name in ("log_loss", "pcoc")}}


def split(events: Sequence[dict[str, Any]], parts: int) -> dict[tuple[str, int], list[bytes]]:
    """The log spread over partitions by customer, each in its own order."""
    found: dict[tuple[str, int], list[bytes]] = {("events", n): [] for n in range(parts)}
    for event in events:
        name = event.get("impression_id") or event.get("conversion_id") or event["event_id"]
        found[("events", int(name[1:]) % parts)].append(json.dumps(event).encode())
    return found


class Shuffled(ListSource):
    """Reads partitions in an order of its own, a few records at a time."""

    def __init__(self, log: dict[tuple[str, int], list[bytes]], seed: int) -> None:
        super().__init__(log)
        self._random = np.random.default_rng(seed)

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        ready = [p for p in self.partitions() if p not in paused and p not in self.exhausted()]
        if not ready:
            return []
        chosen = ready[int(self._random.integers(len(ready)))]
        others = frozenset(p for p in self.partitions() if p != chosen)
        return super().poll(int(self._random.integers(1, 200)), others)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_reading_partitions_changes_nothing(whole: Result, seed: int) -> None:
    """Eight partitions, read in any order, give what one partition gives: here nothing is late."""
    assert told(run(Shuffled(split(EVENTS, 8), seed))) == told(whole)


def test_a_partition_that_begins_later_hides_nothing() -> None:
    """Partitions that begin days apart: whichever is read first, no look is lost."""
    log = {
        ("events", 0): lines([event for event in EVENTS if event["at"] >= T0 + 4 * DAY]),
        ("events", 1): lines([event for event in EVENTS if event["at"] < T0 + 4 * DAY]),
    }
    expected = told(run(ListSource(log)))
    assert expected["methods"]["settled"]["settled"]["rows"] > 1000
    for seed in range(3):
        assert told(run(Shuffled(log, seed))) == expected
    assert told(run(ListSource(log), poll=7)) == expected


@pytest.mark.parametrize("ahead", [1, 40])
def test_a_pause_loses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: Result, ahead: int) -> None:
    """Where much waits, only the slowest partitions are read; one that ends then does not end the log."""
    monkeypatch.setattr("stream.reading.AHEAD", ahead)
    (tmp_path / "events").mkdir()
    for (_, partition), records in split(EVENTS, 8).items():
        some = records if partition % 2 else records[:60]
        (tmp_path / "events" / f"{partition}.jsonl").write_bytes(b"".join(line + b"\n" for line in some))
    paused = run(FileSource(tmp_path), poll=30)
    monkeypatch.setattr("stream.reading.AHEAD", 10**9)
    assert told(paused) == told(run(FileSource(tmp_path)))
    assert told(run(ListSource(split(EVENTS, 8)), poll=30)) == told(whole)


@pytest.mark.parametrize("seed", range(2))
def test_disorder_within_partitions_is_the_same_disorder(seed: int) -> None:
    """Records out of order in their partitions are late by their own partition's clock, whoever was read first."""
    generator = np.random.default_rng(seed)
    mixed = [EVENTS[n] for n in np.argsort(np.arange(len(EVENTS)) + generator.normal(0, 20, len(EVENTS)))]
    log = split(mixed, 4)
    found = run(Shuffled(log, seed))
    assert told(found) == told(run(Shuffled(log, seed + 10)))
    assert found.summary["events"]["late"] > 100


class Interrupted(ListSource):
    """Stops with an error after so many polls."""

    polls = 0

    def poll(self, limit: int, paused: frozenset[Partition] = frozenset()) -> list[Record]:
        self.polls -= 1
        if self.polls < 0:
            raise KeyboardInterrupt
        return super().poll(limit, paused)


@pytest.mark.parametrize("polls", [1, 3, 11, 18])
def test_an_interrupted_run_goes_on(tmp_path: Path, whole: Result, polls: int) -> None:
    """Stopped anywhere, a run that goes on from its store ends with the same figures and weights."""
    url = f"sqlite:///{tmp_path}/store.db"
    source = Interrupted({("events", 0): lines(EVENTS)})
    source.polls = polls
    with pytest.raises(KeyboardInterrupt):
        run(source, store=url, poll=100, every=300)
    assert told(run(one(EVENTS), store=url, poll=100, every=300)) == told(whole)


def test_a_finished_run_is_told_again(tmp_path: Path, whole: Result) -> None:
    """Replaying a log into the store that has it reads nothing again and tells the same."""
    url = f"sqlite:///{tmp_path}/store.db"
    run(one(EVENTS), store=url)
    assert told(run(one(EVENTS), store=url)) == told(whole)


def test_a_log_may_grow(tmp_path: Path) -> None:
    """Records appended to a finished log are read, and everything is accounted for."""
    url = f"sqlite:///{tmp_path}/store.db"
    run(one(EVENTS[:900]), store=url)
    events = run(one(EVENTS), store=url).summary["events"]
    assert events["read"] == len(EVENTS)


def test_late_records_after_the_end_pass_too(tmp_path: Path) -> None:
    """A finished log that grows by late records only: they pass with the next run, each once."""
    url = f"sqlite:///{tmp_path}/store.db"
    run(one(EVENTS), store=url)
    late = [{"type": "impression", "impression_id": f"late{n}", "at": T0 + n, "features": {}} for n in range(3)]
    for n in range(1, 4):
        events = run(one([*EVENTS, *late[:n]]), store=url).summary["events"]
        assert events["read"] == len(EVENTS) + n == accounted(events)
        assert events["impressions"] == 1500 + n


def accounted(events: dict[str, int]) -> int:
    names = ("impressions", "signals", "conversions", "adjustments", "items", "dead_letters", "duplicates", "forgotten")
    return sum(events[name] for name in names)


@settings(max_examples=12)
@given(logs, st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 9))
def test_every_record_is_accounted_for(events: list[dict[str, Any]], noise: list[bytes], poll: int) -> None:
    """Whatever is in a log, what was read is what passed, was repeated, or is a dead letter."""
    result = run(ListSource({("events", 0): [*lines(events), *noise]}), poll=poll)
    assert result.summary["events"]["read"] == len(events) + len(noise) == accounted(result.summary["events"])


def test_bad_records_stop_nothing_and_are_kept(whole: Result) -> None:
    """Broken lines between good ones change neither weights nor figures, and wait in the store with their origin."""
    broken = [b"{", b"[]", b'{"type":"impression","impression_id":"x","at":"now"}', b"\xff\xfe", b'{"type":"?"}']
    log = lines(EVENTS)
    for n, line in enumerate(broken):
        log.insert(100 * n + 50, line)
    with opened(None, SHORT) as (store, checkpoints):
        loop = Loop(ListSource({("events", 0): log}), SHORT, store, checkpoints)
        loop.run()
        kept = store.connection.execute(
            select(dead_letters.c.offset, dead_letters.c.value, dead_letters.c.reason)
        ).all()
        digests = {learner.name: learner.trainer.digest() for learner in loop.learners}
    assert [(row.offset, row.value) for row in kept] == [(100 * n + 50, line) for n, line in enumerate(broken)]
    assert all(row.reason for row in kept)
    assert digests == {name: told["digest"] for name, told in whole.summary["methods"].items()}


def test_every_impression_is_scored_once_and_before_it_is_learned() -> None:
    """Each impression has one score per method, given by a model with no more steps than its own first look."""
    with opened(None, SHORT) as (store, checkpoints):
        loop = Loop(one(EVENTS), SHORT, store, checkpoints)
        loop.run()
        shown = store.connection.execute(select(func.count()).select_from(impressions)).scalar_one()
        scores = store.connection.execute(select(predictions.c.learner, func.count()).group_by(predictions.c.learner))
        assert dict(tuple(row) for row in scores) == dict.fromkeys(range(len(SOME)), shown)


def test_the_future_cannot_be_seen() -> None:
    """Scores of impressions before a moment do not change when everything after it is cut away."""
    cut = 1200
    until = EVENTS[cut]["at"]

    def scores(events: Sequence[dict[str, Any]]) -> dict[tuple[str, int], float]:
        forever = SHORT.model_copy(update={"keep": 400 * DAY})
        with opened(None, forever) as (store, checkpoints):
            Loop(one(events), forever, store, checkpoints).run()
            query = select(impressions.c.id, predictions.c.learner, predictions.c.score).join_from(
                impressions, predictions, impressions.c.seq == predictions.c.impression
            )
            rows = store.connection.execute(query.where(impressions.c.at < until))
            return {(name, learner): score for name, learner, score in rows}

    assert scores(EVENTS[:cut]) == scores(EVENTS)


def test_learning_helps(whole: Result) -> None:
    """On a log with a feature that decides, settled rows are ranked far better than by chance, and about calibrated."""
    result = run(one(shop(12000, seed=2, days=12)), SHORT.model_copy(update={"methods": ("pq_signals",)}))
    settled = result.summary["methods"]["pq_signals"]["settled"]
    assert settled["auc"] > 0.6
    assert 0.7 < settled["pcoc"] < 1.4


def test_retention_changes_no_weights() -> None:
    """Deleting what is past the horizon leaves looks, weights and settled figures as they are."""
    week = shop(1200, seed=3, days=14)
    short = run(one(week), SHORT.model_copy(update={"keep": 3 * DAY}))
    long = run(one(week), SHORT.model_copy(update={"keep": 400 * DAY}))
    for name in SOME:
        assert short.summary["methods"][name] == long.summary["methods"][name]


def test_empty_days_are_skipped() -> None:
    """A stray record decades away costs no pass over every day in between, and leaves the rest as it was."""
    stray = {"type": "item", "item_id": "x", "at": T0 + 20_000 * DAY}
    result = run(one([*EVENTS, stray]))
    assert result.summary["events"]["items"] == 1
    assert result.summary["methods"]["pq_signals"]["tentative"]["share_final"] == 1.0
    assert result.summary["seconds"] < 60


def test_real_rows_twice(data: Path, tmp_path: Path) -> None:
    """A part of the Taobao log gives the same digests twice, and with small polls."""
    from stream.convert import taobao

    taobao.convert(data / "events" / "taobao_dev_timesorted.csv.gz", tmp_path / "log", advance=lambda done, total: None)
    head = (tmp_path / "log" / "events" / "0.jsonl").read_bytes().splitlines()[:6000]
    (tmp_path / "head.jsonl").write_bytes(b"\n".join(head) + b"\n")
    settings = Settings(methods=SOME, window=6 * HOUR, wait=HOUR // 2)
    results = [run(FileSource(tmp_path / "head.jsonl"), settings, poll=poll) for poll in (5000, 5000, 60)]
    assert told(results[0]) == told(results[1]) == told(results[2])
    assert results[0].summary["methods"]["pq_signals"]["settled"]["rows"] > 3000


def test_what_passes_in_silence_is_committed() -> None:
    """When it is time: records, a raised clock, or event time that has passed; and not where nothing has happened."""
    pace = Pace(every=100, every_s=0)
    pace.committed(5)
    assert not pace.due(unsaved=False, passed=5)
    assert pace.due(unsaved=False, passed=6)
    assert pace.due(unsaved=True, passed=5)
    pace.turn(records=1)
    assert pace.due(unsaved=False, passed=5)
    pace.committed(6)
    assert not pace.due(unsaved=False, passed=6)
    slow = Pace(every=100, every_s=60)
    slow.committed(5)
    assert not slow.due(unsaved=True, passed=6)
