"""The search's directory: one search at a time, no half-written file, no leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fairway.core.errors import Conflict


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for one search, and remove what it, or one that was killed, leaves behind.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises
    ------
    Conflict
        If another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another search is running in {directory}; wait for it, or use another directory") from None
        _clear(directory)
        try:
            yield
        finally:
            _clear(directory)


def _clear(directory: Path) -> None:
    """Remove what was only of use to one search."""
    for leftover in directory.glob(".*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        elif leftover.name != ".lock":
            leftover.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file: all of it, or nothing."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
