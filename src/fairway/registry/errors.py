"""A database's or a disk's failure, said so that a person can act on it, and without any password."""

from __future__ import annotations

import errno
import sqlite3
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fairway.core.errors import RegistryUnavailable


class NoRegistry(RegistryUnavailable):
    """There is none yet: for some, such as a first evaluation, no reason to stop."""


def masked(url: str) -> str:
    """A URL without its password and without its query, which can hold one too.

    Examples
    --------
    >>> masked("postgresql://ann:secret@db:5432/fairway?password=secret")
    'postgresql://ann:***@db:5432/fairway'
    >>> masked("s3://models/prefix"), masked(".fairway/blobs")
    ('s3://models/prefix', '.fairway/blobs')
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that cannot be read)"
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit((parts.scheme, f"{user}{':***' if colon else ''}{at}{host}", parts.path, "", ""))


def scrubbed(text: str, url: str) -> str:
    """``text`` without the secrets of ``url``, should a driver have quoted them.

    Examples
    --------
    >>> scrubbed("cannot reach ftp://ann:secret@host/models", "ftp://ann:secret@host/models")
    'cannot reach ftp://ann:***@host/models'
    """
    text = text.replace(url, masked(url))
    for secret in filter(None, _secrets(url)):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
        hidden = [value for key, value in parse_qsl(parts.query) if any(word in key.lower() for word in _SECRET_KEYS)]
        password = parts.password or ""
        return (parts.query, password, unquote(password), *hidden)
    except ValueError:
        return (url,)


_SECRET_KEYS = ("pass", "secret", "token", "key")


def database_failed(where: str, url: str, error: SQLAlchemyError) -> RegistryUnavailable:
    """What a driver's error means for the registry at ``url``, which messages call ``where``."""
    original = error.orig if isinstance(error, DBAPIError) else error
    what = str(original).strip().splitlines()
    detail = scrubbed(what[0].strip() if what else type(original).__name__, url)
    return RegistryUnavailable(f"the registry at {where} cannot be used ({detail}); {_advice(original)}")


def disk_failed(what: str, error: OSError) -> RegistryUnavailable:
    """What an operating system's error means for ``what``, such as ``the blobs in .fairway/blobs``."""
    return RegistryUnavailable(
        f"{what} cannot be used ({error.strerror or error}); {_DISK.get(error.errno or 0, _CHECK)}"
    )


_CHECK = "check that it exists and that this user may write there"
_SPACE = "free some space, or move it to a larger disk"
_DISK = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: "it is on a read-only file system: choose another place in the settings",
    errno.EIO: "the disk reports an error: look at the system's log",
}

_BUSY = "another process is writing and did not finish in time: try again, or raise registry.lock_timeout_s"
_SQLITE = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: _SPACE,
    sqlite3.SQLITE_IOERR: "the disk is full or reports an error: free some space, and look at the system's log",
    sqlite3.SQLITE_READONLY: "it can only be read: check the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and that this user may write there",
    sqlite3.SQLITE_NOTADB: "the file is not a registry: move it away, or name another one in registry.url",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup, or move it away and register again",
}

_POSTGRES = {  # by SQLSTATE, or its class
    "08": "check that the server runs and can be reached from here",
    "25006": "the server is read-only: name the primary in registry.url",
    "42501": "grant this user the right to create and change tables",
    "42P07": "give Fairway a database of its own: this one has tables of the same names",
    "53": "the server has run out of disk, memory or connections: look at its log",
    "55P03": _BUSY,
    "57": "the server is stopping or starting: try again",
}


def _advice(error: BaseException | None) -> str:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        return _SQLITE.get(code, "restore it from a backup, or name another one in registry.url")
    state = getattr(error, "sqlstate", None)
    if state is None:  # the driver gives none where no connection was made; its text says why
        return "check that the server runs and can be reached, and the user, password and database in registry.url"
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2]) or "look at the server's log"
