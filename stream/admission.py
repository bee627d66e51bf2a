"""Whether the broker lets us in, by what its client warns of: kafka-python tries again and again, whatever the reason."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from stream.config import Kafka
from stream.environment import variable


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """What kafka-python warns of meanwhile."""
    handler, logger = _Said(), logging.getLogger("kafka")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


def refusal(config: Kafka, said: list[str], error: Exception) -> str | None:
    """Why the broker does not let us in, where waiting will not help; None if that is not the reason."""
    text, servers = "\n".join([*said, repr(error)]), ", ".join(config.servers)
    if "UnsupportedSaslMechanism" in text:
        return f"kafka {servers}: the broker does not offer mechanism {config.mechanism}; correct kafka.mechanism"
    if "IllegalSaslState" in text:
        return f"kafka {servers}: the listener takes no user and password; set a kafka.protocol without SASL"
    if "SaslAuthenticationFailed" in text or "uthentication failed" in text:
        return (
            f"kafka {servers}: user {config.username!r} was refused ({config.mechanism}): wrong name or password; correct "
            f"kafka.username, and the password in {variable('kafka.password')}"
        )
    return None


def unknown(config: Kafka, said: list[str], error: Exception) -> str:
    servers, last = ", ".join(config.servers), said[-1] if said else str(error)
    if config.protocol.startswith("SASL") and any("disconnected" in line for line in said):
        return (  # a refusal and its hang-up arrive as one, and the client may see the second only
            f"kafka {servers}: the broker hangs up on user {config.username!r} ({config.mechanism}): wrong name or "
            "password, or a mechanism that it does not offer; correct kafka.username, kafka.mechanism, and "
            f"{variable('kafka.password')}"
        )
    if config.password:
        last = last.replace(config.password.get_secret_value(), "***")
    return (
        f"kafka {servers}: it listens, but no conversation came about as {config.protocol} within "
        f"{config.timeout / 1000:g} s (the client says: {last}); check kafka.protocol"
    )
