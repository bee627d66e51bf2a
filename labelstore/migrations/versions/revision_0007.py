"""Events that belong to no impression are also found by their time: a user without a name has ever more of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Two indexes get a column."""
    nobodys = sa.text("impression IS NULL")
    for table in ("signals", "conversions"):
        name, touch = f"{table}_open_touch", ["user_id", "item_id", "at"]
        op.drop_index(name, table)
        op.create_index(name, table, touch, sqlite_where=nobodys, postgresql_where=nobodys)
