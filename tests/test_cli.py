"""The command line as a user meets it: commands, results, errors in one line."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from command_line import belated
from learner.names import DEFAULT, USUAL
from strategies import DAY, HOUR, T0, lines
from stream import cli
from stream.commands import replays
from stream.drafts import draft
from stream.loop import Loop
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


def test_validate_tells_how_late_conversions_come(tmp_path: Path) -> None:
    """Delays of conversions, by name and by last touch; what comes before its impression or past the window is told."""
    shown = [
        {"type": "impression", "impression_id": f"i{n}", "user_id": f"u{n}", "item_id": "p", "at": T0 + (40 + n) * DAY}
        for n in range(10)
    ]
    delays = [1, 1, 2, 2, 3, 3, 9, 20, -2, -1]
    bought: list[dict[str, Any]] = [
        {"type": "conversion", "event_id": f"c{n}", "kind": "purchase", "at": T0 + (40 + n + after) * DAY}
        | ({"impression_id": f"i{n}"} if n % 2 else {"user_id": f"u{n}", "item_id": "p"})
        for n, after in enumerate(delays)
    ]
    earlier = {"type": "impression", "impression_id": "before", "user_id": "u0", "item_id": "p", "at": T0 + 10 * DAY}
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines([earlier, *shown, *bought])) + b"\n")
    (tmp_path / "belated.toml").write_text('[learner]\nwindow = "7d"\n')
    said = belated("validate", tmp_path / "log.jsonl").stdout
    assert "half of them within 2d of their impression, nine tenths within 9d, all within 20d" in said
    assert "2 of 10 conversions purchase come before any impression they could belong to" in said
    assert "past the window" not in said
    narrower = belated("validate", tmp_path / "log.jsonl", "-c", tmp_path / "belated.toml").stdout
    assert "2 of 10 conversions purchase come past the window of 7d, and count for nothing; window = 9d" in narrower


def test_a_record_of_a_wrong_clock_is_named(tmp_path: Path) -> None:
    """It makes all after it late: figures are marked, and to wait is no advice. Where no record stands out it is."""
    shown = [{"type": "impression", "impression_id": f"i{n}", "at": T0 + n * 1000} for n in range(100)]
    wrong = {"type": "impression", "impression_id": "odd", "at": T0 + 365 * DAY}
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines([*shown[:40], wrong, *shown[40:]])) + b"\n")
    said = belated("validate", tmp_path / "log.jsonl").stdout
    assert "order: 60 records late, the furthest by 365d; 60 of them after log/0@40, which is of " in said
    assert "--lateness" not in said
    assert "59% of the records are late" in belated("replay", tmp_path / "log.jsonl", *SHORT).stdout
    swapped = [shown[n ^ 1] for n in range(100)]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines(swapped)) + b"\n")
    assert "; --lateness 1s waits for all of them" in belated("validate", tmp_path / "log.jsonl").stdout


def test_numbers_that_are_texts_are_told(tmp_path: Path) -> None:
    """A price in quotes would be a word of its own; a number of an article is one, and is not told."""
    shown = [
        {
            "type": "impression",
            "impression_id": f"i{n}",
            "at": T0 + n,
            "features": {"price": f"{n},50", "article": f"{n}"},
        }
        for n in range(9)
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines(shown)) + b"\n")
    said = belated("validate", tmp_path / "log.jsonl").stdout
    assert "feature price: text that reads as a number in 9 of 9 impressions" in said
    assert "feature article" not in said


def test_what_comes_twice_is_of_its_kind_once(tmp_path: Path) -> None:
    """The lines by kind add up to what was found."""
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*lines(EVENTS), *lines(EVENTS)[-5:]]) + b"\n")
    found = belated("validate", tmp_path / "log.jsonl").stdout
    assert "120 conversions, 5 duplicates" in found
    assert "conversion purchase: 120\n" in found


def test_interrupted_it_says_what_stands(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle: status 130, and what to do; the same command goes on."""
    url, begun = f"sqlite:///{tmp_path}/s.db", Loop.run

    def run(loop: Loop, *told: Any) -> None:
        begun(loop, *told)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", run)
        done = belated("replay", log, "--store", url)
    assert done.returncode == 130
    assert "the same command goes on from there" in done.stderr
    assert belated("replay", log, "--store", url).returncode == 0


def test_a_signal_leaves_no_temporary_store(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends a command as Ctrl-C does, with status 143; where a store is given no temporary one is made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    stores = []

    def run(loop: Loop, *told: Any) -> None:
        stores.append(len(list((tmp_path / "temporary").iterdir())))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Loop, "run", run)
    done = belated("replay", log)
    assert (done.returncode, "error: interrupted\n" in done.stderr, "the store stands" in done.stderr) == (
        143,
        True,
        False,
    )
    assert belated("replay", log, "--store", f"sqlite:///{tmp_path}/s.db").returncode == 143
    assert stores == [1, 0]
    assert not list((tmp_path / "temporary").iterdir())


def test_nothing_has_settled(log: Path) -> None:
    """A table of dashes is explained."""
    done = belated("backtest", str(log), "--methods", "settled", "--window", "366d")
    assert done.returncode == 0
    assert "no label has settled: the log ends before the attribution window" in done.stdout
    done = belated("backtest", log, "--window", "2d", "--wait", "5h", "--methods", "settled", "--target", "purchse")
    assert "no settled row has converted, so nothing was learned but the base rate" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "nowhere"], ["nowhere", "there is no such log", "give a folder"]),
        (["backtest", "LOG", "--methods", "pq,magic"], ["'magic'", "choose from oracle, settled"]),
        (["replay", "LOG", "--method", "magic"], ["'magic' is unknown; choose from settled"]),
        (["replay", "LOG", "--method", "oracle"], ["'oracle' reads final labels", "only `belated backtest`"]),
        (["replay", "LOG", "--method", "river:LogisticRegression"], ["cannot go on from a checkpoint"]),
        (["backtest", "LOG", "--window", "soon"], ["window", "'soon' is not a duration", "7d"]),
        (["backtest", "LOG", "--window", "9999w"], ["window: expected at most 366d, got 9999w"]),
        (["backtest", "LOG", "--window", f"{'9' * 400}d"], ["is not a duration"]),
        (["backtest", "LOG", "--base-rate", "2"], ["base_rate: expected at most 0.999999, got 2.0"]),
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


def test_two_stores_never_share_checkpoints(log: Path, tmp_path: Path) -> None:
    """A file of another ending beside it would have the same folder: it is refused, and the first goes on."""
    first, other = (f"sqlite:///{tmp_path}/a.{ending}" for ending in ("db", "sqlite"))
    assert belated("replay", log, *SHORT, "--store", first).returncode == 0
    done = belated("replay", log, *SHORT, "--store", other)
    assert done.returncode == 2
    assert "a.checkpoints: holds the checkpoints of a.db, and --store is a.sqlite" in done.stderr
    assert belated("replay", log, *SHORT, "--store", first).returncode == 0


def test_another_log_in_a_store_is_refused(log: Path, tmp_path: Path) -> None:
    """Going on from where the store stopped would skip what is there up to that line."""
    store = f"sqlite:///{tmp_path}/a.db"
    assert belated("replay", log, *SHORT, "--store", store).returncode == 0
    other = tmp_path / "events" / "0.jsonl"
    other.parent.mkdir()
    for some in (EVENTS[:100], [*EVENTS, *EVENTS[5:90]]):
        other.write_bytes(b"\n".join(lines(some)) + b"\n")
        done = belated("replay", tmp_path, *SHORT, "--store", store)
        assert done.returncode == 2
        assert "give the log that was replayed, or a new --store" in done.stderr


def test_a_log_that_is_still_written(tmp_path: Path) -> None:
    """Its last line is said to be left, and read by the next run: then all is as if it had been whole."""
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    data = b"\n".join(lines(EVENTS)) + b"\n"
    whole.write_bytes(data)
    part.write_bytes(data[: len(data) // 2])
    store = ("--store", f"sqlite:///{tmp_path}/a.db")
    done = belated("replay", part, *SHORT, *store)
    assert "its last line has no end and is not JSON: it was left for the next run" in done.stderr
    checked = belated("validate", part)
    assert (checked.returncode, "its last line has no end" in checked.stderr) == (1, True)
    part.write_bytes(data)
    found = [
        json.loads(belated("replay", file, *SHORT, *more, "--json", "-").stdout)["methods"]
        for file, more in ((whole, ()), (part, store))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("--html", "no/x.html", "there is no folder"),
        ("--json", "no/x.json", "there is no folder"),
        ("--json", ".", "this is a folder; name a file"),
        ("--html", ".", "this is a folder; name a file"),
    ],
)
def test_results_that_cannot_be_written_are_told_first(
    log: Path, tmp_path: Path, option: str, name: str, says: str
) -> None:
    done = belated("replay", log, *SHORT, option, tmp_path / name, "--store", f"sqlite:///{tmp_path}/a.db")
    assert done.returncode == 2
    assert f"error: {option} {tmp_path / name}: {says}" in done.stderr
    assert not (tmp_path / "a.db").exists()


def test_a_backtest_that_nobody_can_take_is_not_lost(log: Path, tmp_path: Path) -> None:
    """Where the results cannot be written the table is told, and where the table cannot the results are written."""
    done = belated("replay", log, *SHORT, "--json", "/dev/full")
    assert (done.returncode, "judged on settled labels" in done.stdout) == (2, True)
    assert "error: /dev/full: No space left on device; free some room" in done.stderr
    run = [sys.executable, "-m", "stream.cli", "replay", str(log), *SHORT, "--json", str(tmp_path / "r.json")]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert told.returncode == 2
    assert "error: output: No space left on device; free some room" in told.stderr
    assert "Exception ignored" not in told.stderr
    assert json.loads((tmp_path / "r.json").read_text())["methods"]


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow past 2,000 bytes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_a_full_disk_is_a_sentence_and_leaves_nothing(log: Path, tmp_path: Path) -> None:
    """What cannot be written whole is not there; what a temporary store had is not said to be kept."""
    old = tmp_path / "old.json"
    old.write_text("before")
    with little_room():
        made = belated("simulate", tmp_path / "log", "--impressions", "200")
        init = belated("config", "init", tmp_path / "belated.toml")
        done = belated("replay", log, *SHORT, "--json", old)
    for one, place in ((made, tmp_path / "log"), (init, tmp_path / "belated.toml")):
        assert one.returncode == 2
        assert f"error: {place}: File too large; free some room\n" in one.stderr
    assert done.returncode == 2
    assert "mend this and run the same command again" in done.stderr
    assert "kept" not in done.stderr
    assert old.read_text() == "before"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [old]


def test_a_file_is_old_or_new(tmp_path: Path) -> None:
    """Never in between, and nothing else is left; the file behind a link is the one that is written."""
    file = tmp_path / "r.json"
    (tmp_path / "link").symlink_to(file)

    def fail() -> None:
        with draft(file) as place:
            place.write_text("half")
            raise KeyboardInterrupt

    with draft(tmp_path / "link") as place:
        place.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "link", file]


def test_a_truth_of_a_longer_window_is_not_compared_with(tmp_path: Path) -> None:
    """p is of the window of the scenario: of a shorter one it says nothing."""
    log = tmp_path / "log"
    belated("simulate", log, "--impressions", "500", "--days", "3", "--window", "1d")
    for window, warned in (("6h", True), ("1d", False), ("2d", False)):
        done = belated("backtest", log, "--methods", "settled", "--window", window, "--wait", "1h", "--json", "-")
        assert ("tells who converts within 1d" in done.stderr) == warned
        told = json.loads(done.stdout)["methods"]["settled"]
        assert (told.get("truth") is None) == warned


def test_brackets_are_shown_in_help() -> None:
    """They are no markup."""
    assert "[mapping]" in belated("replay", "--help").stdout
    assert "belated[demo]" in belated("convert", "--help").stdout


@pytest.mark.parametrize("dataset", ["criteo", "taobao", "otto"])
@pytest.mark.parametrize("data", [b"", b"hello,you\n", b"\x1f\x8bx"])
def test_a_conversion_of_nothing_is_an_error(tmp_path: Path, dataset: str, data: bytes) -> None:
    """Nothing that could be taken for a log is left."""
    file, folder = tmp_path / ("x.gz" if data[:1] == b"\x1f" else "x"), tmp_path / "log"
    file.write_bytes(data)
    done = belated("convert", dataset, file, folder)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert not list(folder.rglob("*.jsonl*"))


def test_what_of_a_folder_is_not_read_is_said(log: Path, tmp_path: Path) -> None:
    """Files whose names are no partition's; those that lie beside a log of ours are no such files."""
    folder = tmp_path / "log"
    shutil.copytree(log, folder)
    for name in ("more.jsonl", "events/part-00001.jsonl", "events/2.json", "offsets.json.txt", "journal.jsonl"):
        (folder / name).write_text("")
    done = belated("validate", folder)
    assert "not read: events/2.json, events/part-00001.jsonl, more.jsonl; a partition is a file" in done.stderr
    (folder / "belated.toml").write_text('[mapping.sites]\ntype = "item"\nitem_id = "id"\nat = "at"\n')
    said = belated("validate", folder, "-c", folder / "belated.toml").stderr
    assert "mapping.sites: the log has no topic of that name; it has events" in said
    assert (
        "is a topic, or holds files without one; give the folder above it" in belated("validate", log / "events").stderr
    )
    (tmp_path / "x.csv").write_text("a,b\n")
    assert "a log is .jsonl (.gz, .zst), one event a line" in belated("validate", tmp_path / "x.csv").stderr


def test_a_demo_that_was_interrupted_converts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted conversion leaves is not taken for the log."""
    asked: list[Path] = []
    monkeypatch.setattr(replays, "convert", lambda dataset, src, dst: asked.append(dst))
    monkeypatch.setattr(replays, "_run", lambda *given: None)
    (tmp_path / "completejourney" / "events").mkdir(parents=True)
    replays.demo(tmp_path)
    (tmp_path / "completejourney" / "events" / "0.jsonl").write_text("")
    replays.demo(tmp_path)
    assert asked == [tmp_path / "completejourney"]


def test_an_id_cannot_move_the_cursor(tmp_path: Path) -> None:
    """What a terminal would obey is spelled out."""
    file = tmp_path / "events" / "0.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"\n".join(lines([{**EVENTS[0], "impression_id": "A\x1b[31m"}, *EVENTS[1:9]])))
    store = f"sqlite:///{tmp_path}/store.db"
    belated("replay", tmp_path, "--window", "2d", "--wait", "5h", "--store", store)
    for name in ("A\x1b[31m", "zz"):
        done = belated("labels", "show", name, "--store", store)
        assert "\x1b[31m" not in done.stdout + done.stderr


def test_help_flows() -> None:
    """Lines of a paragraph are one, those of a list begin anew."""
    assert cli._flowing("A b\n    c d.\n\n    one: e\n    f\n    two: g") == "A b c d.\n\none: e f\ntwo: g"
