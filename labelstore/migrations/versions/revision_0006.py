"""An index of dead letters that are still to be forwarded; the one of conversions to be credited is not needed any more."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """One index comes, one goes."""
    unsent, place = sa.text("forwarded IS NULL"), ["topic", "partition", "offset"]
    op.create_index("dead_letters_unforwarded", "dead_letters", place, sqlite_where=unsent, postgresql_where=unsent)
    op.drop_index("conversions_uncredited", "conversions")
