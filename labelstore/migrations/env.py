"""Alembic's way in: the migrations run on the connection that `labelstore.layout` gives, in its transaction."""

from alembic import context

from labelstore.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
