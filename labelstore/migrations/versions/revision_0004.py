"""An impression may be looked at at several ages: the time of a look is part of its key."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = ("impression", "learner", "look", "at", "label", "weight")
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """The table again, with the longer key."""
    op.rename_table("looks", "looks_0003")
    op.create_table(
        "looks",
        sa.Column("impression", KEY, autoincrement=False, nullable=False),
        sa.Column("learner", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("look", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("impression", "learner", "look", "at"),
        sqlite_with_rowid=False,
    )
    old, new = (sa.table(name, *map(sa.column, COLUMNS)) for name in ("looks_0003", "looks"))
    op.execute(sa.insert(new).from_select(COLUMNS, sa.select(old)))
    op.drop_table("looks_0003")
