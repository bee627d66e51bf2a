"""The page: self-contained, safe, the same bytes, and honest when there is nothing to say."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from learner.names import LIVE
from strategies import DAY, HOUR, T0, lines
from stream.backtest import Result, backtest
from stream.charts import level_over_time, stroke
from stream.mapping import Topic
from stream.settings import Settings
from stream.sources import ListSource
from stream.terminal import behind
from stream.verdict import verdict
from test_loop import shop

pytest.importorskip("plotly", reason="needs the extra `report`: pip install 'belated[report]'")


def result(events: list[dict[str, Any]], log: str = "log", methods: tuple[str, ...] = tuple(LIVE)) -> Result:
    settings = Settings(methods=methods, window=2 * DAY, wait=5 * HOUR)
    return backtest(log, ListSource({("events", 0): [*lines(events), b"{"]}), settings)


@pytest.fixture(scope="module")
def full() -> Result:
    return result(shop(1500, seed=1))


def page(told: Result, folder: Path) -> str:
    from stream.report import write

    write(told, folder / "report.html")
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text()


def test_the_page_is_self_contained(full: Result, tmp_path: Path) -> None:
    """Nothing is loaded from anywhere: no src, no stylesheet, one script library inside."""
    text = page(full, tmp_path)
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""(src|href)\s*=""", outside)
    assert not re.search(r"<script[^>]+src", text)
    assert text.count('id="chart-') == 6


def test_the_same_result_gives_the_same_bytes(full: Result, tmp_path: Path) -> None:
    """Writing twice gives one text."""
    assert page(full, tmp_path) == page(full, tmp_path)


def test_no_two_methods_look_alike(full: Result) -> None:
    """There are more methods than colours that can be told apart."""
    assert len({tuple(stroke(full, name).values()) for name in full.summary["methods"]}) == len(LIVE) > 8


def test_words_of_the_log_are_escaped(tmp_path: Path) -> None:
    """Markup in a name does not become markup."""
    text = page(result(shop(50, seed=2), log="<script>alert(1)</script>", methods=("pq",)), tmp_path)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_table_says_what_the_json_says(full: Result, tmp_path: Path) -> None:
    """Log loss, AUC, looks and digest of every method are on the page."""
    text = page(full, tmp_path)
    for name, told in full.summary["methods"].items():
        assert name in text
        assert f"{told['settled']['log_loss']:.5f}" in text
        assert f"{told['settled']['auc']:.4f}" in text
        assert told["digest"][:12] in text
        assert f"<td>{behind(told) or '-'}</td>" in text


@pytest.mark.parametrize("events", [[], shop(30, seed=3, days=0.2)])
def test_a_log_that_has_not_settled_is_said_to_be_so(events: list[dict[str, Any]], tmp_path: Path) -> None:
    """Without settled rows the page stands and says what is missing."""
    text = page(result(events, methods=("pq_signals", "vanilla")), tmp_path)
    assert "No row is settled yet" in text
    assert "Nothing to draw: no label has settled." in text
    assert "no settled row has converted" not in text
    assert ("no impressions were read" in text) == (not events)


def test_a_log_without_a_conversion_is_said_to_be_so(tmp_path: Path) -> None:
    """The verdict claims no winner, calibration is not drawn over nothing, and bars without length have their counts."""
    from stream.charts import funnel

    told = result([e for e in shop(300, seed=2) if e["type"] != "conversion"], methods=("pq", "vanilla"))
    text = page(told, tmp_path)
    assert "No settled row has converted, so nothing was learned" in text
    assert "lowest settled log loss" not in text
    assert text.count("Nothing to draw: no settled row has converted.") == 2
    assert "has the lowest log loss" not in text
    (bars,) = funnel(told).figure.data
    assert set(bars.x) == {0}
    assert set(bars.textposition) == {"outside"}


def test_without_a_method_that_weighs_no_weights_are_awaited(tmp_path: Path) -> None:
    """The picture of the weights says that there will be none."""
    text = page(result(shop(300, seed=2), methods=("vanilla",)), tmp_path)
    assert "Nothing to draw: no method here weighs such rows." in text


def test_what_was_read_is_the_sum_that_the_page_says(tmp_path: Path) -> None:
    """The parts that the sentence names are rows of the table, and add up to the row of what was read."""
    foreign = Topic.model_validate({"type_field": "name", "kinds": {"seen": "item"}, "item_id": "i", "at": "t"})
    settings = Settings(methods=("pq",), window=2 * DAY, wait=5 * HOUR, mapping={"foreign": foreign})
    log = {("events", 0): [*lines(shop(50, seed=2)), b"{"], ("foreign", 0): [b'{"name": "scroll"}'] * 3}
    text = page(backtest("log", ListSource(log), settings), tmp_path)
    said = re.search(r"Read = ([a-z +]+) \(forgotten", text)
    rows = {name: int(n.replace(",", "")) for name, n in re.findall(r">([a-z ]+)</th><td>([\d,]+)</td>", text)}
    assert said
    assert sum(rows[name] for name in said[1].split(" + ")) == rows["read"] > rows["ignored"] == 3


def test_the_verdict_is_honest(full: Result) -> None:
    """The best is the one with the lowest loss; those whose interval holds 0 are named, or without intervals those within
    half a percent."""
    losses = {name: told["settled"]["log_loss"] for name, told in full.summary["methods"].items()}
    best = min(losses, key=lambda name: losses[name])
    said = verdict(full.summary)
    assert said.startswith(best)
    assert "has the lowest settled log loss" in said
    apart = {name: told["interval"]["behind_best"] for name, told in full.summary["methods"].items() if name != best}
    assert all(apart.values())
    near = [name for name, (low, _) in apart.items() if low <= 0]
    assert said.endswith(f" {', '.join(near)} cannot be told from it (the interval holds 0)." if near else "higher.")
    for told in (methods := copy.deepcopy(full.summary["methods"])).values():
        told["interval"]["behind_best"] = None
    said = verdict(full.summary | {"methods": methods})
    near = [name for name, loss in losses.items() if name != best and loss / losses[best] < 1.005]
    assert said.endswith(f" {', '.join(near)} cannot be told from it (under 0.5 %)." if near else "higher.")


def test_what_could_be_gained_is_in_the_table(tmp_path: Path) -> None:
    """With a pre-training and an oracle the table has the log loss above it; what no row has is no column."""
    settings = Settings(methods=("oracle", "pq"), window=2 * DAY, wait=5 * HOUR, pretrain=DAY)
    told = backtest("log", ListSource({("events", 0): lines(shop(1500, seed=1))}), settings)
    text = page(told, tmp_path)
    assert ">log loss over oracle</th>" in text
    assert ">PCOC to true p</th>" not in text
    assert "lowest settled log loss, oracle aside" in text


def test_drifts_are_told(tmp_path: Path) -> None:
    """A log in which most purchases stop one day: the page says that what is never updated drifted, and when."""
    events = shop(12000, seed=4, days=14)
    change = T0 + 9 * DAY
    kept = [e for e in events if e["type"] != "conversion" or e["at"] < change or int(e["event_id"][1:]) % 4 == 0]
    settings = Settings(methods=("pq",), window=2 * DAY, wait=5 * HOUR, pretrain=3 * DAY)
    told = backtest("log", ListSource({("events", 0): lines(kept)}), settings)
    drift = told.summary["methods"]["pretrained"]["drifts"][0]
    assert abs(drift["hour"] * HOUR - change) < DAY
    assert drift["after"] > 2 * drift["before"]
    assert "<h2>Calibration drifted" in page(told, tmp_path)


def test_a_drift_after_which_nothing_converts_is_drawn(full: Result) -> None:
    """Without a PCOC after a drift its cross is at the one before."""
    summary = copy.deepcopy(full.summary)
    summary["methods"]["pq"]["drifts"] = [{"hour": T0 // HOUR, "found": T0 // HOUR + 9, "before": 1.25, "after": None}]
    drawn = level_over_time(full._replace(summary=summary)).figure.data
    assert next(trace.y for trace in drawn if trace.name == "pq drifts") == (1.25,)


def test_oracle_alone_has_a_page(tmp_path: Path) -> None:
    """With nobody beside the oracle there is nothing to compare; the page says so, and does not blame the log."""
    told = result(shop(1500, seed=1), methods=("oracle",))
    assert told.summary["methods"]["oracle"]["settled"]["rows"]
    assert verdict(told.summary).startswith("Only oracle has run")
    assert "<h2>Log loss of oracle over time" in page(told, tmp_path)


def test_who_cannot_see_is_told(full: Result, tmp_path: Path) -> None:
    """Every chart has its title and how to read it in words; tables have heads for their rows and columns, and the wide one
    is reached with the keyboard."""
    text = page(full, tmp_path)
    charts = re.findall(r'<figure role="img" aria-label="Chart: ([^"]+)">', text)
    assert len(charts) == text.count('class="plotly-graph-div"') > 3
    assert all(len(told) > 40 for told in charts)
    assert text.count('<th scope="row">') >= len(full.summary["methods"])
    assert 'role="region" aria-label="The methods side by side" tabindex="0"' in text
