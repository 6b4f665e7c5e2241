"""Directories that several processes use at once: one that is in use stays, and one that goes is gone at once."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.bundle.staging import PARTIAL


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether there is a directory at ``path``, which nobody removes within the block."""
    descriptor = hold(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def hold(path: Path) -> int | None:
    """A descriptor; until it is closed nobody removes the directory at ``path``. ``None`` if there is none."""
    return _locked(path, fcntl.LOCK_SH)


def remove(path: Path, *, wait: bool = False) -> bool:
    """Remove a directory: whether it is gone. One that somebody holds stays, or is waited for."""
    descriptor = _locked(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    if descriptor is None:
        return not path.exists()
    try:
        put_away(path)
    finally:
        os.close(descriptor)
    return True


def put_away(path: Path) -> None:
    """Rename a directory to what is swept if this is killed, then delete it: nobody finds half of it."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _locked(path: Path, how: int) -> int | None:
    """The descriptor that holds the lock on the directory at ``path``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    if _lock(descriptor, how) and _is_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there, what is in use may be removed
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether it was not removed while its lock was waited for."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
