"""Event times of the sources: reading them, and the hour and weekday that they are somewhere."""

from datetime import UTC, datetime, timedelta

from labelstore.events import EARLIEST, LATEST

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAYS = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")  # 1970-01-01 was a Thursday
WRONG = "is not a time of the years 2000 to 2099, such as 2019-10-01 00:00:00"


def moment(text: str) -> int | None:
    """An ISO time in ms since 1970, cut to whole ms; UTC where it names no zone. None: it is no time of a log.

    >>> moment("2019-10-01 00:00:01 UTC"), moment("2019-11-24 00:00:17.004901+00:00"), moment("1/10/2019")
    (1569888001000, 1574553617004, None)
    """
    try:
        read = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return None
    at = (read if read.tzinfo else read.replace(tzinfo=UTC)) - EPOCH
    ms = at // timedelta(milliseconds=1)
    return ms if EARLIEST <= ms < LATEST else None


def clock(at: int, ahead: int = 0) -> dict[str, str]:
    """Hour and weekday of ``at`` (ms) where clocks are ``ahead`` seconds ahead of UTC.

    >>> clock(1569888001000)
    {'hour': '0', 'weekday': 'tue'}
    """
    local = at // 1000 + ahead
    return {"hour": str(local // 3600 % 24), "weekday": DAYS[local // 86_400 % 7]}
