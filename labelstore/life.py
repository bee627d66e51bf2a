"""The life of one impression: what was shown, what came back and when it was known, and what the learners did."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, select

from labelstore.tables import adjustments, conversions, impressions, looks, predictions, signals


class Life(NamedTuple):
    """Rows as dictionaries, each list in the order in which it became known. ``learner`` is a number: see the settings
    of the checkpoint."""

    impression: dict[str, Any]
    signals: list[dict[str, Any]]
    conversions: list[dict[str, Any]]
    adjustments: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    looks: list[dict[str, Any]]


def life(connection: Connection, impression_id: str) -> Life | None:
    """All that is kept about an impression; None if the store has no such impression (or no longer)."""
    found = _rows(connection, impressions, impressions.c.id == impression_id, impressions.c.seq)
    if not found:
        return None
    seq = found[0]["seq"]
    of = {table: table.c.impression == seq for table in (signals, conversions, predictions, looks)}
    credited = select(conversions.c.id).where(of[conversions])
    return Life(
        found[0],
        _rows(connection, signals, of[signals], signals.c.seq),
        _rows(connection, conversions, of[conversions], conversions.c.seq),
        _rows(connection, adjustments, adjustments.c.conversion_id.in_(credited), adjustments.c.seq),
        _rows(connection, predictions, of[predictions], predictions.c.learner),
        _rows(connection, looks, of[looks], looks.c.at, looks.c.learner, looks.c.look),
    )


def some_ids(connection: Connection, limit: int = 3) -> list[str]:
    """Impressions the store has, to show what an id looks like: converted ones first."""
    converted = impressions.c.seq.in_(select(conversions.c.impression).where(conversions.c.impression.is_not(None)))
    for query in (select(impressions.c.id).where(converted), select(impressions.c.id)):
        if found := list(connection.execute(query.order_by(impressions.c.seq.desc()).limit(limit)).scalars()):
            return found
    return []


def _rows(connection: Connection, table: Table, where: Any, *order: Any) -> list[dict[str, Any]]:
    rows = connection.execute(select(table).where(where).order_by(*order))
    return [dict(row._mapping) for row in rows]
