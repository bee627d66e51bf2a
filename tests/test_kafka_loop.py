"""The whole line through a broker: a live run that is killed in the middle is the replay of its log and journal."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker_tools import configured, produce, until
from labelstore import ledger
from labelstore.ledger import Advance
from live_run import SETTINGS
from stream import journal
from stream.config import Kafka
from stream.files import FileSource
from stream.kafka_source import KafkaSource
from stream.loop import Loop
from stream.simulate.scenario import Scenario
from stream.simulate.write import write
from stream.sources import ListSource, Partition, Record
from stream.workspace import checkpoint_folder, opened
from test_journal import End, end, replayed

TOPICS = {"impression": "impressions", "signal": "signals", "conversion": "conversions", "adjustment": "conversions"}
Records = list[tuple[str, int, bytes | None]]


def simulated(folder: Path, config: Kafka) -> Records:
    """A simulated log, user by partition, each kind of event in its topic; in the order in which it arrives."""
    write(Scenario(impressions=1_500, partitions=4, days=6, seed=3, broken=0.002, late=0.05), folder)
    found: list[tuple[float, str, int, bytes]] = []
    for file in sorted((folder / "events").glob("*.jsonl")):
        values = file.read_bytes().splitlines()
        for n, value in enumerate(values):
            kind = next(
                (topic for name, topic in TOPICS.items() if f'"type":"{name}"'.encode() in value), "impressions"
            )
            found.append((n / len(values), getattr(config, kind), int(file.stem), value))
    return [(topic, partition, value) for _, topic, partition, value in sorted(found)]


def killed_after_a_commit(url: str, config: Kafka) -> None:
    """Start a live run, and kill it with SIGKILL once it has committed twice."""
    script = Path(__file__).parent / "live_run.py"
    process = subprocess.Popen([sys.executable, script, url, config.model_dump_json()])
    deadline = time.monotonic() + 60
    try:
        while max((int(file.stem) for file in checkpoint_folder(url).glob("[0-9]*.safetensors")), default=0) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


def gone_on(url: str, config: Kafka, more: Callable[[], bool], total: int) -> End:
    """Go on from the last commit until all is read and has passed."""
    source, done = KafkaSource(config), False
    with opened(url, SETTINGS) as (store, checkpoints):
        loop = Loop(source, SETTINGS, store, checkpoints, poll=300, every=700, every_s=1)

        def told(read: int) -> None:
            nonlocal done
            done = not more() and read == total and loop.passed == loop.reading.clocks.value

        loop.run(told, lambda: done)
        source.close()
        return end(loop)


def read_again(config: Kafka, total: int) -> dict[tuple[str, int], list[bytes | Record]]:
    """What the topics hold."""
    source = KafkaSource(config)
    found: dict[tuple[str, int], list[bytes | Record]] = {partition: [] for partition in source.partitions()}
    for record in until(source, lambda found: len(found) == total):
        found[Partition(record.topic, record.partition)].append(record)
    source.close()
    return found


def exported(folder: Path, log: dict[tuple[str, int], list[bytes | Record]], rows: list[Advance]) -> None:
    """A log on disk, with its journal."""
    for (topic, partition), records in log.items():
        (folder / topic).mkdir(parents=True, exist_ok=True)
        values = (record.value for record in records if isinstance(record, Record))
        (folder / topic / f"{partition}.jsonl").write_bytes(b"".join(value + b"\n" for value in values))
    journal.write(folder / journal.NAME, rows)


def test_a_live_run_that_is_killed_is_its_replay(kafka: str, tmp_path: Path) -> None:
    """Four partitions a topic, one topic empty and so silent, SIGKILL in the middle: same rows, same weights."""
    url = f"sqlite:///{tmp_path}/store.db"
    config = configured(kafka, partitions=4, idle_after=400)
    log = simulated(tmp_path / "simulated", config)
    parts = [log[n : n + 600] for n in range(0, len(log), 600)]
    produce(kafka, parts[0])
    feeding: dict[str, Any] = {"left": parts[1:], "at": time.monotonic()}

    def more() -> bool:
        """Further records every half second, so that some partitions are silent while others are not."""
        if feeding["left"] and time.monotonic() - feeding["at"] > 0.5:
            produce(kafka, feeding["left"].pop(0))
            feeding["at"] = time.monotonic()
        return bool(feeding["left"])

    produce(kafka, feeding["left"].pop(0))
    killed_after_a_commit(url, config)
    live = gone_on(url, config, more, len(log))
    assert live.watermark > 0
    assert {row.topic for row in live.journal} >= {config.items}
    records = read_again(config, len(log))
    assert replayed(ListSource(records, live.journal), SETTINGS) == live
    exported(tmp_path / "log", records, live.journal)
    assert replayed(FileSource(tmp_path / "log"), SETTINGS)[1:] == live[1:]  # its dead letters have no timestamps
    with opened(url, SETTINGS) as (store, _):
        assert ledger.load_journal(store.connection) == live.journal
