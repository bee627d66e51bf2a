"""Item pairs; what scoring knew of an impression from the graph; when embeddings were swapped."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def where(condition: str) -> dict[str, Any]:
    """A partial index."""
    return {f"{dialect}_where": sa.text(condition) for dialect in ("sqlite", "postgresql")}


def upgrade() -> None:
    """Two tables, a column, and the indexes by which a user's and a session's events are found."""
    op.create_table(
        "item_pairs",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "source", "target"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_item_pairs_until", "item_pairs", ["until"])
    op.create_table(
        "swaps",
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("at"),
    )
    op.add_column("impressions", sa.Column("graph", TEXT))
    op.create_index("conversions_user", "conversions", ["user_id", "at"], **where("user_id IS NOT NULL"))
    op.create_index("clicks_session", "signals", ["session_id", "at"], **where("kind = 'click'"))
    op.create_index("clicks_user", "signals", ["user_id", "at"], **where("kind = 'click'"))
