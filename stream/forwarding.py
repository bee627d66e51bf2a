"""Dead letters forwarded to a topic of their own, after the commit that keeps them.

1. the commit has the letter, unmarked;
2. it is sent, keyed like its record, with headers that say where it stands in the log and what is wrong with it;
3. once the broker has it, it is marked; the mark is durable with the next commit.

So each is forwarded at least once: whoever is killed between 1 and 3 forwards it again. A broker that cannot be reached
costs nothing but time: the letters stay unmarked and are sent after a later commit.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from labelstore import letters
from labelstore.ledger import DEAD_LETTER_BYTES
from labelstore.letters import Letter, Place

BLOCK = 500
PATIENCE = 5.0  # seconds of a round for which nothing is read


class Sent(NamedTuple):
    """What became of letters. Those that are in neither had no answer."""

    arrived: list[Place]
    refused: list[Place]


class Outbox(Protocol):
    """Where letters are sent."""

    def send(self, found: Sequence[Letter]) -> Sent:
        """Send these. Raises nothing."""


class ListOutbox:
    """A published fake: letters kept in memory; while it is ``broken``, none arrives."""

    def __init__(self) -> None:
        self.sent: list[Letter] = []
        self.broken = False

    def send(self, found: Sequence[Letter]) -> Sent:
        if self.broken:
            return Sent([], [])
        self.sent += found
        return Sent([letter.place for letter in found], [])


def forward(connection: Connection, outbox: Outbox, after: Place | None = None) -> Place | None:
    """Send the letters past a place that are not yet forwarded, and mark those that have arrived; where to go on next time.

    After `PATIENCE` the loop has its turn. One that is refused is tried again in the next round, which begins with the call
    after that in which the last letter was reached. If nobody answers, the rest waits as well.
    """
    deadline = time.monotonic() + PATIENCE
    while found := letters.unforwarded(connection, BLOCK, after):
        sent = outbox.send(found)
        letters.mark_forwarded(connection, sent.arrived)
        if len(sent.arrived) + len(sent.refused) < len(found):
            return after
        after = found[-1].place
        if len(found) < BLOCK:
            return None
        if time.monotonic() > deadline:
            return after
    return None


def headers(letter: Letter) -> list[tuple[str, bytes]]:
    """Where a letter stands in the log, and why it is dead.

    >>> headers(Letter(Place("events", 0, 17), None, None, b"{", "not JSON", None))[:3]
    [('topic', b'events'), ('partition', b'0'), ('offset', b'17')]
    """
    told = {**letter.place._asdict(), "reason": letter.reason}
    if len(letter.value) >= DEAD_LETTER_BYTES:
        told["truncated"] = f"the first {DEAD_LETTER_BYTES} bytes; the record has it whole"
    return [(name, str(value).encode("utf-8", "replace")) for name, value in told.items()]
