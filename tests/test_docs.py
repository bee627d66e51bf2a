"""The docs keep up with the code."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from labelstore.events import ADAPTER, Adjustment, Conversion, Impression, Item, Signal
from learner.methods import METHODS
from learner.names import DEFAULT, USUAL
from stream.cli import app
from stream.codec import Codec
from stream.commands.logs import convert
from stream.commands.options import Dataset
from stream.sources import Record

ROOT = Path(__file__).parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_section(name: str) -> None:
    """docs/methods.md has a section for each method, that says its optimum or its weights."""
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text("docs/methods.md"), re.M | re.S)
    assert section
    assert len(section[1].strip()) > 60


def test_the_docs_name_no_method_that_is_not_there() -> None:
    """Every section of the methods page is a method or one of the three on what they share; the default is said."""
    sections = set(re.findall(r"^## (\S.*)$", text("docs/methods.md"), re.M))
    assert sections == set(METHODS) | {"The delay curve", "The run-off triangle", "Who takes longer", "Retractions"}
    assert "The default." in re.search(rf"^## {DEFAULT}\n(.*?)(?=^## )", text("docs/methods.md"), re.M | re.S)[1]  # type: ignore[index]


@pytest.mark.parametrize("model", [Impression, Signal, Conversion, Adjustment, Item])
def test_every_field_of_an_event_is_described(model: type) -> None:
    """docs/log.md names every field of every event."""
    for field in model.model_fields:  # type: ignore[attr-defined]
        assert f"`{field}`" in text("docs/log.md"), field


def test_the_readme_speaks_of_real_commands() -> None:
    """Each `belated` command in the README exists, and each `make` target it names."""
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"belated ([a-z]+)", re.sub(r"```.*?```", "", text("README.md"), flags=re.S)))
    assert {"validate", "backtest", "replay", "labels", "convert"} <= named
    assert {name for name in named if name in commands} >= {"validate", "backtest", "replay", "labels", "convert"}
    for target in re.findall(r"make ([a-z]+)", text("README.md") + text("CONTRIBUTING.md")):
        assert re.search(rf"^{target}:", text("Makefile"), re.M), target


def test_the_readme_shows_every_method() -> None:
    """The table in the README has a row for each method of the demo."""
    for name in USUAL:
        assert re.search(rf"^\s+{name}\s+0\.\d+", text("README.md"), re.M), name


def test_the_architecture_names_every_file() -> None:
    """ARCHITECTURE.md lists the files of each room."""
    tree = text("ARCHITECTURE.md").split("## The tree")[1]
    for room in ("labelstore", "learner", "stream"):
        (row,) = (line for line in tree.splitlines() if line.startswith(f"| `{room}/`"))
        listed = set(re.findall(r"[a-z_]+", row.split("|")[2]))
        assert listed == {file.stem for file in (ROOT / room).glob("*.py")} - {"__init__"}


def test_examples_in_the_log_page_are_events() -> None:
    """A line written by the words of docs/log.md is an event."""
    line = b'{"type":"signal","event_id":"e","kind":"cart","at":1700000000000,"user_id":"u","item_id":"i"}'
    assert ADAPTER.validate_json(line).type == "signal"


@pytest.mark.parametrize("dataset", Dataset)
def test_every_data_set_is_described(dataset: Dataset) -> None:
    """docs/datasets.md has a row for each data set, ARCHITECTURE.md names its file, and the help its source."""
    assert f"| `{dataset}` |" in text("docs/datasets.md")
    assert dataset in text("ARCHITECTURE.md").split("`stream/convert/`")[1]
    assert f"{dataset}: " in (convert.__doc__ or "")


def test_every_guarantee_names_what_shows_it() -> None:
    """Each row of docs/guarantees.md names tests, scripts or pages, and all of them are there."""
    rows = [line for line in text("docs/guarantees.md").splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        shown = row.rstrip(" |").split("|")[-1]
        named = re.findall(r"`([\w./]+)`", shown)
        assert named or "the same" in shown, row
        assert all((ROOT / path).exists() for path in named), row


def test_the_events_of_the_page_are_events() -> None:
    """docs/log.md shows one of each type, and nobody would refuse them, nor a field of theirs."""
    shown = [line.strip() for line in text("docs/log.md").splitlines() if line.startswith('    {"type"')]
    found = [
        Codec(strict=True).decode(Record("events", 0, n, None, None, line.encode())) for n, line in enumerate(shown)
    ]
    assert [getattr(event, "type", event) for event in found] == [
        "item",
        "impression",
        "signal",
        "conversion",
        "adjustment",
    ]


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_scripts_are_there(page: Path) -> None:
    """What a page links to is in the tree, and so are the scripts it names."""
    told = page.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", told):
        assert link.startswith("http") or (page.parent / link).exists(), link
    for script in re.findall(r"benchmarks/\w+\.py", told):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_stands_outside_of_lists(page: Path) -> None:
    """A block that comes right after a list would be read as prose of its last item, all in one line."""
    assert not re.search(r"^(?:- |\d+\. ).*\n(?: +.*\n)*\n {4}.*", page.read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_have_their_options(page: Path) -> None:
    """Each `belated` line that a page shows names a command that is there, with options that it has."""
    for line in re.findall(r"^    (?:  )?belated (.*)", page.read_text(), re.M):
        found, words = get_command(app), line.split("#")[0].replace("[", " ").replace("]", " ").split()
        while hasattr(found, "commands"):
            assert set(words[:1]) & set(found.commands), line
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= known, line
