"""`belated run`: the daemon."""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.commands.logs import tune_garbage_collector

File = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="belated.toml; without one, defaults and the environment (BELATED_...)"),
]


def run(config: File = None) -> None:
    """Learn from Kafka until told to stop: labels, offsets and weights are one commit, whatever is killed.

    Goes on where the last commit stood. SIGTERM or Ctrl-C: finish, commit, leave; a second one: at once. JSON lines go to
    standard error; /healthz, /readyz, /metrics and /status are served on http.host:http.port.

    Example: belated config init belated.toml; belated run -c belated.toml
    """
    from stream.config import load
    from stream.daemon import run as forever
    from stream.kafka_outbox import KafkaOutbox
    from stream.kafka_source import KafkaSource

    told = load(config)
    log_as_json(told.log.level)
    tune_garbage_collector()
    with ExitStack() as leaving:
        outbox = KafkaOutbox(told.kafka) if told.kafka.dead_letters else None
        if outbox:
            leaving.callback(outbox.close)

        def source() -> KafkaSource:
            opened = KafkaSource(told.kafka)
            leaving.callback(opened.close)
            return opened

        forever(told, source, outbox)


def log_as_json(level: str) -> None:
    """Every line of the log is one JSON object with a time in UTC: ours, and the warnings of libraries."""
    import structlog

    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Any] = [structlog.stdlib.add_log_level, stamp]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
        )
    )
    if level != "debug":  # of a broker that is away the client says much, and the daemon what there is to know
        handler.addFilter(lambda record: record.levelno >= logging.CRITICAL or not record.name.startswith("kafka."))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
