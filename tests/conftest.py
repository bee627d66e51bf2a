"""What all tests share: one thread, as in production, and the folder of real data; at the end, services."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("belated", deadline=None, derandomize=True)
settings.load_profile("belated")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real logs, named by BELATED_DATA."""
    folder = os.environ.get("BELATED_DATA")
    if not folder:
        pytest.skip("needs real logs: set BELATED_DATA to their folder (see CONTRIBUTING.md)")
    return Path(folder)


# Kafka ----------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on, and whose successor nobody does either: a broker takes both."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def kafka_script() -> Path:
    """What starts a broker, named by BELATED_KAFKA_SCRIPT."""
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        pytest.skip(
            "needs a broker of its own: set BELATED_KAFKA_SCRIPT to a script that starts one (see CONTRIBUTING.md)"
        )
    return Path(script)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """host:port of a broker: BELATED_KAFKA, else one that is started for the session."""
    if running := os.environ.get("BELATED_KAFKA"):
        yield running
        return
    if not os.environ.get("BELATED_KAFKA_SCRIPT"):
        pytest.skip("needs a broker: set BELATED_KAFKA=host:port, or BELATED_KAFKA_SCRIPT to a script that starts one")
    script, port = request.getfixturevalue("kafka_script"), free_port()
    where = ["--port", str(port), "--dir", str(tmp_path_factory.mktemp("kafka"))]
    subprocess.run([script, "start", *where, "--heap", "256m"], check=True, capture_output=True)
    yield f"127.0.0.1:{port}"
    subprocess.run([script, "kill", *where], check=True, capture_output=True)
