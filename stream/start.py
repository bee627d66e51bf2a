"""Where a first start begins: earliest, latest, ts=TIME or last=DURATION. Later starts go on from the offsets in SQL."""

from typing import Literal

from stream.settings import duration, moment

Start = Literal["earliest", "latest"] | int


def start(text: str, now: int) -> Start:
    """The beginning or the end of each partition, or the record time from which on they are read, ms.

    Args:
        now: ms since 1970, for ``last=``.

    Raises:
        ValueError: it is none of the four; the message says what may be written.

    >>> start("earliest", 0), start("ts=2024-05-01T12:00", 0), start("last=6h", 30_000_000)
    ('earliest', 1714564800000, 8400000)
    """
    if text in ("earliest", "latest"):
        return "latest" if text == "latest" else "earliest"
    word, _, value = text.partition("=")
    if word == "ts":
        return moment(value)
    if word == "last":
        return max(0, now - int(str(duration(value))))
    raise ValueError(f"{text!r} is no start; write earliest, latest, ts=2024-05-01T12:00 or last=6h")
