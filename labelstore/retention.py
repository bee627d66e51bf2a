"""What is deleted, and when: a rule of event time.

At each midnight (UTC, event time), once everything before it has passed, records known for longer than ``keep`` are
deleted. All looks of an impression fall within one window after it was known, and ``keep`` is at least a window and a
day: nothing that is still to be looked at is deleted.
"""

from sqlalchemy import Connection, and_, delete, select

from labelstore.tables import adjustments, conversions, impressions, looks, predictions, signals

DAY = 86_400_000


def delete_known_before(connection: Connection, cutoff: int) -> None:
    """Delete the records with known_at < cutoff (ms), and what the learners did with those impressions.

    ``seq`` grows with known_at, so the first impression to be kept cuts every table without a scan.
    """
    keep = select(impressions.c.seq).where(impressions.c.known_at >= cutoff).order_by(impressions.c.seq).limit(1)
    first = connection.execute(keep).scalar()
    for table in (predictions, looks):
        old = table.c.impression < first if first is not None else table.c.impression.is_not(None)
        connection.execute(delete(table).where(old))
    for table in (impressions, signals, conversions, adjustments):
        known = table.c.known_at < cutoff
        connection.execute(delete(table).where(known if first is None else and_(table.c.seq < first, known)))
