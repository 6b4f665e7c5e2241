"""A directory that appears whole or not at all: written beside its destination, made durable, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

CHUNK = 2**20
PARTIAL = ".partial"
"""How names end of what is being written, or removed, and swept if whoever does so is killed."""


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """A fresh directory beside ``destination`` to write into; it is gone afterwards unless it was renamed.

    It is locked while its writer lives, so that whoever writes to the same destination next can tell what a killed
    writer left behind from what another writer is still busy with, and removes only the former.
    """
    with _scratch(destination, destination.parent, directory=True) as directory:
        yield directory


def publish(staged: Path, destination: Path) -> None:
    """Make ``staged`` durable and rename it to ``destination``. Raises ``OSError`` if something else is there."""
    staged.chmod(0o755)  # mkdtemp's 0700 would keep the server's user out
    for directory in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
        sync(directory)
    staged.rename(destination)
    sync(destination.parent)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread is in a block with the same ``lock`` file. Freed by the kernel on a kill."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def copy(source: BinaryIO, target: BinaryIO, limit: int | None = None) -> tuple[str, int]:
    """Copy to the end, or to one chunk past ``limit`` bytes: the SHA-256 of what was copied in hex, and its size."""
    digest, size = hashlib.sha256(), 0
    while (limit is None or size <= limit) and (chunk := source.read(CHUNK)):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


@contextmanager
def publish_file(path: Path, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """A stream whose content becomes ``path``, atomically and durably, unless an error leaves the block.

    ``scratch`` is the folder that holds it meanwhile, on the same file system (default: beside it).
    """
    with _scratch(path, scratch or path.parent, directory=False) as draft:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(path)
        sync(path.parent)


def still_used(directory: Path) -> None:
    """Note in a directory's time that it is in use, where that may be noted."""
    with suppress(OSError):
        os.utime(directory)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in ``folder``, whatever they were writing."""
    _sweep(folder, ".")


def sync(path: Path) -> None:
    """Make a file's content durable, or a directory's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _scratch(destination: Path, folder: Path, *, directory: bool) -> Iterator[Path]:
    """A locked, empty directory or file in ``folder``; removed afterwards unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name[:60]}."
    _sweep(folder, prefix)
    path, lock = _locked(folder, prefix, directory=directory)
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


def _locked(folder: Path, prefix: str, *, directory: bool) -> tuple[Path, int]:
    """A new path, and the descriptor that holds its lock. Another writer may sweep it first: then try again."""
    while True:
        if directory:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=PARTIAL, dir=folder))
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=PARTIAL, dir=folder)
            os.close(descriptor)
            path = Path(name)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    return path, lock
            except BlockingIOError:
                pass
            except OSError:  # a file system without locks: then nothing is ever swept on it either
                return path, lock
            os.close(lock)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed writers left: whatever has such a name and is not locked."""
    for path in folder.iterdir():
        if not (path.name.startswith(prefix) and path.name.endswith(PARTIAL)):
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
