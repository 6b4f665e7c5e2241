"""Alembic's entry: runs on the connection, and inside the transaction, that ``fairway.registry.schema`` hands over."""

from alembic import context

from fairway.registry.schema import VERSION_TABLE
from fairway.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
