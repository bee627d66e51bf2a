"""The tables of 0.1.0."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def where(condition: str) -> dict[str, Any]:
    """A partial index."""
    return {f"{dialect}_where": sa.text(condition) for dialect in ("sqlite", "postgresql")}


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "adjustments",
        sa.Column("seq", KEY, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("conversion_id", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("value", sa.Float()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("ix_adjustments_conversion_id", "adjustments", ["conversion_id"])
    op.create_table(
        "checkpoints",
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("n"),
    )
    op.create_table(
        "conversions",
        sa.Column("seq", KEY, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("impression", KEY),
        sa.Column("impression_id", TEXT),
        sa.Column("user_id", TEXT),
        sa.Column("item_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("value", sa.Float()),
        sa.Column("basket_id", TEXT),
        sa.Column("credited_at", sa.BigInteger()),
        sa.Column("retracted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("conversions_credited", "conversions", ["credited_at"])
    op.create_index("conversions_impression", "conversions", ["impression"])
    op.create_index("conversions_open_id", "conversions", ["impression_id"], **where("impression IS NULL"))
    op.create_index("conversions_open_touch", "conversions", ["user_id", "item_id"], **where("impression IS NULL"))
    op.create_index(
        "conversions_uncredited", "conversions", ["seq"], **where("credited_at IS NULL AND impression IS NOT NULL")
    )
    op.create_table(
        "dead_letters",
        sa.Column("topic", TEXT, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger()),
        sa.Column("key", sa.LargeBinary()),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset"),
    )
    op.create_table(
        "impressions",
        sa.Column("seq", KEY, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("user_id", TEXT),
        sa.Column("item_id", TEXT),
        sa.Column("context_item_id", TEXT),
        sa.Column("features", TEXT, nullable=False),
        sa.Column("served", TEXT),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("impressions_late", "impressions", ["known_at"], **where("known_at > at"))
    op.create_index("impressions_touch", "impressions", ["user_id", "item_id", "at"], **where("user_id IS NOT NULL"))
    op.create_index("ix_impressions_at", "impressions", ["at"])
    op.create_table(
        "items",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("features", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "metrics",
        sa.Column("learner", TEXT, nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("positives", sa.Integer(), nullable=False),
        sa.Column("score_sum", sa.Float(), nullable=False),
        sa.Column("loss_sum", sa.Float(), nullable=False),
        sa.Column("p_sum", sa.Float(), nullable=False),
        sa.Column("excess_sum", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("learner", "hour"),
    )
    op.create_table(
        "signals",
        sa.Column("seq", KEY, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("impression", KEY),
        sa.Column("impression_id", TEXT),
        sa.Column("user_id", TEXT),
        sa.Column("item_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("signals_impression", "signals", ["impression"])
    op.create_index("signals_open_id", "signals", ["impression_id"], **where("impression IS NULL"))
    op.create_index("signals_open_touch", "signals", ["user_id", "item_id"], **where("impression IS NULL"))
    op.create_table(
        "waiting",
        sa.Column("topic", TEXT, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset"),
    )
    op.create_index("ix_waiting_known_at", "waiting", ["known_at"])
    op.create_table(
        "looks",
        sa.Column("impression", KEY, autoincrement=False, nullable=False),
        sa.Column("learner", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("look", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("impression", "learner", "look"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predictions",
        sa.Column("impression", KEY, autoincrement=False, nullable=False),
        sa.Column("learner", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("impression", "learner"),
        sqlite_with_rowid=False,
    )
