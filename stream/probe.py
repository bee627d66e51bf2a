"""A look at a server with a plain socket, to tell apart what a client reports as one: no host, no listener, wrong protocol,
a certificate that is not trusted or is for another host."""

import socket
import ssl
import time

from stream.config import Kafka
from stream.sources import SourceError

HELLO = b"\x00\x00\x00\x11\x00\x12\x00\x00\x00\x00\x00\x00\x00\x07belated"  # ApiVersions, version 0
ALERT = 0x15  # first byte of an answer in TLS
WRONG_HOST = (62, 64)  # OpenSSL: mismatch of host name, of IP address


def probe(config: Kafka, context: ssl.SSLContext | None, deadline: float) -> None:
    """Look at the servers one by one, until one is as it should be.

    Raises:
        SourceError: none is; what is wrong with each.
    """
    found = []
    for n, server in enumerate(config.servers):
        seconds = max(0.5, (deadline - time.monotonic()) / (len(config.servers) - n + 1))
        try:
            _look(config, server, context, seconds)
            return
        except SourceError as error:
            found.append(str(error))
    raise SourceError("; ".join(dict.fromkeys(found)))


def _look(config: Kafka, server: str, context: ssl.SSLContext | None, seconds: float) -> None:
    host, between, port = server.rpartition(":")
    host, port = (host.strip("[]"), port) if between else (port, "9092")
    try:
        if not host:
            raise ValueError
        link = socket.create_connection((host, int(port)), seconds)
    except socket.gaierror as error:
        raise SourceError(f"kafka {server}: no such host ({error.strerror}); correct kafka.servers") from None
    except ConnectionRefusedError:
        raise SourceError(
            f"kafka {server}: connection refused, nothing listens there; start the broker or correct kafka.servers"
        ) from None
    except ValueError:
        raise SourceError(f"kafka {server}: not a host:port; correct kafka.servers") from None
    except OSError as error:
        said = "no answer" if isinstance(error, TimeoutError) else error.strerror
        raise SourceError(f"kafka {server}: cannot be reached ({said}); check kafka.servers and the network") from None
    with link:
        if context is None:
            _hello(server, config, link)
        else:
            _handshake(server, config, context, link, host)


def _hello(server: str, config: Kafka, link: socket.socket) -> None:
    try:
        link.sendall(HELLO)
        answer = link.recv(4)
    except TimeoutError:
        raise SourceError(f"kafka {server}: it listens, but does not answer as a broker; check kafka.servers") from None
    except OSError:
        answer = b""
    if not answer or answer[0] == ALERT:
        secure = "SASL_SSL" if config.protocol.startswith("SASL") else "SSL"
        raise SourceError(
            f"kafka {server}: the listener ends a conversation in plain text; it speaks TLS: set kafka.protocol {secure} "
            f"instead of {config.protocol}, or use the port of another listener"
        )


def _handshake(server: str, config: Kafka, context: ssl.SSLContext, link: socket.socket, host: str) -> None:
    try:
        with context.wrap_socket(link, server_hostname=host):
            return
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in WRONG_HOST:
            raise SourceError(
                f"kafka {server}: the broker's certificate is for another host ({error.verify_message}); use the name it is "
                "for in kafka.servers, or set check_hostname = false"
            ) from None
        raise SourceError(
            f"kafka {server}: the broker's certificate is not trusted ({error.verify_message}); set kafka.cafile (now "
            f"{config.cafile or 'those of the system'}) to the authority that signed it"
        ) from None
    except TimeoutError:
        raise SourceError(f"kafka {server}: it listens, but does not answer in TLS; check kafka.servers") from None
    except OSError:
        plain = "SASL_PLAINTEXT" if config.protocol == "SASL_SSL" else "PLAINTEXT"
        raise SourceError(
            f"kafka {server}: the listener does not speak TLS; set kafka.protocol {plain} instead of {config.protocol}, or "
            "use the port of another listener"
        ) from None
