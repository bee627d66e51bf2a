"""What docker-compose.yml starts, started here without containers: its broker's settings, its commands, its learner."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kafka.admin import KafkaAdminClient, NewTopic
from servers import free_port
from sqlalchemy.engine import make_url

from test_daemon import Daemon, accounted

ROOT = Path(__file__).parent.parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
LEARNER = ROOT / "deploy" / "belated.toml"


class Network(NamedTuple):
    """host:port of the listener inside the network, and of the one for the host."""

    internal: str
    external: str


@pytest.fixture(scope="module")
def network(kafka_script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A broker with the settings of the compose file, its three listeners on free ports of loopback, and its topics."""
    port, outside, folder = free_port(), free_port(), tmp_path_factory.mktemp("compose")
    where = ["--port", str(port), "--dir", str(folder)]
    told = [word for line in properties(port, outside, folder) for word in ("--set", line)]
    subprocess.run([kafka_script, "start", *where, "--heap", "256m", *told], check=True, capture_output=True)
    try:
        made = SERVICES["topics"]["command"][0]
        (names,), (partitions,) = re.findall(r"for topic in (.+); do", made), re.findall(r"--partitions (\d+)", made)
        configs = dict(re.findall(r"--config (\S+)=(\S+)", made))
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
        admin.create_topics([NewTopic(name, int(partitions), 1, topic_configs=configs) for name in names.split()])
        admin.close()
        yield Network(f"127.0.0.1:{port}", f"127.0.0.1:{outside}")
    finally:
        subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)


def properties(port: int, outside: int, folder: Path) -> list[str]:
    """The variables of the broker's image as lines of server.properties; hosts, ports and the folder are ours."""
    places = {
        r"(//|//kafka):29092": rf"//127.0.0.1:{port}",
        r"//(127\.0\.0\.1)?:9092": rf"//127.0.0.1:{outside}",
        r"//:9093": rf"//127.0.0.1:{port + 1}",
        r"@localhost:9093": rf"@127.0.0.1:{port + 1}",
        "/var/lib/kafka/data": f"{folder}/logs",
    }
    lines = []
    for name, value in SERVICES["kafka"]["environment"].items():
        text = str(value)
        for pattern, place in places.items():
            text = re.sub(pattern, place, text)
        lines.append(f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={text}")
    return lines


def belated(*words: str | Path, **environment: str) -> None:
    command = [sys.executable, "-m", "stream.cli", *map(str, words)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_broker_database_and_learner_as_composed(network: Network, schema: str, tmp_path: Path) -> None:
    """The database is made by the migrating command, a shop's log comes in by the listener for the host, and the learner
    is ready and has read all of it, with its file and what the environment changes of it."""
    made = make_url(schema)
    url = made._replace(password=None).render_as_string(hide_password=False)
    secret = {"BELATED_STORE__PASSWORD": str(made.password)}
    migrate = SERVICES["migrate"]["command"]
    belated(*migrate[:-1], url, **secret)
    belated("simulate", tmp_path / "log", "--scenario", "both", "--impressions", "300")
    outside = {"BELATED_KAFKA__SERVERS": json.dumps([network.external])}
    belated("produce", tmp_path / "log", "--config", LEARNER, **outside, **secret)
    total = (tmp_path / "log" / "events" / "0.jsonl").read_bytes().count(b"\n")
    told = {
        "BELATED_KAFKA__SERVERS": json.dumps([network.internal]), "BELATED_STORE__URL": url, **secret,
        "BELATED_STORE__CHECKPOINTS": str(tmp_path / "checkpoints"), "BELATED_STORE__EVERY": "1s",
        "BELATED_HTTP__HOST": "127.0.0.1",
    }  # fmt: skip
    daemon = Daemon(told, LEARNER)
    try:
        status = daemon.wait(lambda s: s["ready"] and s["counts"].get("read") == total and s["commit"] > 0)
        assert accounted(status) == total > 400
        assert len(status["lag"]) == 16
        assert daemon.stop()[0] == 0
    finally:
        daemon.process.kill()
        daemon.process.communicate()
