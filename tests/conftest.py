"""What all tests share: one thread, as in production, and the folder of real data."""

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


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker: that of BELATED_KAFKA, else one that BELATED_KAFKA_SCRIPT starts for this session."""
    if running := os.environ.get("BELATED_KAFKA"):
        yield running
        return
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        pytest.skip("needs Kafka: set BELATED_KAFKA=host:port, or BELATED_KAFKA_SCRIPT (see CONTRIBUTING.md)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = ["--port", port, "--dir", str(tmp_path_factory.mktemp("kafka"))]
    subprocess.run([script, "start", *place], check=True, capture_output=True, timeout=90)
    yield f"127.0.0.1:{port}"
    subprocess.run([script, "stop", *place], check=False, capture_output=True, timeout=60)
