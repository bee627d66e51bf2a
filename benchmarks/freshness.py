"""How long it takes from a purchase being sent to Kafka until the commit that holds the gradient step which learned it.

    BELATED_KAFKA_SCRIPT=/path/to/kafka python benchmarks/freshness.py [--every 30s,1s] [--purchases 300] [--rate 200]

`belated run` reads a live stream: ``--rate`` impressions a second, and for every twentieth a cart and, six seconds after it
was shown, a purchase, all with the time of the clock; 2 partitions a topic, first look after 5 s. Each purchase comes after
the first look at its impression, so it is learned by a look of its own. The clock of this process is read before each send,
and a second connection to the label store asks every 20 ms whether there is a new commit; where there is, every purchase
that was sent and its look are looked up. So the figures are of what another process can see, and up to 20 ms too high.

    committed   the purchase has passed, that is: every partition has come to a later time, and this is committed
    learned     the look at it was in a gradient step, and the weights are committed. Of `pq_signals`, which looks at every
                purchase; the default looks at fixed ages, and learns of a purchase at the next of them. Steps take 256
                looks, here at the rate of the impressions and purchases, so this includes the wait until a batch is full

Both include the wait for the next commit (`store.every`). Prints p50, p99 and maximum for each setting of it.
"""

import json
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from asking import Parser
from kafka import KafkaProducer
from service import TOPICS, Daemon, broker, configure, create

from labelstore import ledger
from labelstore.life import life
from labelstore.observations import Look
from labelstore.store import existing

PARTITIONS, EVERY, AFTER = 2, 20, 6.0  # of a topic; impressions for each purchase; seconds from impression to purchase
WARM_UP = 8.0  # seconds of stream before purchases count
LEARNER = {"methods": ["pq_signals"], "window": "1d", "wait": "5s"}
ASK = 0.02  # seconds between two questions for a new commit


class Shop(threading.Thread):
    """Sends the stream until told to stop. ``sent``: impression -> when its purchase was sent, this clock's seconds."""

    def __init__(self, server: str, topics: dict[str, str], rate: float, purchases: int) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, float] = {}
        self.stop = threading.Event()
        self._producer, self._topics = KafkaProducer(bootstrap_servers=server), topics
        self._rate, self._purchases, self._due = rate, purchases, list[tuple[float, int]]()

    def run(self) -> None:
        begun, n = time.perf_counter(), 0
        while not self.stop.is_set():
            now = time.perf_counter() - begun
            while n / self._rate <= now:
                self._show(n, now)
                n += 1
            while self._due and self._due[0][0] <= now:
                self._buy(self._due.pop(0)[1], now > WARM_UP + AFTER)
            time.sleep(0.002)
        self._producer.close()

    def _show(self, n: int, now: float) -> None:
        features = {"user": f"u{n % 997}", "item": f"i{n % 101}", "price": n % 37}
        self._send("impressions", n, {"type": "impression", "impression_id": f"i{n}", "features": features})
        if n % EVERY == 0:
            self._send("signals", n // EVERY, self._about("signal", "cart", n))
            self._due.append((now + AFTER, n))

    def _buy(self, n: int, counts: bool) -> None:
        if counts and len(self.sent) < self._purchases:
            self.sent[f"i{n}"] = time.perf_counter()
        self._send("conversions", n // EVERY, self._about("conversion", "purchase", n))

    def _about(self, type_: str, kind: str, n: int) -> dict[str, Any]:
        return {"type": type_, "kind": kind, "event_id": f"{kind}{n}", "impression_id": f"i{n}"}

    def _send(self, topic: str, place: int, event: dict[str, Any]) -> None:
        at = time.time_ns() // 1_000_000
        value = json.dumps(event | {"at": at}).encode()
        self._producer.send(self._topics[topic], value, partition=place % PARTITIONS, timestamp_ms=at)


def watch(url: str, shop: Shop, purchases: int) -> tuple[list[float], list[float]]:
    """Seconds until each purchase was committed, and until it was learned and committed."""
    committed: dict[str, float] = {}
    learned: dict[str, float] = {}
    last = -1
    with existing(url) as connection:
        while len(learned) < purchases:
            time.sleep(ASK)
            connection.rollback()  # the next question begins a new transaction, which sees what was committed
            found = ledger.newest(connection)
            if found is None or found.n == last:
                continue
            last, now, sent = found.n, time.perf_counter(), dict(shop.sent)
            for impression in sent.keys() - learned.keys():
                known = life(connection, impression)
                if known and known.conversions:
                    committed.setdefault(impression, now)
                if known and any(look["look"] == Look.CONVERSION for look in known.looks):
                    learned[impression] = now
    return [committed[i] - shop.sent[i] for i in learned], [learned[i] - shop.sent[i] for i in learned]


def measure(server: str, folder: Path, every: str, asked: Any) -> None:
    """One daemon, one stream; prints its figures."""
    topics = {name: f"{name}-{os.getpid()}-{every}" for name in TOPICS}
    store: dict[str, Any] = {"url": f"sqlite:///{folder}/{every}.db", "every": every}
    kafka = {"servers": [server], "idle_after": "2s", **topics}
    file = configure(folder / f"{every}.toml", kafka=kafka, store=store, learner=LEARNER)
    create(server, topics.values(), PARTITIONS)
    daemon, shop = Daemon(file, folder / "said"), Shop(server, topics, asked.rate, asked.purchases)
    daemon.ready()
    shop.start()
    try:
        figures = watch(store["url"], shop, asked.purchases)
    finally:
        shop.stop.set()
        shop.join()
        used = daemon.end()
    for name, seconds in zip(("committed", "learned"), figures, strict=True):
        p50, p99 = np.percentile(seconds, [50, 99])
        told = f"{len(seconds):>9,} {p50:>8.2f} {p99:>8.2f} {max(seconds):>8.2f} {asked.rate:>7,.0f}/s"
        print(f"{every:>12} {name:>10} {told}", flush=True)
    if used.code:
        sys.exit(f"the daemon ended with status {used.code}: {(folder / 'said').read_text()[-2000:]}")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--every", default="30s,1s", help="settings of store.every")
    parser.add_argument("--purchases", type=int, default=300)
    parser.add_argument("--rate", type=float, default=200.0, help="impressions a second")
    asked = parser.parse_args()
    print(f"{'store.every':>12} {'':>10} {'purchases':>9} {'p50 s':>8} {'p99 s':>8} {'max s':>8} {'shown':>9}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(broker(folder / "kafka"))
        for every in asked.every.split(","):
            measure(server, folder, every, asked)


if __name__ == "__main__":
    main()
