"""The compose file: what it promises can be read off it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).parent.parent / "docker-compose.yml"


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_the_file_is_what_compose_reads() -> None:
    """The compose specification's own schema, as check-jsonschema brings it, has nothing to say against it."""
    pytest.importorskip("check_jsonschema", reason="needs the extra `dev`: pip install 'belated[dev]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_port_is_on_loopback(services: dict[str, Any]) -> None:
    """No port is open to the network."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_is_written_down(services: dict[str, Any]) -> None:
    """Secrets come from the environment, without a default."""
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert str(value).startswith("${")
                assert ":?" in value


ONCE = {"topics", "migrate", "simulator"}  # they do one thing and end


def test_every_service_is_pinned_healthy_and_keeps_its_data(services: dict[str, Any]) -> None:
    """Each image has a version or is built here; what stays up has a health check of its own or of its image; volumes are
    files of this checkout, read-only, or declared."""
    declared = yaml.safe_load(FILE.read_text())["volumes"]
    for name, service in services.items():
        assert "build" in service or (not service["image"].endswith(":latest") and ":" in service["image"])
        once = "on-failure" if name == "migrate" else None
        assert service.get("restart") == (once if name in ONCE else "unless-stopped")
        if name not in ONCE and "build" not in service and name != "grafana":
            assert service["healthcheck"]["test"][0] == "CMD"
        for volume in service.get("volumes", []):
            source, *rest = volume.split(":")
            assert source in declared or (rest[-1] == "ro" and (FILE.parent / source).exists())


def test_each_starts_when_what_it_needs_is_there(services: dict[str, Any]) -> None:
    """Health checks order the start: broker and database, topics and tables, the learner, the shop."""
    needs = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert needs["topics"] == {"kafka": {"condition": "service_healthy"}}
    assert needs["migrate"] == {"postgres": {"condition": "service_healthy"}}
    assert set(needs["learner"]) == {"migrate", "topics"}
    assert all(need["condition"] == "service_completed_successfully" for need in needs["learner"].values())
    assert needs["simulator"] == {"learner": {"condition": "service_healthy"}}


def test_the_learner_is_shut_in(services: dict[str, Any]) -> None:
    """Not root, no capabilities, a read-only root, an init that passes signals on; what lasts is on the named volume."""
    learner, dockerfile = services["learner"], (FILE.parent / "deploy" / "Dockerfile").read_text()
    assert learner["read_only"]
    assert learner["init"]
    assert learner["cap_drop"] == ["ALL"]
    assert "checkpoints:/var/lib/belated" in learner["volumes"]
    assert "USER belated" in dockerfile


def test_the_configuration_of_the_demo_network_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner's file has no unknown key and no secret, and its topics are those that are made."""
    from stream.config import load

    monkeypatch.setenv("BELATED_STORE__PASSWORD", "x")
    config = load(FILE.parent / "deploy" / "belated.toml")
    made = yaml.safe_load(FILE.read_text())["services"]["topics"]["command"][0]
    for topic in (*config.kafka.topics, config.kafka.dead_letters):
        assert str(topic) in made


def test_each_alert_fires_where_it_should() -> None:
    """Prometheus' own test of rules: of two learners the one in trouble is told, the other not."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which comes with Prometheus: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", FILE.parent / "deploy" / "alerts.test.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    """Every metric in Grafana's dashboard and in the alerts is one that /metrics serves; an alert says what it means."""
    pytest.importorskip("prometheus_client", reason="needs the extra `daemon`: pip install 'belated[daemon]'")
    from prometheus_client import generate_latest

    from stream.health import Health
    from test_health import STATUS

    health = Health()
    health.publish(STATUS)
    served = set(re.findall(r"^(belated_\w+)", generate_latest(health.registry).decode(), re.M))
    board = json.loads((FILE.parent / "deploy" / "grafana" / "dashboards" / "belated.json").read_text())
    asked = {
        name for panel in board["panels"] for t in panel["targets"] for name in re.findall(r"belated_\w+", t["expr"])
    }
    assert asked
    alerts = yaml.safe_load((FILE.parent / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
    assert all(alert["annotations"]["summary"] for alert in alerts)
    tried = yaml.safe_load((FILE.parent / "deploy" / "alerts.test.yml").read_text())["tests"][0]["alert_rule_test"]
    assert [alert["alert"] for alert in alerts] == [one["alertname"] for one in tried]
    asked |= {name for alert in alerts for name in re.findall(r"belated_\w+", alert["expr"])}
    assert asked <= served | {"belated_settled_auc"}
