"""The file of settings explains every key, loads as it is written, and says where each value comes from."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from command_line import belated
from learner.names import USUAL
from strategies import DAY, HOUR, lines
from stream.cli import app
from stream.commands.config import template
from stream.config import Config, ConfigError, Http, Kafka, Log, Store, load
from stream.settings import Settings
from test_refresh import shop as graph_shop

SECTIONS: dict[str, type[BaseModel]] = {"kafka": Kafka, "store": Store, "learner": Settings, "http": Http, "log": Log}
RUN = CliRunner()
SHOP = """
[learner]
window = "7d"
[mapping.shop]
type = "item"
item_id = "sku"
at = "ts"
"""


def test_every_key_is_in_the_file_and_described() -> None:
    """Each key of each section stands in it, after a line that says what it means."""
    text = template()
    for section, model in SECTIONS.items():
        part = text.split(f"\n[{section}]\n")[1].split("\n\n")[0]
        for name in model.model_fields.keys() - {"mapping"}:
            assert re.search(rf"^# \S.*\n# {name}( =|:)", part, re.M), f"{section}.{name}"
    assert set(SECTIONS) | {"mapping"} == set(Config.model_fields)


def test_the_file_loads_as_it_is_and_with_every_line_in_force(tmp_path: Path) -> None:
    """It says the defaults: as written, and with the # taken away from every line that has a value."""
    file = tmp_path / "belated.toml"
    file.write_text(template())
    assert load(file) == Config()
    bare, mapping = template().split("# [mapping.TOPIC]")
    file.write_text(re.sub(r"^# (\w+ = .+)$", r"\1", bare, flags=re.M))
    assert len(tomllib.loads(file.read_text())["kafka"]) > 10
    assert load(file) == Config()
    file.write_text("\n".join(line.removeprefix("# ") for line in mapping.splitlines()[1:]))
    assert set(load(file).mapping["shop-events"].cases) == {"view", "add_to_cart", "order"}


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """A file that is there stays."""
    file = tmp_path / "belated.toml"
    assert RUN.invoke(app, ["config", "init", str(file)]).exit_code == 0
    file.write_text("mine")
    assert isinstance(RUN.invoke(app, ["config", "init", str(file)]).exception, FileExistsError)
    assert file.read_text() == "mine"


def test_show_says_where_values_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment or default, key by key; secrets are masked; mapped topics are told."""
    file = tmp_path / "belated.toml"
    file.write_text(SHOP)
    monkeypatch.setenv("BELATED_KAFKA__PASSWORD", "hunter2")
    monkeypatch.setenv("BELATED_HTTP__PORT", "9000")
    said = RUN.invoke(app, ["config", "show", "-c", str(file)]).stdout
    for line in (r'window = "7d" +file', r"port = 9000 +environment", r'wait = "1d" +default', r"\*{8} +environment"):
        assert re.search(line, said), line
    assert "hunter2" not in said
    assert "records become item; [kafka] reads no topic of that name" in said


def test_a_mapping_is_part_of_what_a_learner_is_told(tmp_path: Path) -> None:
    """`settings` holds it; in [learner] it has no place; what is wrong with it is told by its place."""
    file = tmp_path / "belated.toml"
    file.write_text(SHOP)
    assert set(load(file).settings.told()["mapping"]) == {"shop"}
    assert load(file, without=("learner",)).settings.window == Settings().window
    file.write_text(SHOP.replace('item_id = "sku"', 'item_id = "sku"\ncolour = "c"'))
    with pytest.raises(ConfigError, match=r"mapping\.shop\.colour: there is no such key"):
        load(file)
    file.write_text(SHOP.replace("[mapping.", "[learner.mapping."))
    with pytest.raises(ConfigError, match=r"write it as \[mapping.TOPIC\]"):
        load(file)


def test_options_that_are_not_given_come_from_the_file(tmp_path: Path) -> None:
    """validate and replay read [mapping] and [learner]; what is typed stands above; the rest of the file is not needed."""
    file, log = tmp_path / "belated.toml", tmp_path / "shop.jsonl"
    file.write_text(
        '[kafka]\nprotocol = "SASL_SSL"\n'
        + SHOP.replace("window", 'target = "order"\ngraph_every = "3d"\ngraph_window = "9d"\nwindow')
    )
    log.write_text('{"sku": "a", "ts": 1700000000000}\n{"ts": 1700000000000}\n')
    done = RUN.invoke(app, ["validate", str(log), "-c", str(file)])
    assert done.exit_code == 1
    for words in (
        '{"sku": "a", "ts": 1700000000000}',
        'is read as {"type":"item","item_id":"a","at":1700000000000,"features":{}}',
        "item_id: sku: missing (there is 'ts')",
        "for training: no impressions",
    ):
        assert words in done.stdout
    for more, window in (([], "7 days"), (["--window", "9d"], "9 days")):
        done = RUN.invoke(
            app, ["replay", str(log), "-c", str(file), "--store", f"sqlite:///{tmp_path}/{window}.db", *more]
        )
        assert done.exit_code == 0, done.output
    from labelstore import ledger
    from labelstore.store import existing

    for window, days in (("7 days", 7), ("9 days", 9)):
        with existing(f"sqlite:///{tmp_path}/{window}.db") as connection:
            row = ledger.newest(connection)
            assert row is not None
            assert row.settings["window"] == days * 86_400_000
            assert row.settings["target"] == "order"
            assert row.settings["graph_window"] == 9 * 86_400_000


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """`graph evaluate` has no option --wait and reads it all the same; `replay` refuses what it cannot do."""
    file, log = tmp_path / "belated.toml", tmp_path / "shop.jsonl"
    log.write_text('{"sku": "a", "ts": 1700000000000}\n')
    file.write_text(SHOP.replace('window = "7d"', 'window = "12h"\nwait = "1h"'))
    done = RUN.invoke(app, ["graph", "evaluate", str(log), "-c", str(file)])
    assert (done.exit_code, "no version yet" in done.stdout) == (0, True), done.output
    file.write_text(SHOP.replace('window = "7d"', 'window = "7d"\npretrain = "7d"'))
    done = RUN.invoke(app, ["graph", "evaluate", str(log), "-c", str(file)])
    assert (done.exit_code, "no version yet" in done.stdout) == (0, True), done.output
    done = RUN.invoke(app, ["replay", str(log), "-c", str(file)])
    assert (done.exit_code, "learner.pretrain belongs to backtests" in done.output) == (2, True)


def test_what_a_file_does_not_say_is_as_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a window alone: a backtest compares its usual methods, an evaluation learns versions; file and environment
    are merged key by key."""
    log, file = tmp_path / "log.jsonl", tmp_path / "belated.toml"
    log.write_bytes(b"\n".join(lines(graph_shop(users=20))) + b"\n")
    file.write_text('[learner]\nwindow = "2d"\nwait = "5h"\n')
    done = belated("backtest", log, "-c", file)
    assert [name for name in USUAL if f" {name} " not in done.stdout] == [], done
    assert "version 1: learning from" in belated("graph", "evaluate", log, "-c", file).stderr
    monkeypatch.setenv("BELATED_LEARNER__WAIT", "7h")
    learner = load(file).learner
    assert learner.model_fields_set == {"window", "wait"}
    assert (learner.window, learner.wait) == (2 * DAY, 7 * HOUR)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BELATED_STORE__URL", "postgresql+psycopg://u@h/db?password=topsecret", "the url holds a password"),
        ("BELATED_STORE__URL", "nonsense", "url: cannot be read; expected a URL such as sqlite:///belated.db"),
        ("BELATED_KAFKA__SERVERS", "127.0.0.1:9092", "lists and tables are JSON there"),
        ("BELATED_LEARNER__METHODS", "hybrid", "lists and tables are JSON there"),
        ("BELATED_KAFAK__SERVERS", "[]", "there is no such section; did you mean BELATED_KAFKA__SERVERS?"),
        ("BELATED_Q__SERVERS", "[]", "there is no such section; there are http, kafka, learner"),
        ("belated_store_url", "sqlite://", "two underscores are between a section and its key: BELATED_STORE__URL"),
    ],
)
def test_what_is_wrong_in_the_environment_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """And shows no secret."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(says)) as told:
        load(None)
    assert "topsecret" not in str(told.value)


def test_what_the_environment_says_is_blamed_there_and_heard_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is named, not the file beside it; a log on disk asks no broker. A section may be one table."""
    file = tmp_path / "belated.toml"
    file.write_text('[learner]\nwindow = "2d"\n[kafka]\nimpressions = "seen"\n')
    monkeypatch.setenv("BELATED_KAFKA__PROTOCOL", "TLS")
    with pytest.raises(ConfigError, match=r"^BELATED_KAFKA__PROTOCOL: .*'TLS'"):
        load(file)
    assert load(file, without=("kafka",)).learner.window == 2 * DAY
    monkeypatch.delenv("BELATED_KAFKA__PROTOCOL")
    monkeypatch.setenv("BELATED_KAFKA", '{"signals": "clicks"}')
    monkeypatch.setenv("BELATED_KAFKA__ITEMS", "goods")
    found = load(file).kafka
    assert (found.impressions, found.signals, found.items) == ("seen", "clicks", "goods")
    shown = belated("config", "show", "-c", file).stdout
    for line in (r'impressions = "seen" +file', r'signals = "clicks" +environment', r'items = "goods" +environment'):
        assert re.search(line, shown), shown
    assert re.search(r'conversions = "conversions" +default', shown), shown


def test_the_environment_is_heard_with_a_file_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule for both; a store that is named beside --store is not written to, and that is said."""
    log, empty = tmp_path / "log.jsonl", tmp_path / "belated.toml"
    log.write_bytes(b"\n".join(lines(graph_shop(users=20))) + b"\n")
    empty.write_text("")
    monkeypatch.setenv("BELATED_LEARNER__METHODS", '["pq"]')
    for command in ("replay", "backtest"):
        for more in ((), ("-c", empty)):
            done = belated(command, log, *more)
            assert (" pq " in done.stdout, " hybrid " in done.stdout) == (True, False), done
            assert "nothing is kept" not in done.stderr
    empty.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/a.db"\n')
    assert (
        f"nothing is kept: store.url of {empty} is for the daemon; give --store"
        in belated("replay", log, "-c", empty).stderr
    )
    monkeypatch.setenv("BELATED_STORE__URL", f"sqlite:///{tmp_path}/b.db")
    assert "nothing is kept: BELATED_STORE__URL is for the daemon" in belated("backtest", log).stderr
    assert "nothing is kept" not in belated("replay", log, "--store", f"sqlite:///{tmp_path}/c.db").stderr
    assert [file.name for file in tmp_path.glob("*.db")] == ["c.db"]


def test_what_is_wrong_in_the_environment_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the file beside it: of keys that do not go together, of a section that is none, of what is not JSON."""
    file = tmp_path / "belated.toml"
    file.write_text('[kafka]\nidle_after = "9s"\n[learner]\nwindow = "3d"\n')
    for name, value, said in (
        ("KAFKA__START", "ts=noon", "BELATED_KAFKA__START: 'noon' is not a time"),
        ("STORE__URL", "postgresql://u:pw@h/d", "BELATED_STORE__URL: store: the url holds a password"),
        ("LEARNER__WAIT", "4d", f"BELATED_LEARNER__WAIT, {file}: learner: wait 4d is not shorter than window 3d"),
        ("HTTP", "5", "BELATED_HTTP: Input should be"),
        ("KAFKA__SERVERS", "a:1", "BELATED_KAFKA__SERVERS: not JSON; lists and tables are JSON there"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv("BELATED_HTTP__PORT", "9000")
            patch.setenv(f"BELATED_{name}", value)
            with pytest.raises(ConfigError, match="^" + re.escape(said)):
                load(file)
    file.write_text('[kafka]\nstart = "last=noon"\n')
    with pytest.raises(ConfigError, match=r"belated\.toml: kafka\.start: 'noon' is not a duration"):
        load(file)


def test_a_service_of_kubernetes_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts variables of its own into the environment of every container."""
    monkeypatch.setenv("BELATED_HTTP_PORT", "tcp://10.96.0.7:8080")
    monkeypatch.setenv("BELATED_HTTP_PORT_8080_TCP_ADDR", "10.96.0.7")
    assert load(None).http.port == 8080


def test_a_bare_number_is_no_duration(tmp_path: Path) -> None:
    """In a file, where it would be milliseconds: the key, the value and how to write it. 0 needs no unit."""
    file = tmp_path / "belated.toml"
    file.write_text("[store]\nevery = 30\n[learner]\nlateness = 0\n")
    with pytest.raises(ConfigError, match=r"store\.every: '30' is not a duration; write a number and one of ms, s"):
        load(file)
    file.write_text('[store]\nevery = "30s"\n[learner]\nlateness = 0\nmethods = "pq"\n')
    with pytest.raises(ConfigError, match=r"learner\.methods: expected a list, got 'pq'; write \[\"pq\"\]"):
        load(file)
    file.write_text('[store]\nevery = "30s"\n[learner]\nlateness = 0\n')
    assert (load(file).store.every, load(file).learner.lateness) == (30_000, 0)
