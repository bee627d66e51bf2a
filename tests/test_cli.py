"""The command line as a user meets it: commands, results, errors in one line."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from learner.methods import DEFAULT, USUAL
from strategies import DAY, HOUR, T0, lines
from test_loop import own

EVENTS: list[dict[str, Any]] = sorted(
    [
        {"type": "impression", "impression_id": f"i{n}", "at": T0 + n * HOUR // 10, "features": {"n": n % 5}, "odd": 1}
        for n in range(700)
    ]
    + [
        {
            "type": "conversion",
            "event_id": f"c{n}",
            "kind": "purchase",
            "at": T0 + n * HOUR // 10 + 9 * HOUR,
            "impression_id": f"i{n}",
        }
        for n in range(0, 600, 5)
    ]
    + [{"type": "signal", "event_id": "s5", "kind": "cart", "at": T0 + HOUR, "impression_id": "i5"}],
    key=lambda event: int(event["at"]),
)
SHORT = ["--window", "1d", "--wait", "2h"]
FIGURES = {"rows", "positives", "auc", "pr_auc", "log_loss", "ne", "pcoc", "ece"}
PARTS = [
    "impressions",
    "signals",
    "conversions",
    "adjustments",
    "items",
    "dead_letters",
    "ignored",
    "duplicates",
    "forgotten",
]


def belated(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with two broken lines and a duplicate."""
    file = tmp_path_factory.mktemp("log") / "events" / "0.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"\n".join([*lines(EVENTS), lines(EVENTS)[3], b"{", b"[]"]))
    return file.parent.parent


@pytest.fixture(scope="module")
def compared(log: Path) -> dict[str, Any]:
    """What backtest says as JSON."""
    done = belated("backtest", log, *SHORT, "--json", "-")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_json_has_its_shape(compared: dict[str, Any], log: Path) -> None:
    """All parts are there for every method, and what was read is accounted for."""
    assert set(compared) == {
        "log",
        "events",
        "unknown_fields",
        "ignored",
        "methods",
        "intervals",
        "seconds",
        "events_per_second",
    }
    assert set(compared["events"]) == {"read", "late", "past_window", *PARTS}
    assert compared["events"]["read"] == len(EVENTS) + 3 == sum(compared["events"][name] for name in PARTS)
    assert (compared["events"]["dead_letters"], compared["events"]["duplicates"]) == (2, 1)
    assert compared["unknown_fields"] == {"impression.odd": 701}
    assert compared["log"] == str(log)
    assert set(compared["methods"]) == set(USUAL)
    for told in compared["methods"].values():
        assert set(told) == {
            "settled", "truth", "tentative", "weights", "looks", "digest", "interval", "behind_best", "drifts",
        }  # fmt: skip
        assert set(told["settled"]) == FIGURES
        assert set(told["tentative"]) == FIGURES | {"share_final"}
        assert set(told["weights"]) == {"mean", "max", "clipped_share", "ess_share"}


def test_replay_is_one_row_of_backtest(compared: dict[str, Any], log: Path, tmp_path: Path) -> None:
    """Replay with a store, and again, gives what backtest gives for that method, and reads nothing twice."""
    for _ in range(2):
        out = tmp_path / "out.json"
        done = belated("replay", log, *SHORT, "--store", f"sqlite:///{tmp_path}/s.db", "--json", out)
        assert done.returncode == 0, done.stderr
        told = json.loads(out.read_text())
        assert list(told["methods"]) == [DEFAULT]
        assert own(told["methods"][DEFAULT]) == own(compared["methods"][DEFAULT])
        assert told["events"] == compared["events"]
    shown = belated("labels", "show", "i5", "--store", f"sqlite:///{tmp_path}/s.db")
    for words in (
        "impression i5",
        "signal cart",
        "conversion purchase",
        f"{DEFAULT} scores",
        "settled",
        "age look",
    ):
        assert words in shown.stdout
    other = belated("labels", "show", "nobody", "--store", f"sqlite:///{tmp_path}/s.db")
    assert other.returncode == 2
    assert "'nobody'" in other.stderr
    assert "it has, for example: i" in other.stderr


def test_validate_says_what_is_wrong(log: Path) -> None:
    """Broken lines, unknown fields and kinds are told, and the status is 1."""
    done = belated("validate", log)
    assert done.returncode == 1
    for words in (
        "700 impressions",
        "not JSON",
        "one JSON object",
        "events/0@",
        "impression.odd",
        "conversion purchase: 120",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "nowhere"], ["nowhere", "there is no such log", "give a folder"]),
        (["backtest", "LOG", "--methods", "pq,magic"], ["'magic'", "choose from oracle, settled"]),
        (["backtest", "LOG", "--window", "soon"], ["window", "'soon' is not a duration", "7d"]),
        (["backtest", "LOG", "--window", "1d", "--wait", "2d"], ["wait 2d", "window 1d"]),
        (["replay", "LOG", "--store", "mysql"], ["mysql", "sqlite:///belated.db"]),
        (["labels", "show", "i1", "--store", "sqlite:////no/where.db"], ["no/where.db", "no such file"]),
        (["convert", "taobao", "nowhere.csv", "DST"], ["nowhere.csv"]),
        (["convert", "otto", __file__, "DST"], ["test_cli.py", "its first line is no session", "give its .jsonl file"]),
    ],
)
def test_errors_are_one_sentence(log: Path, tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    """An error names the thing, the value and the remedy, without a traceback; the status is 2."""
    given = [str(log) if a == "LOG" else str(tmp_path / "dst") if a == "DST" else a for a in arguments]
    done = belated(*given)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    for words in says:
        assert words in said


@pytest.mark.parametrize(
    "command", ["backtest", "replay", "validate", "convert", "demo", "labels show", "labels export"]
)
def test_help_teaches(command: str) -> None:
    """Every command says what it does and describes its options."""
    done = belated(*command.split(), "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 8


def test_the_report_is_written(log: Path, tmp_path: Path) -> None:
    """--html writes the page."""
    pytest.importorskip("plotly")
    done = belated("backtest", log, *SHORT, "--methods", "settled,pq", "--html", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    assert "</html>" in (tmp_path / "r.html").read_text()


def test_a_day_is_enough_to_settle(compared: dict[str, Any]) -> None:
    """The small log has settled rows and some that are not: both kinds are reported."""
    told = compared["methods"]["pq_signals"]
    assert 0 < told["settled"]["rows"] < told["tentative"]["rows"] == 700
    assert told["tentative"]["share_final"] == told["settled"]["rows"] / 700
    assert DAY == 86_400_000


def test_a_classifier_of_rivers_competes(log: Path) -> None:
    """River's classifiers stand beside our methods, with and without a pre-training, and are judged on the same rows."""
    short = ["--window", "12h", "--wait", "2h", "--methods", "pq,river:LogisticRegression", "--json", "-"]
    for more in ([], ["--pretrain", "1d"]):
        done = belated("backtest", log, *short, *more)
        assert done.returncode == 0, done.stderr
        methods = json.loads(done.stdout)["methods"]
        ours, theirs = methods["pq"]["settled"], methods["river:LogisticRegression"]["settled"]
        assert ours["rows"] == theirs["rows"] > 200
        assert ours["positives"] == theirs["positives"] > 40
        assert theirs["log_loss"] > 0


def test_version() -> None:
    """The version that is installed."""
    done = belated("--version")
    assert (done.returncode, done.stdout) == (0, f"belated {version('belated')}\n")
