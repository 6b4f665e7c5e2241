"""The rows of a query, run once and spooled: in DuckDB, or in any database that SQLAlchemy reaches. Nothing is written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.extras import require
from fairway.sources.readers.base import InMemory, Reader, rebatched, require_distinct
from fairway.sources.readers.joined import Joined
from fairway.sources.readers.places import without_secrets
from fairway.sources.readers.spool import spooled

PREFIX = "sql:"
_ROWS = 10_000
_DUCKDB = ("duckdb://", "duckdb:///")
_SQLITE = "sqlite:///"
_MEMORY = "512MB"
_SHOWN = 200
_READS = re.compile(r"(\s|\(|--[^\n]*(\n|$)|/\*.*?\*/)*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
"""How a query begins that gives rows, after comments and parentheses."""


def read_query(given: str, database: str, root: Path) -> tuple[Reader, Callable[[], str]]:
    """The rows of ``sql:SELECT …`` or ``sql:FILE.sql``, and the digest of these rows.

    Parameters
    ----------
    given : str
    database : str
        See :class:`~fairway.sources.settings.DataSettings`.
    root : Path
        What paths are relative to.

    Raises
    ------
    InvalidConfig
        If the query is more than one that reads, or the database is unknown.
    InvalidData
        If the database refuses it. No message has a password in it.
    """
    query, url = _query(given, root), _database(database)
    digest = hashlib.sha256()
    batches = _duckdb(query, url, root) if not url or url.startswith(_DUCKDB[0]) else _sqlalchemy(query, url, root)
    reader = _kept(_hashed(batches, digest))
    require_distinct(reader.schema.names, "the query")
    return reader, lambda: f"sha256:{digest.hexdigest()}"


def _query(given: str, root: Path) -> str:
    text = given.removeprefix(PREFIX).strip().rstrip(";").strip()
    if not text.lower().endswith(".sql") or " " in text:
        return text
    try:
        return (root / text).read_text("utf-8").strip().rstrip(";")
    except OSError as error:
        raise InvalidConfig(f"the query {root / text} cannot be read: {error.strerror}") from None


def _database(database: str) -> str:
    if not database.startswith("env:"):
        return database
    name = database.removeprefix("env:")
    if name not in os.environ:
        raise InvalidConfig(f"data.database is taken from the environment variable {name}, which is not set")
    return os.environ[name]


def _duckdb(query: str, url: str, root: Path) -> Iterator[Any]:
    duckdb = require("duckdb", extra="evaluate")
    path = url.removeprefix(_DUCKDB[1]).removeprefix(_DUCKDB[0])
    if path and not (root / path).is_file():
        raise InvalidData(f"there is no database {root / path}")
    settings = {"autoinstall_known_extensions": "false", "memory_limit": _MEMORY}
    try:
        with duckdb.connect(
            str(root / path) if path else ":memory:", read_only=bool(path), config=settings
        ) as database:
            statements = database.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidConfig(f"{PREFIX} takes one SELECT and nothing else: {_shown(query)}")
            database.execute("SET file_search_path = ?", [str(root.absolute())])
            rows = database.sql(query)
            read = getattr(rows, "to_arrow_reader", None) or rows.fetch_arrow_reader  # its name before DuckDB 1.5
            reader = read(_ROWS)
            yield from rebatched(iter(reader), reader.schema, _ROWS)
    except duckdb.Error as error:
        reason = without_secrets(" ".join(str(error).split()))[:500]
        raise InvalidData(f"DuckDB refuses the query {_shown(query)!r}: {reason}") from None


def _sqlalchemy(query: str, url: str, root: Path) -> Iterator[Any]:
    sqlalchemy = require("sqlalchemy", extra="evaluate")
    if not _READS.match(query):  # not every database can be told to read only
        raise InvalidConfig(f"{PREFIX} takes one SELECT and nothing else: {_shown(query)}")
    secret = ""
    try:
        engine = sqlalchemy.create_engine(_read_only(url, root))
        secret = engine.url.password or ""
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise InvalidConfig(
            f"data.database is no URL of a database that SQLAlchemy knows: {_scrubbed(error, url)}"
        ) from None
    except ImportError as error:
        raise InvalidConfig(f"data.database needs a driver that is not installed: {error}") from None
    shown = without_secrets(sqlalchemy.make_url(url).render_as_string(hide_password=True))
    options = {"stream_results": True, "yield_per": _ROWS, "no_parameters": True}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    try:
        with engine.connect() as connection:  # never committed, so that nothing stays of what a query might do
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            result = connection.execution_options(**options).exec_driver_sql(query)
            if not result.returns_rows:
                raise InvalidConfig(f"{PREFIX} takes a query that gives rows: {_shown(query)}")
            names = list(result.keys())
            for rows in result.partitions(_ROWS):
                yield _arrow(names, rows)
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = _scrubbed(getattr(error, "orig", None) or error, secret)
        raise InvalidData(f"{shown} refuses the query {_shown(query)!r}: {without_secrets(reason)}") from None
    finally:
        engine.dispose()


def _shown(query: str) -> str:
    """The beginning of a query, for messages."""
    return without_secrets(query)[:_SHOWN]


def _read_only(url: str, root: Path) -> str:
    """A SQLite file's path is taken from ``root``, and the file is never made."""
    if not url.startswith(_SQLITE) or url.startswith(f"{_SQLITE}file:"):
        return url
    path = root.absolute() / url.removeprefix(_SQLITE)
    if not path.is_file():
        raise InvalidData(f"there is no database {path}")
    return f"{_SQLITE}file:{path.as_posix()}?mode=ro&uri=true"


def _scrubbed(error: object, secret: str) -> str:
    text = " ".join(str(error).split())[:500]
    return text.replace(secret, "***") if secret else text


def _arrow(names: Sequence[str], rows: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.table(
        [_column(name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)], names=names
    )


def _column(name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    plain = [_PLAIN[type(value)](value) if type(value) in _PLAIN else value for value in values]
    try:
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        try:
            return pa.array(plain, pa.float64())  # whole numbers and fractions
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise InvalidData(
                f"column {name!r} of the query holds {' and '.join(kinds)}; CAST it to one type in the query"
            ) from None


_PLAIN: dict[type, Callable[[Any], Any]] = {Decimal: float, UUID: str, memoryview: bytes}


def _hashed(batches: Iterator[Any], digest: Any) -> Iterator[Any]:
    """The same tables; their content goes into ``digest``, whatever buffers it lies in."""
    import pyarrow as pa

    for table in batches:
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.take(pa.array(np.arange(batch.num_rows))).serialize())
            digest.update(batch.schema.serialize())
        yield table


def _kept(tables: Iterator[Any]) -> Reader:
    """All rows; a column whose type shows only further on (it was empty so far, say) begins another part."""
    import pyarrow as pa

    parts: dict[str, Reader] = {}
    waiting: Any = next(tables, None)
    if waiting is None:
        return InMemory(pa.table({}))
    while waiting is not None:
        schema = waiting.schema
        following: list[Any] = []

        def same(first: Any, schema: Any = schema, following: list[Any] = following) -> Iterator[Any]:
            yield from first.to_batches()
            for table in tables:
                if _wider(schema, table.schema) != schema:
                    following.append(table)
                    return
                yield from table.cast(schema).to_batches()

        reader = spooled(same(waiting), schema)
        parts[f"rows from {sum(part.rows for part in parts.values()):,}"] = reader
        waiting = following[0].cast(_wider(schema, following[0].schema)) if following else None
    return Joined(parts) if len(parts) > 1 else reader


def _wider(schema: Any, other: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.unify_schemas([schema, other], promote_options="permissive")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"a column of the query changes its type ({reason}); CAST it to one type in the query"
        ) from None
