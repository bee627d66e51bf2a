"""Records that were read and have not passed: a heap in the one order in which records pass.

(known_at; item < impression < signal < conversion < adjustment; id; topic; partition; offset)
"""

from heapq import heappop, heappush

from labelstore.events import ADAPTER, RANK, Event, identity
from labelstore.ledger import Waiting
from stream.sources import Partition, Record

Entry = tuple[int, int, str, str, int, int, Event, bytes]


class WaitingRoom:
    """Bounded by whoever fills it: see `Reading`, which pauses partitions that run ahead."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._saved: dict[Partition, int] = {}  # the last offset of each partition that a commit has

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, record: Record, event: Event, known_at: int) -> None:
        """A record that was read."""
        place = (record.topic, record.partition, record.offset)
        heappush(self._heap, (known_at, RANK[type(event)], identity(event), *place, event, record.value))

    def first(self) -> int | None:
        """The smallest known_at; None if nothing waits."""
        return self._heap[0][0] if self._heap else None

    def last(self) -> int | None:
        """The largest known_at; None if nothing waits."""
        return max((entry[0] for entry in self._heap), default=None)

    def take(self, until: int) -> list[tuple[int, Event]]:
        """Those with known_at < ``until``, in order, as (known_at, event)."""
        found: list[tuple[int, Event]] = []
        while self._heap and self._heap[0][0] < until:
            entry = heappop(self._heap)
            found.append((entry[0], entry[6]))
        return found

    def unsaved(self) -> list[Waiting]:
        """Those no commit has yet; calling it says that one is about to."""
        rows = [
            Waiting(topic, partition, offset, known_at, value)
            for known_at, _, _, topic, partition, offset, _, value in self._heap
            if offset > self._saved.get(Partition(topic, partition), -1)
        ]
        for row in rows:
            place = Partition(row.topic, row.partition)
            self._saved[place] = max(self._saved.get(place, -1), row.offset)
        return rows

    def restore(self, rows: list[Waiting]) -> None:
        """Go on from a commit."""
        for row in rows:
            record = Record(row.topic, row.partition, row.offset, None, None, row.value)
            self.add(record, ADAPTER.validate_json(row.value), row.known_at)
        self.unsaved()
