"""Alembic migrations; `belated store upgrade` runs them."""
