"""Alembic's migrations. Each file is frozen once released; a change is a new file."""
