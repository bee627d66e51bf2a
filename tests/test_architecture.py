"""The walls of the house. The table is the architecture: what each room must not import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WALLS: dict[str, set[str]] = {
    "learner": {"labelstore", "stream", "kafka", "sqlalchemy", "sqlite3", "psycopg", "time", "datetime"},
    "labelstore": {"learner", "stream", "kafka", "torch"},
}
ALLOWED = {
    "torch.from_numpy": {"stream/assemble.py", "stream/loop.py", "stream/learning.py"},
}


def imports(file: Path) -> set[str]:
    """First names of the modules a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", WALLS)
def test_rooms_keep_their_walls(room: str) -> None:
    """No file of a room imports what its wall keeps out."""
    for file in sorted((ROOT / room).rglob("*.py")):
        assert not imports(file) & WALLS[room], file.name


def test_the_command_line_begins_without_torch() -> None:
    """Help, and commands that learn nothing, do not wait for what only learners and reports need."""
    heavy = {"torch", "river", "pandas", "plotly", "scipy", "kafka"}
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, stream.cli; print(*{heavy} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not said.stdout.split()


def test_only_the_label_store_speaks_sql() -> None:
    """Outside labelstore SQLAlchemy is imported only for the types of connections, URLs and errors."""
    for file in sorted((ROOT / "stream").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
                names = {alias.name for alias in node.names}
                assert names <= {"Connection", "make_url", "ArgumentError"}, file.name


def test_only_the_checkpoint_commits() -> None:
    """`commit()` of the label store is called in one file."""
    callers = [
        file.name
        for file in sorted((ROOT / "stream").rglob("*.py"))
        if "store.commit()" in file.read_text() or "connection.commit()" in file.read_text()
    ]
    assert callers == ["checkpoint.py"]


def test_only_a_retry_amends() -> None:
    """The one transaction beside the commits marks dead letters that were retried: see docs/decisions/0005."""
    texts = {file.name: file.read_text() for file in sorted((ROOT / "stream").rglob("*.py"))}
    assert [name for name, text in texts.items() if "amended(" in text] == ["retry.py"]
    assert not [name for name, text in texts.items() if "engine.begin(" in text or "connection.begin(" in text]


def test_no_dangerous_ways() -> None:
    """No pickle, no eval or exec, no shell, no torch.load anywhere in the rooms."""
    for room in ("stream", "learner", "labelstore"):
        for file in sorted((ROOT / room).rglob("*.py")):
            text = file.read_text()
            assert not imports(file) & {"pickle", "subprocess", "shelve", "marshal"}, file.name
            for word in ("eval(", "exec(", "torch.load(", "shell=True"):
                assert word not in text.replace(".eval(", ""), f"{file.name}: {word}"


def test_files_stay_small() -> None:
    """A file of a room has at most 250 lines: one idea, one file."""
    for room in ("stream", "learner", "labelstore"):
        for file in sorted((ROOT / room).rglob("*.py")):
            assert len(file.read_text().splitlines()) <= 250, file
