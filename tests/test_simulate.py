"""The simulated log: known p, delays and signals as stated; seeded; readable by everything else."""

import csv
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stream.check import check
from stream.files import FileSource
from stream.simulate.scenario import DAY, HOUR, MINUTE, SCENARIOS, START, Scenario
from stream.simulate.world import cut_exponential, simulate, taken_back
from stream.simulate.write import write
from stream.sources import SourceError
from stream.truth import Truth, beside

MANY = Scenario(impressions=300_000)
WORLD = simulate(MANY)


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def near(found: float, expected: float, rows: float) -> bool:
    """A share of so many rows lies within four standard errors."""
    return bool(abs(found - expected) < 4 * (expected * (1 - expected) / rows) ** 0.5)


def test_the_labels_have_the_known_probability() -> None:
    """Overall and in every tenth of p, the share of label 1 is p; the rate is the one asked for."""
    assert near(float(WORLD.label.mean()), float(WORLD.p.mean()), len(WORLD.p))
    group = np.searchsorted(np.quantile(WORLD.p, np.arange(0.1, 1, 0.1)), WORLD.p)
    for g in range(10):
        mine = group == g
        assert near(float(WORLD.label[mine].mean()), float(WORLD.p[mine].mean()), mine.sum())
    assert WORLD.converts.mean() == pytest.approx(0.1, abs=0.003)
    assert 0.001 < WORLD.p.min() < 0.02 < 0.3 < WORLD.p.max()


def test_delays_are_those_of_criteo() -> None:
    """Without the shift of segments, 35 % within the hour and half within a day of a window of 30 days; all inside it."""
    world = simulate(MANY.model_copy(update={"window": 30 * DAY, "rate": 0.5}))
    usual = world.delay[world.converts & (world.segment == 1)]
    assert float((usual < HOUR).mean()) == pytest.approx(0.35, abs=0.015)
    assert float((usual < DAY).mean()) == pytest.approx(0.50, abs=0.015)
    assert usual.max() < 30 * DAY
    fast, slow = (world.delay[world.converts & (world.segment == s)] for s in (0, 2))
    assert (fast < HOUR).mean() > 0.45 > 0.25 > (slow < HOUR).mean()


def test_the_quantiles_of_a_cut_exponential() -> None:
    """Its distribution is (1 - exp(-h / m)) / (1 - exp(-w / m))."""
    u = np.linspace(0, 0.999, 50)
    h = cut_exponential(u, 3.0, 5.0)
    assert np.allclose(np.expm1(-h / 3) / np.expm1(-5 / 3), u)


def test_retractions_are_in_p() -> None:
    """With half of the purchases taken back, the label's share still is p."""
    world = simulate(MANY.model_copy(update={"retractions": 0.5, "rate": 0.3}))
    assert near(float(world.label.mean()), float(world.p.mean()), len(world.p))
    assert float(world.label.mean()) < 0.9 * float(world.converts.mean())
    assert taken_back(15 * MINUTE, 1000 * DAY) == pytest.approx(1.0)


def test_signals_come_as_stated() -> None:
    """Shares of clicks and carts of buyers and others, within minutes, and never after the purchase."""
    buys, cart, click = WORLD.converts, WORLD.cart >= 0, WORLD.click >= 0
    assert near(float(cart[~buys].mean()), 0.045, (~buys).sum())
    assert near(float(click[~buys].mean()), 0.25, (~buys).sum())
    assert near(float(click[buys].mean()), 0.9, buys.sum())
    first, last = (cart[buys & (WORLD.part == part)].mean() for part in (0, 2))
    assert (first, last) == (pytest.approx(0.8, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert (WORLD.cart[buys & cart] <= WORLD.delay[buys & cart]).all()
    assert np.median(WORLD.cart[cart & ~buys]) == pytest.approx(np.log(2) * 10 * MINUTE, rel=0.05)


def test_traffic_has_days_and_weeks() -> None:
    """More impressions in the evening than at three, and on Saturdays than on Tuesdays; sorted, inside the days."""
    hour, day = (WORLD.at - START) // HOUR % 24, (WORLD.at - START) // DAY % 7
    assert (hour == 15).sum() > 2 * (hour == 3).sum()
    whole = WORLD.at < START + 28 * DAY
    assert (day[whole] == 5).sum() > 1.15 * (day[whole] == 1).sum()
    assert (np.diff(WORLD.at) >= 0).all()
    assert START <= WORLD.at[0] < WORLD.at[-1] < START + 30 * DAY


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_is_its_drift(name: str) -> None:
    """Before the change all scenarios of a rate are one world; after it each differs in what it names, and only there."""
    s = MANY.model_copy(update=SCENARIOS[name])
    base = MANY.model_copy(update={"rate": s.rate})
    calm, world = simulate(base), simulate(s)
    after = world.at >= s.changes_at
    for column in ("p", "converts", "delay", "cart", "campaign"):
        assert (getattr(world, column)[~after] == getattr(calm, column)[~after]).all(), column

    def slow(w: Any) -> float:
        return float(w.delay[w.converts & after].mean())

    rises = float(world.p[after].mean() / calm.p[after].mean())
    carts = float((world.cart[after & ~world.converts] >= 0).mean() / (calm.cart[after & ~calm.converts] >= 0).mean())
    assert (rises > 1.4) == (s.conversion_drift > 0)
    assert (slow(world) > 1.15 * slow(calm)) == (s.delay_drift > 0)
    assert carts == pytest.approx(s.signal_drift, rel=0.05)
    old = np.isin(world.campaign[after], np.unique(world.campaign[~after]))
    assert (old.mean() < 0.7) == (s.new_campaigns > 0)
    if name == "calm":
        assert (world.p == calm.p).all()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Equal knobs give equal files; another seed gives others; partitions hold the same records."""
    small = Scenario(impressions=2000)
    for name, s in (("a", small), ("b", small), ("c", small.model_copy(update={"seed": 1}))):
        write(s, tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    write(small.model_copy(update={"partitions": 7}), tmp_path / "d")
    lines = [
        sorted(line for file in (tmp_path / x / "events").iterdir() for line in file.read_text().splitlines())
        for x in "ad"
    ]
    assert lines[0] == lines[1]
    assert len(list((tmp_path / "d" / "events").iterdir())) == 7


def test_the_log_is_what_was_counted(tmp_path: Path) -> None:
    """What is written is what `belated validate` finds: every kind of mess, and no reference into nothing."""
    s = Scenario(impressions=20_000, partitions=4, late=0.05, duplicates=0.02, broken=0.002, gap="6h", retractions=0.1)  # type: ignore[arg-type]  # as people write it
    counts = write(s, tmp_path / "log")
    found = check(FileSource(tmp_path / "log"))
    for name in ("impressions", "signals", "conversions", "adjustments", "duplicates"):
        assert found.counts[name] == counts[name] > 0, name
    assert found.counts["dead_letters"] == counts["broken"] > 0
    assert found.counts["late"] > 0.02 * sum(counts.values())
    assert found.lateness > 5 * HOUR
    assert not found.lost
    assert counts["adjustments"] > 0.05 * counts["conversions"]


def test_users_stay_in_their_partition(tmp_path: Path) -> None:
    """All records of a user are in one partition."""
    write(Scenario(impressions=3000, partitions=5), tmp_path / "log")
    place: dict[str, set[str]] = {}
    for file in (tmp_path / "log" / "events").iterdir():
        for line in file.read_text().splitlines():
            if '"user_id"' in line and line.endswith("}"):
                place.setdefault(json.loads(line)["user_id"], set()).add(file.name)
    assert {len(files) for files in place.values()} == {1}


def test_the_truth_is_beside(tmp_path: Path) -> None:
    """truth.csv.gz has p, label and delay of every impression; the truth of another log is refused by name."""
    write(Scenario(impressions=5000), tmp_path / "log")
    with gzip.open(tmp_path / "log" / "truth.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    world = simulate(Scenario(impressions=5000))
    assert [row["impression_id"] for row in rows] == [f"i{n}" for n in range(5000)]
    assert np.allclose([float(row["p"]) for row in rows], world.p, rtol=1e-8)
    assert [int(row["label"]) for row in rows] == world.label.tolist()
    assert [row["delay_ms"] != "" for row in rows] == world.converts.tolist()
    truth = beside(tmp_path / "log")
    assert truth is not None
    assert np.allclose(truth.of(["i7", "i4999", "i0"]), world.p[[7, 4999, 0]], rtol=1e-8)
    with pytest.raises(SourceError, match="knows nothing of impression 'i5000'"):
        truth.of(["i1", "i5000"])
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(SourceError, match=r"other\.csv\.gz: not a truth file"):
        Truth(tmp_path / "other.csv.gz")
    for p in ("1.5", "nan", "-0.1"):
        (tmp_path / "other.csv.gz").write_bytes(gzip.compress(f"impression_id,p\ni1,{p}\n".encode()))
        with pytest.raises(SourceError, match=f"p is {p}, not between 0 and 1"):
            Truth(tmp_path / "other.csv.gz")
    assert beside(tmp_path) is None


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written over what is there."""
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="not empty"):
        write(Scenario(impressions=10), tmp_path)


@pytest.mark.parametrize(
    "knob",
    [
        {"rate": 0},
        {"impressions": 0},
        {"window": "x"},
        {"change": "31d"},
        {"colour": 1},
        {"delay_drift": float("nan")},
        {"signal_drift": float("inf")},
    ],
)
def test_knobs_that_make_no_sense(knob: dict[str, Any]) -> None:
    """A wrong knob is refused by name."""
    with pytest.raises(ValidationError, match=next(iter(knob))):
        Scenario(**knob)


@pytest.mark.parametrize("knobs", [{"newcomers": 0.1}, {"days": 300}, {"days": 400, "newcomers": 0.01}])
def test_new_campaigns_take_their_share_beside_newcomers(knobs: dict[str, Any]) -> None:
    """Also where newcomers would take all of the traffic, those of the change have what was asked for after it."""
    scenario = Scenario(impressions=40_000, new_campaigns=0.4, **knobs)
    found = simulate(scenario)
    wave = found.campaign >= found.campaign.max() - 7
    assert abs(wave[found.at >= scenario.changes_at].mean() - 0.4) < 0.02


def test_days_are_as_many_as_were_asked_for() -> None:
    """A part of an hour too."""
    at = simulate(Scenario(impressions=5_000, days=1.01)).at
    assert 1.005 < (at.max() - START) / DAY <= 1.01


def test_half_a_log_is_none(tmp_path: Path) -> None:
    """Interrupted when its first partitions are written, nothing has a name yet; the same again writes all of it."""
    scenario, folder = Scenario(impressions=500, partitions=3), tmp_path / "log"

    def told(done: int, total: int) -> None:
        if done == 5:
            assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".part"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(scenario, folder, told)
    assert not [file for file in folder.rglob("*") if file.is_file()]
    (folder / "events" / "7.jsonl.part").write_text("of one that was killed")
    write(scenario, folder)
    assert len(FileSource(folder).partitions()) == 3


def test_a_single_impression(tmp_path: Path) -> None:
    """The smallest world there is."""
    counts = write(Scenario(impressions=1, days=0.01), tmp_path / "log")
    assert counts["impressions"] == 1
