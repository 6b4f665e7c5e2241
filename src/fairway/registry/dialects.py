"""Statements that each database has in a dialect of its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table


def insert(connection: Connection, table: Table) -> Any:
    """An ``INSERT`` that knows ``ON CONFLICT``: both dialects do, each in its own class."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
