"""The chaos script, five fixed seeds of it: whatever is killed or crashes, the end is that of an undisturbed replay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import servers

from postgres_server import HOW

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos.py"


def chaos(runs: int, seed: int, *more: str) -> list[str]:
    """What the script prints at last, of runs side by side with few impressions."""
    told = [
        "--runs",
        str(runs),
        "--jobs",
        str(runs),
        "--seed",
        str(seed),
        "--kills",
        "1",
        "--impressions",
        "500",
        *more,
    ]
    done = subprocess.run([sys.executable, SCRIPT, *told], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout.splitlines()[-3:]


def test_whatever_is_killed(kafka_script: Path) -> None:
    """On SQLite the daemon is killed at every step of a commit, and at random, and the broker once: no divergence."""
    steps, restarts, ends = chaos(3, 1)
    assert steps.startswith("at the 8 steps of a commit: 3, 3, 3, 3, 3, 3, 3, 3 kills")
    assert restarts == "restarts: 3 of the broker, 0 of the database"
    assert ends.startswith("3 runs, ")
    assert ends.endswith(" kills, 0 divergences")


def test_and_when_the_database_crashes(kafka_script: Path) -> None:
    """On PostgreSQL the database crashes too, at a random moment and around a commit: no divergence."""
    pytest.importorskip("psycopg", reason=HOW)
    if servers.binaries() is None:
        pytest.skip(
            "needs a PostgreSQL server of its own: install it, with initdb on PATH or in /usr/lib/postgresql/*/bin"
        )
    steps, restarts, ends = chaos(2, 4, "--postgres")
    assert steps.startswith("at the 8 steps of a commit: 2, 2, 2, 2, 2, 2, 2, 2 kills")
    assert restarts == "restarts: 2 of the broker, 4 of the database"
    assert ends.endswith(" kills, 0 divergences")
