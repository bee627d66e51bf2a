"""A simulated log that comes into a broker's topics bit by bit: users by partition, each kind of event in its topic."""

import time
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from stream.config import Kafka
from stream.simulate.scenario import Scenario
from stream.simulate.write import write

TOPICS = {"impression": "impressions", "signal": "signals"}  # all else goes to conversions
PARTITIONS = 2
QUICK, SLOW = 0.2, 1.0  # seconds between two parts of a share, and between two few records after it
PARTS, FEW = 60, 4  # how many parts there are, and how few a few
SPARE = 3  # shares beyond those of the stages: so there is something to send, however long one takes


def topics(server: str, name: str) -> Kafka:
    """New topics of a broker; silence of a quarter of a second moves clocks."""
    names = {kind: f"{kind}-{name}" for kind in ("impressions", "signals", "conversions", "items", "dead_letters")}
    admin = KafkaAdminClient(bootstrap_servers=server)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in names.values()])
    admin.close()
    return Kafka(servers=(server,), idle_after="250ms", timeout="30s", **names)  # type: ignore[arg-type]  # names of topics


class Feed:
    """What is sent and what is left.

    Args:
        stages: each has its share of the log, which comes quickly; after it a little comes now and then.
    """

    def __init__(self, config: Kafka, folder: Path, impressions: int, seed: int, stages: int) -> None:
        scenario = Scenario(
            impressions=impressions, partitions=PARTITIONS, days=5, seed=seed, broken=0.05, late=0.03
        )  # one line of twenty cannot be read
        write(scenario, folder)
        found: list[tuple[float, str, int, bytes]] = []
        for file in sorted((folder / "events").glob("*.jsonl")):
            lines = file.read_bytes().splitlines()
            for n, line in enumerate(lines):
                kind = line.split(b'"', 4)[3].decode(errors="replace") if line.count(b'"') > 3 else "impression"
                found.append((n / len(lines), getattr(config, TOPICS.get(kind, "conversions")), int(file.stem), line))
        self._records, self._server, self._stages = sorted(found), config.servers[0], stages
        self.total, self._sent, self._stage, self._at = len(found), 0, 0, 0.0
        self._size, self._last = -(-self.total // PARTS), 0

    def next_stage(self) -> None:
        """From now on another share is sent quickly."""
        self._stage += 1

    def trickle(self) -> None:
        """Send a part or a few, if it is time for it and more than the end is left."""
        quick = self._sent < self.total * self._stage / (self._stages + SPARE)
        count = self._size if quick else max(FEW, self._size // 10)
        apart = QUICK if quick else SLOW
        if time.monotonic() - self._at >= apart and self._sent + self._size < self.total:
            self._send(count)

    def rest(self) -> bool:
        """Send what is left, in three parts; whether there was any."""
        left = self._sent < self.total
        if self._last == 0:
            self._last = -(-(self.total - self._sent) // 3)
        if left and time.monotonic() - self._at >= 4 * QUICK:
            self._send(self._last)
        return left

    def _send(self, count: int) -> None:
        producer = KafkaProducer(bootstrap_servers=self._server, linger_ms=5)
        for _, topic, partition, line in self._records[self._sent : self._sent + count]:
            producer.send(topic, line, partition=partition)
        producer.flush()
        producer.close()
        self._sent, self._at = min(self.total, self._sent + count), time.monotonic()


def forwarded(config: Kafka) -> int:
    """How many records have come into the topic of dead letters, each counted once."""
    consumer = KafkaConsumer(bootstrap_servers=config.servers[0], group_id=None, auto_offset_reset="earliest")
    places = [TopicPartition(config.dead_letters, n) for n in range(PARTITIONS)]
    consumer.assign(places)
    ends, found = consumer.end_offsets(places), set()
    while any(consumer.position(place) < end for place, end in ends.items()):
        for records in consumer.poll(timeout_ms=500).values():
            found |= {tuple(value for name, value in record.headers if name != "reason") for record in records}
    consumer.close()
    return len(found)
