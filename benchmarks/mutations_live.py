"""Sends mutated lines through Kafka to the daemon, empty values and tombstones among them, and accounts for every record.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/mutations_live.py [--lines 100000] [--seed 0]

The lines of `mutations`, each a record of one of four topics, and after every hundredth one with an empty value and one
with none. `belated run` must not end by itself; every record is accepted, waits, or is a dead letter with a reason; an empty
value and none are dead letters alike, as no event can be told from them; SIGTERM ends it with status 0 and finite weights.
Prints what became of the records; ends with status 1 if any is unaccounted for.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from asking import Parser
from kafka import KafkaProducer
from mutations import mutated
from safetensors.torch import load_file
from service import TOPICS, Daemon, Status, Used, accounted, broker, configure, create

from labelstore import ledger, letters
from labelstore.store import existing
from stream.workspace import checkpoint_folder

PARTITIONS, LARGEST = 2, 8_000_000  # of a topic; bytes of a record that the broker takes
TOMBSTONE = "the record has no value"


def values(lines: list[bytes]) -> Iterator[bytes | None]:
    """The lines, and after every hundredth nothing, twice."""
    for n, line in enumerate(lines, 1):
        yield line
        if n % 100 == 0:
            yield b""
            yield None


def send(server: str, topics: list[str], records: list[bytes | None]) -> None:
    """Records in turn to the partitions of the topics, under keys that are no text."""
    producer = KafkaProducer(bootstrap_servers=server, linger_ms=5, max_request_size=LARGEST)
    for n, value in enumerate(records):
        place = dict(key=b"\xff%d" % n, partition=n // len(topics) % PARTITIONS)
        producer.send(topics[n % len(topics)], value, **place)
    producer.flush()
    producer.close()


def wrong(records: list[bytes | None], status: Status, used: Used, url: str) -> tuple[list[tuple[str, int]], list[str]]:
    """The reasons of the dead letters with their counts, and what does not add up, in words."""
    counts, empty = status["counts"], sum(not value for value in records)
    with existing(url) as connection:
        reasons = [(told.reason, told.letters) for told in letters.counted(connection)]
        newest = ledger.newest(connection)
    tensors = load_file(checkpoint_folder(url) / newest.file) if newest else {}
    told = sum(times for reason, times in reasons if reason.startswith(TOMBSTONE))
    facts = {
        f"{counts['read']} read of {len(records)} sent": counts["read"] == len(records),
        f"{accounted(status)} accounted for": accounted(status) == len(records),
        f"{sum(n for _, n in reasons)} dead letters kept": sum(n for _, n in reasons) == counts["dead_letters"],
        "dead letters without a reason": all(reason.strip() for reason, _ in reasons),
        f"{told} of {empty} empty records told as such": told == empty,
        "no commit, or weights that are not finite": bool(tensors)
        and all(bool(v.isfinite().all()) for n, v in tensors.items() if ".trainer." in n),
        f"the daemon ended with status {used.code}": used.code == 0,
    }
    return reasons, [fact for fact, holds in facts.items() if not holds]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        records = list(values(mutated(asked.lines, asked.seed, folder)))
        server = stack.enter_context(broker(folder / "kafka", f"message.max.bytes={LARGEST}"))
        topics = {name: f"{name}-{os.getpid()}" for name in TOPICS}
        create(server, topics.values(), PARTITIONS)
        store: dict[str, Any] = {"url": f"sqlite:///{folder}/store.db"}
        kafka = {"servers": [server], "idle_after": "1s", **topics}
        file = configure(folder / "belated.toml", kafka=kafka, store=store, learner={"window": "2d", "wait": "3h"})
        send(server, list(topics.values()), records)
        daemon = Daemon(file, folder / "said")
        status = daemon.drained(len(records))
        reasons, found = wrong(records, status, daemon.end(), store["url"])
    dead = status["counts"]["dead_letters"]
    print(f"{len(records):,} records sent, {sum(not value for value in records):,} of them empty or without a value")
    print(f"{accounted(status) - dead:,} accepted ({status['waiting']:,} of them wait); {dead:,} dead letters")
    for reason, times in reasons[:5]:
        print(f"  {times:>7,}  {reason[:110]}")
    for fact in found:
        print(f"does not add up: {fact}")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
