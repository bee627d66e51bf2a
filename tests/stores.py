"""Empty label stores for tests that commit nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Protocol

from labelstore.store import LabelStore
from strategies import DAY

WINDOW = 2 * DAY
FOREVER = 1000 * DAY
TARGET = {"purchase": WINDOW}


class Open(Protocol):
    """Opens an empty store; the last two that were opened can be used."""

    def __call__(self, windows: dict[str, int] = ..., keep: int = ...) -> LabelStore: ...


@contextmanager
def opening(*urls: str) -> Iterator[Open]:
    """Stores under these URLs in turn: what was not committed is taken back, so the next one is empty."""
    places, opened = cycle(urls), list[LabelStore]()

    def fresh(windows: dict[str, int] = TARGET, keep: int = FOREVER) -> LabelStore:
        url = next(places)
        oldest = opened.pop(0) if len(opened) == len(urls) else None
        if oldest and (oldest.windows, oldest.keep) == (windows, keep):
            oldest.connection.rollback()
            oldest.seq = 0
        elif oldest:
            oldest.close()
            oldest = None
        opened.append(oldest or LabelStore(url, windows, keep))
        return opened[-1]

    yield fresh
    for store in opened:
        store.close()
