"""What is deleted, and when: a rule of event time.

At each midnight (UTC, event time), once everything before it has passed, records known for longer than ``keep`` are
deleted. All looks of an impression fall within one window after it was known, and ``keep`` is at least a window and a
day: nothing that is still to be looked at is deleted.
"""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection, and_, delete, func, select

from labelstore.tables import adjustments, conversions, erasures, impressions, looks, predictions, signals

DAY = 86_400_000
FACTS = (impressions, signals, conversions, adjustments)


def at_least(keep: int, window: int) -> int:
    """How long records are kept that are asked to be kept for ``keep``, under this attribution window, ms."""
    return max(keep, window + DAY)


def whole_from(midnight: int, keep: int) -> int:
    """Impressions shown from this moment on are there with all that came back, once event time has passed a midnight, ms.

    What was known before is deleted; and what comes back is known no earlier than its impression was shown.
    """
    return midnight - keep


def deleted(connection: Connection, passed: Mapping[str, int]) -> bool:
    """Whether any record has been deleted by its age; ``passed``: how many of each table have passed."""
    there = Counter(
        {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in FACTS}
    )
    for counts in connection.execute(select(erasures.c.counts)).scalars():
        there.update(counts)  # a person's
    return any(there[table.name] < passed.get(table.name, 0) for table in FACTS)


def delete_known_before(connection: Connection, cutoff: int) -> None:
    """Delete the records with known_at < cutoff (ms), and what the learners did with those impressions.

    ``seq`` grows with known_at, so the first impression to be kept cuts every table without a scan.
    """
    keep = select(impressions.c.seq).where(impressions.c.known_at >= cutoff).order_by(impressions.c.seq).limit(1)
    first = connection.execute(keep).scalar()
    for table in (predictions, looks):
        old = table.c.impression < first if first is not None else table.c.impression.is_not(None)
        connection.execute(delete(table).where(old))
    for table in FACTS:
        known = table.c.known_at < cutoff
        connection.execute(delete(table).where(known if first is None else and_(table.c.seq < first, known)))
