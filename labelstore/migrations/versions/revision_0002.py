"""Dead letters remember their retry; erasures are written down."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """A column and a table."""
    op.add_column("dead_letters", sa.Column("retried", sa.BigInteger()))
    op.create_table(
        "erasures",
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("user_sha256", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
    )
