"""What is said when the broker cannot be reached as asked: the thing, the value, the remedy, in time, and no secret."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr
from servers import free_port

from broker_tools import configured, until
from stream.config import Kafka
from stream.kafka_source import KafkaSource
from stream.sources import SourceError

SECRET = "s3cret-of-the-broker"  # noqa: S105  # of a broker that lives as long as the test


class Secure(NamedTuple):
    """A broker with a listener in plain text and one with SASL over TLS; ``ca`` signed its certificate for 127.0.0.1."""

    plain: str
    port: int
    ca: Path
    other: Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def authority(folder: Path, name: str) -> tuple[Path, Path]:
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        2,
        "-subj",
        f"/CN={name}",
        "-keyout",
        key,
        "-out",
        certificate,
    )
    return key, certificate


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """(the server's key and certificate in one file, its authority, another authority)."""
    key, ca = authority(folder, "ca")
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=broker",
        "-keyout",
        folder / "s.key",
        "-out",
        folder / "s.csr",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", 2, "-extfile", folder / "names")
    openssl("x509", "-req", "-in", folder / "s.csr", *signed, "-out", folder / "s.pem")
    server = folder / "server.pem"
    server.write_text((folder / "s.key").read_text() + (folder / "s.pem").read_text())
    return server, ca, authority(folder, "other")[1]


@pytest.fixture(scope="module")
def secure(kafka_script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    server, ca, other = certificates(folder)
    port, tls = free_port(), free_port()
    jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="{SECRET}";'
    lines = [
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1},SASL_SSL://127.0.0.1:{tls}",
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{tls}",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={server}",
        "sasl.enabled.mechanisms=PLAIN",
        f"listener.name.sasl_ssl.plain.sasl.jaas.config={jaas}",
    ]
    where = ["--port", str(port), "--dir", str(folder / "data")]
    told = [word for line in lines for word in ("--set", line)]
    subprocess.run([kafka_script, "start", *where, "--heap", "256m", *told], check=True, capture_output=True)
    yield Secure(f"127.0.0.1:{port}", tls, ca, other)
    subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)


def safe(broker: Secure, **change: Any) -> Kafka:
    """A configuration that works, but for the change."""
    told: dict[str, Any] = {
        "servers": (f"127.0.0.1:{broker.port}",),
        "protocol": "SASL_SSL",
        "cafile": broker.ca,
        "username": "app",
        "password": SecretStr(SECRET),
        "timeout": 5_000,
    }
    return configured(broker.plain, **(told | change))


def said(config: Kafka) -> str:
    """What is said at the start, which must fail in time and tell no secret."""
    begun = time.monotonic()
    with pytest.raises(SourceError) as error:
        KafkaSource(config)
    assert time.monotonic() - begun < config.timeout / 1000 + 3
    assert SECRET not in str(error.value)
    assert "wrong-" not in str(error.value)
    return str(error.value)


def test_sasl_over_tls(secure: Secure) -> None:
    """With the right user, password and authority, topics are read."""
    source = KafkaSource(safe(secure))
    assert len(source.partitions()) == 8
    source.poll(1)
    source.close()


def test_a_wrong_password(secure: Secure) -> None:
    """The user is named, the password is not, and the variable it comes from is."""
    text = said(safe(secure, password=SecretStr("wrong-password")))
    assert "on user 'app' (PLAIN): wrong name or password" in text or "user 'app' was refused" in text
    assert "BELATED_KAFKA__PASSWORD" in text


def test_a_mechanism_that_is_not_offered(secure: Secure) -> None:
    """The mechanism is named, also where the broker hangs up before its answer is read."""
    text = said(safe(secure, mechanism="SCRAM-SHA-512"))
    assert "not offer mechanism SCRAM-SHA-512" in text or "(SCRAM-SHA-512): wrong name" in text


def test_a_password_that_is_changed_while_reading(kafka_script: Path, tmp_path: Path) -> None:
    """A broker that is away is waited for; one that is back and takes the user no more is refused as at a start."""
    port, sasl = free_port(), free_port()
    where = ["--port", str(port), "--dir", str(tmp_path / "data"), "--heap", "256m"]

    def started(password: str) -> None:
        jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="{password}";'
        lines = [
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1},SASL_PLAINTEXT://127.0.0.1:{sasl}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl}",
            "sasl.enabled.mechanisms=PLAIN",
            f"listener.name.sasl_plaintext.plain.sasl.jaas.config={jaas}",
        ]
        told = [word for line in lines for word in ("--set", line)]
        subprocess.run([kafka_script, "start", *where, *told], check=True, capture_output=True)

    try:
        started(SECRET)
        user: dict[str, Any] = {"protocol": "SASL_PLAINTEXT", "username": "app", "password": SecretStr(SECRET)}
        server = {"servers": (f"127.0.0.1:{sasl}",)}
        source = KafkaSource(configured(f"127.0.0.1:{port}", **user).model_copy(update=server))
        source.poll(1)
        subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)
        end = time.monotonic() + 60
        while source.reachable:
            assert time.monotonic() < end
            source.poll(1)
        started("another")
        with pytest.raises(SourceError, match=r"user 'app' was refused.*BELATED_KAFKA__PASSWORD"):
            until(source, lambda found: False, 60)
        source.close()
    finally:
        subprocess.run([kafka_script, "kill", *where], check=True, capture_output=True)


def test_an_authority_that_is_not_trusted(secure: Secure) -> None:
    """Another authority, or none: the remedy is cafile."""
    assert "certificate is not trusted" in said(safe(secure, cafile=secure.other))
    assert "kafka.cafile (now those of the system)" in said(safe(secure, cafile=None))


def test_a_certificate_for_another_host(secure: Secure) -> None:
    """`localhost` is not 127.0.0.1; without check_hostname it may be."""
    servers = (f"localhost:{secure.port}",)
    assert "certificate is for another host" in said(safe(secure, servers=servers))
    KafkaSource(safe(secure, servers=servers, check_hostname=False)).close()


def test_a_file_of_certificates_that_is_none(secure: Secure, tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "x.pem").write_text("x")
    assert f"kafka.cafile {tmp_path / 'x.pem'}" in said(safe(secure, cafile=tmp_path / "x.pem"))
    assert "gone.pem" in said(safe(secure, certfile=tmp_path / "gone.pem"))


def test_tls_spoken_to_a_plain_listener(secure: Secure) -> None:
    """The protocol that would do is named."""
    text = said(safe(secure, servers=(secure.plain,)))
    assert "does not speak TLS; set kafka.protocol SASL_PLAINTEXT instead of SASL_SSL" in text


def test_plain_text_spoken_to_a_tls_listener(secure: Secure) -> None:
    """The other way round."""
    text = said(safe(secure, protocol="PLAINTEXT"))
    assert "speaks TLS: set kafka.protocol SSL instead of PLAINTEXT" in text


def test_nobody_there() -> None:
    """A refused connection, an unknown host, and what is no address."""
    assert "connection refused" in said(Kafka(servers=("127.0.0.1:1",), timeout=2_000))
    assert "no such host" in said(Kafka(servers=("no-such-host.invalid:9092",), timeout=2_000))
    for wrong in ("127.0.0.1:many", ":29392"):
        assert f"{wrong}: not a host:port" in said(Kafka(servers=(wrong,), timeout=2_000))


def test_all_servers_are_tried(kafka: str) -> None:
    """One that answers is enough; where none does, each is told of."""
    KafkaSource(configured(kafka).model_copy(update={"servers": ("127.0.0.1:1", kafka)})).close()
    text = said(Kafka(servers=("127.0.0.1:1", "127.0.0.1:2"), timeout=2_000))
    assert "127.0.0.1:1: connection refused" in text
    assert "127.0.0.1:2: connection refused" in text


def test_a_listener_that_says_nothing() -> None:
    """Something accepts the connection and never answers: that is said within the time given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []
        threading.Thread(target=lambda: held.append(server.accept()[0]), daemon=True).start()
        text = said(Kafka(servers=(f"127.0.0.1:{server.getsockname()[1]}",), timeout=2_000))
        for link in held:
            link.close()
    assert "does not answer as a broker" in text
