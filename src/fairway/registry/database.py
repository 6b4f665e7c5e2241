"""One database: real transactions on SQLite and PostgreSQL, and failures as :class:`RegistryUnavailable`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from fairway.core.errors import InvalidConfig, RegistryUnavailable
from fairway.core.extras import require
from fairway.registry.errors import database_failed, disk_failed, masked


class Database:
    """A pool of connections to one database. Thread-safe.

    Parameters
    ----------
    url : str
        ``sqlite:///…`` or ``postgresql://…``.
    lock_timeout_s : float
        How long a writer waits for another one.

    Raises
    ------
    InvalidConfig
        If the URL names another kind of database, or is none.
    MissingExtra
        If PostgreSQL's driver is not installed.
    """

    def __init__(self, url: str, lock_timeout_s: float) -> None:
        self.url = _parse(url)
        self.where = _where(self.url)
        self.lock_timeout_s = lock_timeout_s
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine()
        self._identity: tuple[int, int] | None = None
        self._writing = self._engine.execution_options(fairway_write=True)

    @property
    def file(self) -> Path | None:
        """SQLite's file, if it is a plain one."""
        name = self.url.database or ""
        return Path(name) if self.is_sqlite and name and not name.startswith(("file:", ":")) else None

    def make_folder(self) -> None:
        """Make the folder of SQLite's file. Raises :class:`RegistryUnavailable` if that cannot be done."""
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_failed(f"the registry's folder {self.file.parent}", error) from None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: it sees one state, and on SQLite waits for nobody."""
        with self._guarded(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end of the block, rolled back if an error leaves it."""
        with self._guarded(), self._writing.begin() as connection:
            if not self.is_sqlite:
                timeout = int(self.lock_timeout_s * 1000)
                connection.execute(text(f"SET LOCAL lock_timeout = {timeout}"))
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _follow_file(self) -> None:
        """SQLite would go on with a file that was removed or replaced, whose state nobody else shares."""
        if self.file is None:
            return
        try:
            status = self.file.stat()
        except OSError as error:
            if self._identity is None:
                return  # it is to be made
            raise RegistryUnavailable(
                f"the registry at {self.where} is gone ({error.strerror}); check that its folder exists, or put it back"
            ) from None
        identity = (status.st_dev, status.st_ino)
        if self._identity not in (None, identity):
            self._engine.dispose()
        self._identity = identity

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        self._follow_file()
        try:
            yield
        except IntegrityError:
            raise  # not the database's failure but ours
        except SQLAlchemyError as error:
            raise database_failed(self.where, self.url.render_as_string(hide_password=False), error) from None

    def _sqlite_engine(self) -> Engine:
        engine = create_engine(self.url, connect_args={"timeout": self.lock_timeout_s})
        event.listen(engine, "connect", self._prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _prepare_sqlite(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late to be a transaction
        connection.execute("PRAGMA foreign_keys = ON")
        # Not every lock on the way to WAL waits for the timeout above, so the wait is here.
        deadline = time.monotonic() + self.lock_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _postgres_engine(self) -> Engine:
        require("psycopg", extra="postgres")
        arguments: dict[str, Any] = {} if "connect_timeout" in self.url.query else {"connect_timeout": 10}
        return create_engine(self.url, connect_args=arguments, pool_pre_ping=True)


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock at once: taking it halfway fails without waiting if another one wrote meanwhile."""
    writes = connection.get_execution_options().get("fairway_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_UNREADABLE = (
    "registry.url cannot be read; write sqlite:///path/registry.db or postgresql://user:password@host/name "
    "(with '@', ':' and '/' in a password written as %40, %3A and %2F)"
)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidConfig(_UNREADABLE) from None
    if "@" in (parsed.host or ""):  # the rest of a password, which a driver would quote as the host it cannot find
        raise InvalidConfig(_UNREADABLE)
    backend = "postgresql" if parsed.drivername == "postgres" else parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InvalidConfig(f"registry.url names {backend!r}; a registry is on sqlite:///… or postgresql://…")
    return parsed.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg")


def _where(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return url.database or "memory"
    return masked(url.set(drivername="postgresql").render_as_string(hide_password=True))
