"""The chaos script, one seed of it: whatever is killed, the end is that of an undisturbed replay."""

import os
import subprocess
import sys
from pathlib import Path


def test_whatever_is_killed(kafka_script: Path) -> None:
    """The daemon is killed at every step of a commit and at random, the broker once: no divergence."""
    script = Path(__file__).parent.parent / "benchmarks" / "chaos.py"
    command: list[str | Path] = [sys.executable, script, "--runs", "1", "--kills", "1", "--impressions", "1000"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs, kills, divergences = done.stdout.strip().splitlines()[-1].split(", ")
    assert (runs, divergences) == ("1 runs", "0 divergences")
    assert int(kills.split()[0]) >= 5
