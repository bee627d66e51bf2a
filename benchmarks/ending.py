"""How a disturbed run ends, and how it would have ended: left to finish, and a replay of the same records."""

import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from feed import Feed, forwarded

from labelstore import ledger
from labelstore.stats import digest
from labelstore.store import LabelStore, StoreError
from stream import fetch
from stream.checkpoint import Checkpoints
from stream.config import Kafka
from stream.files import FileSource
from stream.kafka_outbox import KafkaOutbox
from stream.kafka_source import KafkaSource
from stream.loop import Loop
from stream.settings import Settings
from stream.sources import Source
from stream.workspace import opened

PATIENCE = 240.0  # seconds within which a run must end
UNLOCKED = 10.0  # seconds within which a session whose process was killed gives up its lock


class End(NamedTuple):
    """What must be the same: rows, sha256 of the checkpoint, event time, records in the topic of dead letters."""

    facts: str
    weights: str
    watermark: int
    dead_letters: int


class Unended(Exception):
    """A run that was left alone and did not come to its end."""


def finished(config: Kafka, url: str, folder: Path, feed: Feed, settings: Settings) -> End:
    """Go on from the last commit until all has been sent, read, and has passed, and every dead letter is forwarded."""
    deadline = time.monotonic() + UNLOCKED
    while True:
        try:
            with opened(url, settings, folder) as (facts, checkpoints), closing(KafkaOutbox(config)) as outbox:
                with closing(KafkaSource(config)) as source:
                    end = _left_alone(source, settings, facts, checkpoints, feed, outbox)
                checkpoints.forward(outbox)
            return end._replace(dead_letters=forwarded(config))
        except StoreError as error:
            if "another process" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def replayed(config: Kafka, url: str, folder: Path, total: int, settings: Settings) -> End:
    """The end of an undisturbed replay of what the broker holds, with the journal of the store ``url``."""
    with opened(url, settings, folder / "checkpoints") as (facts, _):
        advances = ledger.load_journal(facts.connection)
    fetch.fetch(config, folder / "log", "earliest", "end", fetch.LiveRun(advances))
    with opened(f"sqlite:///{folder}/replayed.db", settings) as (facts, checkpoints):
        loop = Loop(FileSource(folder / "log"), settings, facts, checkpoints, finished=False)
        loop.run()
        if loop.counts["read"] != total:
            raise Unended(f"{loop.counts['read']} of {total} records were replayed")
        return _end(loop, facts)


def _left_alone(
    source: Source,
    settings: Settings,
    facts: LabelStore,
    checkpoints: Checkpoints,
    feed: Feed,
    outbox: KafkaOutbox,
) -> End:
    """Until all has been sent and read, and has passed."""
    loop, deadline = Loop(source, settings, facts, checkpoints, every_s=1, outbox=outbox), time.monotonic() + PATIENCE
    done = False

    def told(read: int) -> None:
        nonlocal done
        done = not feed.rest() and read == feed.total and loop.passed == loop.reading.clocks.value > 0
        if time.monotonic() > deadline:
            raise Unended(f"{read} of {feed.total} records were read, {loop.numbers} after {PATIENCE:g} s")

    loop.run(told, lambda: done)
    return _end(loop, facts)


def _end(loop: Loop, facts: LabelStore) -> End:
    newest = ledger.newest(facts.connection)
    assert newest is not None
    return End(digest(facts.connection), newest.sha256, loop.reading.clocks.value, loop.counts["dead_letters"])
