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


def _two_ports() -> int:
    """The first of two free ports, below those the system gives to others meanwhile."""
    for port in range(20_000 + 2 * (os.getpid() % 5_000), 32_000, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports for a broker; end what holds them, or set BELATED_KAFKA")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real broker: that of BELATED_KAFKA, else one that BELATED_KAFKA_SCRIPT starts for this session."""
    if running := os.environ.get("BELATED_KAFKA"):
        yield running
        return
    script = os.environ.get("BELATED_KAFKA_SCRIPT")
    if not script:
        pytest.skip("needs Kafka: set BELATED_KAFKA=host:port, or BELATED_KAFKA_SCRIPT (see CONTRIBUTING.md)")
    port = _two_ports()
    place = ["--port", str(port), "--dir", str(tmp_path_factory.mktemp("kafka"))]
    subprocess.run([script, "start", *place], check=True, capture_output=True, timeout=90)
    yield f"127.0.0.1:{port}"
    subprocess.run([script, "stop", *place], check=False, capture_output=True, timeout=60)
