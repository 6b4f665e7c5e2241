"""Brings a database to the tables that this Fairway needs. Alembic is imported only when there is something to do."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from fairway.core.errors import NewerFormat
from fairway.registry.database import Database
from fairway.registry.errors import NoRegistry
from fairway.registry.tables import HEAD, KNOWN

VERSION_TABLE = "fairway_schema"
"""Alembic's own table, under a name that no other program's migrations use."""

_LOCK = 0x666169727761  # any number that only Fairway uses: the advisory lock of PostgreSQL is per database


def prepare(database: Database, *, create: bool) -> None:
    """Make or migrate the tables, once, however many processes open the same database for the first time.

    Raises
    ------
    NoRegistry
        If there is none and ``create`` is false.
    RegistryUnavailable
        If the database cannot be used.
    NewerFormat
        If a newer Fairway made it.
    """
    if create:
        database.make_folder()
    file = database.file
    found = None
    if create or file is None or file.exists():
        with database.read() as connection:
            found = _current(connection)
    if found == HEAD:
        return
    if found is None and not create:
        raise NoRegistry(
            f"there is no registry at {database.where} yet; make one with: fairway register BUNDLE, or: fairway run"
        )
    if found not in (None, *KNOWN):
        raise NewerFormat(
            f"the registry at {database.where} is at schema {found}, and this Fairway knows up to {HEAD}; upgrade: "
            "pip install -U fairway"
        )
    _migrate(database)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    return None if found is None else str(found)


def _migrate(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with database.write() as connection:  # all steps in one transaction: killed anywhere, nothing has changed
        if not database.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        if _current(connection) == HEAD:
            return  # another process was faster
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
