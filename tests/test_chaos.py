"""The chaos script, five fixed seeds of it: whatever is killed or crashes, the end is that of an undisturbed replay."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import servers

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos.py"
FEW = ("--kills", "1", "--impressions", "500")
TOLD = {
    "sqlite": ("--runs", "3", "--jobs", "3", "--seed", "1"),
    "postgres": ("--runs", "2", "--jobs", "2", "--seed", "4", "--postgres"),
}


def can(name: str) -> bool:
    """Whether its database can be had."""
    return name == "sqlite" or (servers.binaries() is not None and find_spec("psycopg") is not None)


@pytest.fixture(scope="module")
def started(kafka_script: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Scripts that run side by side."""
    commands = {name: [sys.executable, str(SCRIPT), *FEW, *more] for name, more in TOLD.items() if can(name)}
    running = {name: subprocess.Popen(one, stdout=-1, stderr=-1, text=True) for name, one in commands.items()}
    yield running
    for process in running.values():
        if process.poll() is None:
            process.terminate()
            process.communicate()


def ends(process: subprocess.Popen[str]) -> list[str]:
    """What a script printed at last, all being well."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err[-3000:]
    return out.splitlines()[-3:]


def test_whatever_is_killed(started: dict[str, subprocess.Popen[str]]) -> None:
    """On SQLite the daemon is killed at every step of a commit, and at random, and the broker once: no divergence."""
    steps, restarts, runs = ends(started["sqlite"])
    assert steps.startswith("at the 8 steps of a commit: 3, 3, 3, 3, 3, 3, 3, 3 kills")
    assert restarts == "restarts: 3 of the broker, 0 of the database"
    assert (runs[:8], runs[-15:]) == ("3 runs, ", ", 0 divergences")


def test_and_when_the_database_crashes(started: dict[str, subprocess.Popen[str]]) -> None:
    """On PostgreSQL the database crashes too, at a random moment and around a commit: no divergence."""
    if "postgres" not in started:
        pytest.skip("needs a PostgreSQL server of its own: initdb on PATH or in /usr/lib/postgresql/*/bin, and psycopg")
    steps, restarts, runs = ends(started["postgres"])
    assert steps.startswith("at the 8 steps of a commit: 2, 2, 2, 2, 2, 2, 2, 2 kills")
    assert restarts == "restarts: 2 of the broker, 4 of the database"
    assert (runs[:8], runs[-15:]) == ("2 runs, ", ", 0 divergences")
