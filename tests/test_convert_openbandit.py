"""Open Bandit Dataset into a log: real rows from the folder that BELATED_DATA names, and rows written by hand."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from converting import events, found, none
from labelstore.events import Conversion, Event, Impression, Item
from stream.convert.log import Summary
from stream.convert.openbandit import convert
from stream.sources import SourceError

USER = [f"user_feature_{i}" for i in range(4)]
HEADER = ",".join(
    ["", "timestamp,item_id,position,click,propensity_score", *USER, *(f"user-item_affinity_{i}" for i in range(3))]
)
CONTEXT = "\n,item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n0,1,-0.5,aa,bb,cc\n"
TIME = "2019-11-24 00:00:17.004901+00:00"


def row(click: str = "0", propensity: str = "0.25", time: str = TIME, affinities: str = "0.0,2.0,1.0") -> str:
    """A row of item 1 in position 3."""
    return f"0,{time},1,3,{click},{propensity},a,b,c,d,{affinities}"


def by_hand(
    folder: Path, rows: Sequence[str], header: str = HEADER, beside: str = "item_context.csv"
) -> tuple[Summary, list[Event]]:
    """Convert rows written here; ``beside`` names the context file."""
    (folder / "x_all.csv").write_text("".join(line + "\n" for line in (header, *rows)))
    (folder / beside).write_text(CONTEXT.lstrip())
    return convert(folder / "x_all.csv", folder / "log", advance=none), events(folder / "log")


@pytest.mark.parametrize(("policy", "clicks", "items"), [("bts", 42, 80), ("random", 38, None)])
def test_every_row_of_the_real_file_is_an_impression(
    data: Path, tmp_path: Path, policy: str, clicks: int, items: int | None
) -> None:
    """10,000 rows in order, each with its position, affinity and logged propensity; clicks name their impressions."""
    src = found(data, f"obd_{policy}_all_10000.csv.gz")
    summary = convert(src, tmp_path, advance=none)
    log = events(tmp_path)
    shown = [event for event in log if isinstance(event, Impression)]
    clicked = {event.impression_id for event in log if isinstance(event, Conversion)}
    with gzip.open(src, "rt") as file:
        rows = list(csv.DictReader(file))
    assert summary.rows == len(rows) == len(shown) == 10_000
    assert len(clicked) == clicks
    assert items is None or summary.events["item"] == items
    for told, event in zip(rows, shown, strict=True):
        assert (event.item_id, event.features["position"]) == (told["item_id"], told["position"])
        assert event.features["propensity"] == float(told["propensity_score"])
        assert event.features["affinity"] == float(told["user-item_affinity_" + told["item_id"]])
        assert (event.impression_id in clicked) == (told["click"] == "1")


def test_an_impression_has_its_context(tmp_path: Path) -> None:
    """Position, propensity, user, item, the affinities that are not 0, hour and weekday in Japan; no user id."""
    _, log = by_hand(tmp_path, [row()])
    shown = log[1]
    assert isinstance(shown, Impression)
    assert (shown.impression_id, shown.item_id, shown.user_id) == ("row.1", "1", None)
    assert shown.at % 1000 == 4
    assert shown.features == {
        **{"item": "1", "position": "3", "propensity": 0.25, "affinity": 2, "affinity_2": 1},
        **{"user_0": "a", "user_1": "b", "user_2": "c", "user_3": "d"},
        **{"item_0": -0.5, "item_1": "aa", "item_2": "bb", "item_3": "cc", "hour": "9", "weekday": "sun"},
    }


def test_a_click_is_the_conversion_at_the_time_of_its_impression(tmp_path: Path) -> None:
    """When it came is not recorded."""
    _, [_, shown, click] = by_hand(tmp_path, [row("1")])
    assert isinstance(click, Conversion)
    assert (click.kind, click.impression_id, click.at) == ("click", "row.1", shown.at)


def test_the_context_beside_becomes_items(tmp_path: Path) -> None:
    """At the time of the first impression; a file that belongs to another log is not taken, and that is noted."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    _, log = by_hand(tmp_path / "one", [row()], beside="x_all_item_context.csv".replace("x_all_", "x_"))
    assert [event.item_id for event in log if isinstance(event, Item)] == ["1"]
    summary, log = by_hand(tmp_path / "two", [row()], beside="y_item_context.csv")
    assert not [event for event in log if isinstance(event, Item)]
    assert summary.notes == ["no item_context.csv beside x_all.csv: there are no items and no features of theirs"]


def test_malformed_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    """Rows = impressions + refused."""
    bad = [row("2"), row(propensity="0"), row(propensity="nan"), row(time="soon"), row(affinities="0,x,0")]
    summary, log = by_hand(tmp_path, [*bad, row()])
    assert summary.refused == {
        "the click is neither 0 nor 1": 1,
        "the propensity_score is not in (0, 1]": 2,
        "timestamp is not a time of the years 2000 to 2099, such as 2019-10-01 00:00:00": 1,
        "an affinity is not a number": 1,
    }
    assert (summary.rows, len(log)) == (6, 2)


def test_another_file_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    """The error names the file, the column that is missing and what to give."""
    with pytest.raises(SourceError, match=r"x_all\.csv: .* no column propensity_score.*Open Bandit"):
        by_hand(tmp_path, [], HEADER.replace("propensity_score", "pscore"))
