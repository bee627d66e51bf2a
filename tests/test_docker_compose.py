"""The compose file: what it promises can be read off it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).parent.parent / "docker-compose.yml"


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_every_port_is_on_loopback(services: dict[str, Any]) -> None:
    """No port is open to the network."""
    ports = [port for service in services.values() for port in service["ports"]]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_is_written_down(services: dict[str, Any]) -> None:
    """Secrets come from the environment, without a default."""
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name:
                assert str(value).startswith("${")
                assert ":?" in value


def test_every_service_is_pinned_healthy_and_keeps_its_data(services: dict[str, Any]) -> None:
    """Each image has a version, a health check, and a named volume that is declared."""
    declared = yaml.safe_load(FILE.read_text())["volumes"]
    for service in services.values():
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
        assert service["healthcheck"]["test"][0] == "CMD"
        assert all(volume.split(":")[0] in declared for volume in service["volumes"])
