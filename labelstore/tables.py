"""The tables. ``seq`` numbers records in the one order in which they pass, so keys grow with event time.

All times are event times in ms. ``known_at`` is when the learner may know a record; ``credited_at`` is when it may
know that a conversion belongs to its impression (the later of the two known_at), ``retracted_at`` when it was taken back.

Texts are compared by their bytes (UTF-8), so that every database has one order of them.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

metadata = MetaData()
KEY = BigInteger().with_variant(Integer, "sqlite")  # SQLite's row id is an Integer
TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _referring(*columns: Column[object]) -> list[Column[object]]:
    """What signals and conversions share: their place in time, and the impression they name or are credited to."""
    return [
        Column("seq", KEY, primary_key=True, autoincrement=False),
        Column("id", TEXT, nullable=False, unique=True),
        Column("kind", TEXT, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("known_at", BigInteger, nullable=False),
        Column("impression", KEY),
        Column("impression_id", TEXT),
        Column("user_id", TEXT),
        Column("item_id", TEXT),
        Column("session_id", TEXT),
        *columns,
    ]


impressions = Table(
    "impressions",
    metadata,
    Column("seq", KEY, primary_key=True, autoincrement=False),
    Column("id", TEXT, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("known_at", BigInteger, nullable=False),
    Column("user_id", TEXT),
    Column("item_id", TEXT),
    Column("context_item_id", TEXT),
    Column("features", TEXT, nullable=False),  # JSON, as it was shown
    Column("served", TEXT),
    Column("graph", TEXT),  # JSON: what the bundle of that time said of it; null where there was none
)
_late = impressions.c.known_at > impressions.c.at
Index("impressions_late", impressions.c.known_at, sqlite_where=_late, postgresql_where=_late)
_touched = impressions.c.user_id.is_not(None)
Index(
    "impressions_touch",
    impressions.c.user_id,
    impressions.c.item_id,
    impressions.c.at,
    sqlite_where=_touched,
    postgresql_where=_touched,
)

signals = Table("signals", metadata, *_referring())
conversions = Table(
    "conversions",
    metadata,
    *_referring(
        Column("value", Float),
        Column("basket_id", TEXT),
        Column("credited_at", BigInteger),
        Column("retracted_at", BigInteger),
    ),
)
for _table in (signals, conversions):
    _open = _table.c.impression.is_(None)
    Index(f"{_table.name}_impression", _table.c.impression)
    Index(f"{_table.name}_open_id", _table.c.impression_id, sqlite_where=_open, postgresql_where=_open)
    _touch = (_table.c.user_id, _table.c.item_id, _table.c.at)
    Index(f"{_table.name}_open_touch", *_touch, sqlite_where=_open, postgresql_where=_open)
_bought = conversions.c.user_id.is_not(None)
Index("conversions_user", conversions.c.user_id, conversions.c.at, sqlite_where=_bought, postgresql_where=_bought)
_clicked = signals.c.kind == "click"
for _name in ("session", "user"):
    _by = signals.c[f"{_name}_id"]
    Index(f"clicks_{_name}", _by, signals.c.at, sqlite_where=_clicked, postgresql_where=_clicked)
Index("conversions_credited", conversions.c.credited_at)

adjustments = Table(
    "adjustments",
    metadata,
    Column("seq", KEY, primary_key=True, autoincrement=False),
    Column("id", TEXT, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("conversion_id", TEXT, nullable=False, index=True),
    Column("action", TEXT, nullable=False),
    Column("value", Float),
)

items = Table(
    "items",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("features", TEXT, nullable=False),
)

item_pairs = Table(
    "item_pairs",
    metadata,
    Column("kind", TEXT, primary_key=True),
    Column("source", TEXT, primary_key=True),
    Column("target", TEXT, primary_key=True),
    Column("weight", Float, nullable=False),  # as of `at`, from when on it decays
    Column("at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),  # the midnight at which the pair was new
    Column("until", BigInteger, nullable=False, index=True),  # when it will have decayed to nothing
    sqlite_with_rowid=False,
)

predictions = Table(
    "predictions",
    metadata,
    Column("impression", KEY, primary_key=True, autoincrement=False),
    Column("learner", SmallInteger, primary_key=True, autoincrement=False),
    Column("score", Float, nullable=False),
    Column("version", Integer, nullable=False),  # steps the model had learned when it scored
    sqlite_with_rowid=False,
)

looks = Table(
    "looks",
    metadata,
    Column("impression", KEY, primary_key=True, autoincrement=False),
    Column("learner", SmallInteger, primary_key=True, autoincrement=False),
    Column("look", SmallInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("label", SmallInteger, nullable=False),
    Column("weight", Float, nullable=False),
    sqlite_with_rowid=False,
)

metrics = Table(
    "metrics",
    metadata,
    Column("learner", TEXT, primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # of the impressions, hours since 1970
    Column("rows", Integer, nullable=False),
    Column("positives", Integer, nullable=False),
    Column("score_sum", Float, nullable=False),
    Column("loss_sum", Float, nullable=False),
    Column("p_sum", Float, nullable=False),  # of the true probabilities of a simulated log, and of the divergence
    Column("excess_sum", Float, nullable=False),  # of the scores from them; 0 where no truth is known
)

waiting = Table(
    "waiting",
    metadata,
    Column("topic", TEXT, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("known_at", BigInteger, nullable=False, index=True),
    Column("value", LargeBinary, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("topic", TEXT, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger),
    Column("key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Column("reason", TEXT, nullable=False),
    Column("retried", BigInteger),  # offset of the record that was appended for it: forwarding, no fact of the log
    Column("forwarded", SmallInteger),  # 1: it is in the topic of dead letters; likewise
)
_unsent = dead_letters.c.forwarded.is_(None)
Index("dead_letters_unforwarded", *dead_letters.primary_key, sqlite_where=_unsent, postgresql_where=_unsent)

journal = Table(
    "journal",
    metadata,
    Column("topic", TEXT, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),  # of the partition's next record
    Column("clock", BigInteger, nullable=False),  # to which its clock was raised before that
)

swaps = Table(
    "swaps",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),  # what is known from then on, event time
    Column("version", Integer, nullable=False),  # ... passes with this version of the product graph
)

erasures = Table(
    "erasures",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("user_sha256", TEXT, nullable=False),
    Column("at", BigInteger, nullable=False),  # event time the store had reached
    Column("counts", JSON, nullable=False),  # what was erased, by table; `log_lines` where a log was given
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("file", TEXT, nullable=False),
    Column("sha256", TEXT, nullable=False),
    Column("progress", JSON, nullable=False),  # offsets, clocks, watermark, counts
    Column("settings", JSON, nullable=False),
    Column("code", TEXT, nullable=False),
)
