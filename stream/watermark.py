"""Event time. Each partition has its own clock; the watermark is the slowest of them.

    clock      the largest `at` a partition has shown, less the allowed lateness; a record behind it is late
    known_at   max(at, clock of its partition when it was read): the event time at which the learner may know it
    watermark  min of the clocks: no record still to come has known_at below it

All of it is defined per partition, so it does not depend on how the partitions were interleaved.
"""

from collections.abc import Iterable

from stream.sources import Partition

BEGINNING = -(2**62)  # a clock that has not started
END = 2**62  # the clock of a partition that will show nothing more


class Watermark:
    """The clocks of all partitions.

    Args:
        partitions: every partition of the log; one that shows nothing holds the watermark back.
        lateness: how far a partition may be out of order before a record counts as late, ms.

    >>> a, b = Partition("events", 0), Partition("events", 1)
    >>> clocks = Watermark([a, b], lateness=0)
    >>> clocks.read(a, 50), clocks.read(a, 20), clocks.value == BEGINNING
    ((50, False), (50, True), True)
    >>> clocks.read(b, 30), clocks.value
    ((30, False), 30)
    """

    def __init__(self, partitions: Iterable[Partition], lateness: int) -> None:
        self.lateness = lateness
        self.clocks = dict.fromkeys(partitions, BEGINNING)
        self.latest = BEGINNING  # largest `at` of the log
        self._floor = BEGINNING
        self._exhausted: frozenset[Partition] = frozenset()

    def read(self, partition: Partition, at: int) -> tuple[int, bool]:
        """(known_at, late) of a record, in ms; moves the clock of its partition."""
        clock = self.clocks[partition]
        if at - self.lateness > clock:
            self.clocks[partition] = at - self.lateness
        if at > self.latest:
            self.latest = at
        return (at, False) if at >= clock else (clock, True)

    @property
    def value(self) -> int:
        """The watermark. It never falls back: a partition that was taken for exhausted goes on from it."""
        slowest = min((c for p, c in self.clocks.items() if p not in self._exhausted), default=BEGINNING)
        self._floor = max(self._floor, slowest)
        return self._floor

    def raise_to(self, partition: Partition, clock: int) -> None:
        """This partition will be known no earlier than that; clocks do not fall back."""
        self.clocks[partition] = max(self.clocks[partition], clock)

    def add(self, partition: Partition) -> int:
        """A partition that is new starts at the watermark, which is returned."""
        self.clocks[partition] = clock = self.value
        return clock

    def quiet(self, silent: frozenset[Partition]) -> dict[Partition, int]:
        """Raise the clocks of silent partitions to the slowest of the others; those that moved. All silent: none do."""
        slowest = min((c for p, c in self.clocks.items() if p not in silent), default=BEGINNING)
        moved = {p: slowest for p in sorted(silent) if self.clocks[p] < slowest}
        self.clocks.update(moved)
        return moved

    def exhaust(self, partitions: frozenset[Partition]) -> None:
        """These partitions show nothing more, so they hold nothing back."""
        self._exhausted = partitions

    def finish(self, waiting: int | None = None) -> int:
        """The log is over: every clock goes to the largest `at` + 1 ms, which is returned.

        ``waiting``: the largest known_at of what waits. A log that was over before, and has since grown by late records
        only, ends 1 ms after that.
        """
        end = max(self.latest + 1, self._floor, BEGINNING if waiting is None else waiting + 1)
        self.clocks = dict.fromkeys(self.clocks, end)
        self._floor = end
        return end

    def slowest(self) -> frozenset[Partition]:
        """The partitions that hold the watermark back."""
        waiting = {p: c for p, c in self.clocks.items() if p not in self._exhausted}
        lowest = min(waiting.values(), default=BEGINNING)
        return frozenset(p for p, clock in waiting.items() if clock == lowest)

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        clocks = [[*p, max(c, self.value) if p in self._exhausted else c] for p, c in sorted(self.clocks.items())]
        return {"clocks": clocks, "latest": self.latest, "watermark": self.value}

    def restore(self, clocks: list[tuple[str, int, int]], latest: int, watermark: int) -> None:
        """Go on from ``state``; a partition that is new starts at the watermark."""
        known = {Partition(topic, partition): clock for topic, partition, clock in clocks}
        self.clocks = {p: known.get(p, watermark) for p in self.clocks}
        self.latest, self._floor = latest, watermark
