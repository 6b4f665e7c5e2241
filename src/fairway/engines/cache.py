"""What engines made of a graph for this machine, kept for the next load: compiled code, packed weights to be mapped."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version as installed
from pathlib import Path
from typing import TypeAlias

import msgspec

from fairway.bundle.format import Bundle
from fairway.bundle.holding import held, remove
from fairway.bundle.staging import exclusive, publish, staging, sweep, sync
from fairway.core.errors import FairwayError, InvalidBundle, InvalidConfig
from fairway.core.manifest import EngineSpec
from fairway.core.processor import abilities, processor
from fairway.engines.base import Engine, find_engine, load_engine

log = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[Engine], bytes]
"""Gives an engine's answers to some rows, as bytes to be compared."""

_INDEX = "entry.json"
_FORMAT = 1
_TURN_S = 0.1


class _Entry(msgspec.Struct, frozen=True):
    """What lies in an entry: by file its size, and when it was last written and changed (ns). ``refused``: why nothing does."""

    files: dict[str, tuple[int, int, int]]
    refused: str = ""


class EngineCache:
    """A directory of entries, one for each bundle, engine, its version and options, and CPU. Safe with several processes.

    An entry appears whole, by a rename, goes by another, and is never altered; one that is being loaded from stays. One whose
    files are not those that were written is not used. Whatever goes wrong with the cache, models are loaded without it; the
    first reason is logged.

    Parameters
    ----------
    root : Path
        Made if it is not there. What lies in it is run, so it must be this user's and closed to all others (0700).
    limit_bytes : int
        What all entries may take. The longest unused go first.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root.absolute()
        self.limit_bytes = limit_bytes
        self._off = False

    def load(self, spec: EngineSpec, bundle: Bundle) -> tuple[Engine, bool]:
        """The engine, and whether it came from the cache. ``spec`` is the bundle's, with the threads that are wanted.

        Raises
        ------
        FairwayError
            As :func:`fairway.engines.base.load_engine` does; never for the cache's sake.
        """
        with self._held(spec, bundle) as entry:
            if entry is None:
                return load_engine(spec, bundle.path), False
            try:
                return load_engine(spec, bundle.path, cache=entry), True
            except (InvalidBundle, OSError) as error:  # it is damaged where nobody could see
                log.warning("engine_cache_entry_unusable", extra={"entry": str(entry), "reason": str(error)})
        remove(entry)
        return load_engine(spec, bundle.path), False

    def find(self, spec: EngineSpec, bundle: Bundle) -> Path | None:
        """The whole entry of a bundle, which counts as used now; ``None`` if there is none."""
        path = self._path(spec, bundle)
        known = self._read(path) if path is not None else None
        if path is None or known is None or known.refused:
            return None
        try:
            os.utime(path / _INDEX)
        except OSError:
            return None
        return path

    def wanted(self, spec: EngineSpec, bundle: Bundle) -> bool:
        """Whether filling the cache would make the bundle's next load faster, as far as can be told without trying."""
        if self._off or not 0 < bundle.size_bytes <= self.limit_bytes:
            return False
        path = self._path(spec, bundle)
        if path is None or self._read(path) is not None:
            return False
        worth = getattr(find_engine(spec.name), "worth_caching", None)
        return worth is None or bool(worth(bundle.size_bytes, **spec.options))

    def fill(self, spec: EngineSpec, bundle: Bundle, ask: Ask) -> bool:
        """Make the entry of a bundle, unless there is one; whether there is one now that can be used.

        Takes about three times as long as loading, and twice the memory: to be run in a process of its own. An entry with
        which the engine would answer otherwise, by a single bit, is not kept.

        Raises
        ------
        FairwayError
            If the bundle cannot be loaded, or the directory is not private, or there is no room.
        OSError
            If the directory cannot be written to.
        """
        self._make_private()
        path = self._path(spec, bundle)
        if path is None:
            return False
        with exclusive(self.root / ".lock"):
            sweep(self.root)
            known = self._read(path)
            if known is not None:
                return not known.refused
            self._check_room(bundle)
            remove(path, wait=True)  # one that was damaged
            with staging(path) as staged:
                entry = _Entry({}, refused) if (refused := _make(spec, bundle, staged, ask)) else _entry_of(staged)
                (staged / _INDEX).write_bytes(msgspec.json.encode(entry))
                sync(staged / _INDEX)
                publish(staged, path)
            self._make_room(path)
        return not refused

    @contextmanager
    def turn(self, given_up: threading.Event) -> Iterator[bool]:
        """Wait until no other server has its turn to fill: whether this one has it before ``given_up`` is set.

        Raises
        ------
        InvalidConfig
            If the directory is not private.
        OSError
            If it cannot be written to.
        """
        self._make_private()
        with (self.root / ".turn").open("wb") as lock:
            while not given_up.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    given_up.wait(_TURN_S)
                else:
                    break
            yield not given_up.is_set()

    def unusable(self, reason: str) -> None:
        """Go on without filling it. Said once."""
        if not self._off:
            self._off = True
            log.warning("engine_cache_off", extra={"directory": str(self.root), "reason": reason})

    # -- inside

    @contextmanager
    def _held(self, spec: EngineSpec, bundle: Bundle) -> Iterator[Path | None]:
        """The whole entry of a bundle, which nobody removes within the block: an engine would fill what it finds empty."""
        path = self._path(spec, bundle)
        with held(path) if path is not None else nullcontext() as there:
            yield self.find(spec, bundle) if there else None

    def _path(self, spec: EngineSpec, bundle: Bundle) -> Path | None:
        """Where the bundle's entry lies; ``None`` for an engine that keeps nothing."""
        try:
            factory = find_engine(spec.name)
            runtime = getattr(factory, "runtime", "")
            if not getattr(factory, "caches", False):
                return None
            version = importlib.import_module(runtime).__version__ if runtime else ""
        except (FairwayError, ImportError):  # loading it says so better
            return None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        parts = (
            *(_FORMAT, installed("fairway"), bundle.digest, runtime, version, processor(), abilities(), cores),
            *(spec.name, spec.file, spec.threads, sorted(spec.options.items())),
        )
        return self.root / f"{spec.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:40]}"

    def _read(self, path: Path) -> _Entry | None:
        """The entry at ``path`` if it is whole."""
        try:
            if not self.root.exists():
                return None
            _check_private(self.root)
            entry = msgspec.json.decode((path / _INDEX).read_bytes(), type=_Entry)
            whole = all(_identity(path / name) == known for name, known in entry.files.items())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        except (OSError, InvalidConfig) as error:
            self.unusable(str(error))
            return None
        return entry if whole else None

    def _make_private(self) -> None:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        _check_private(self.root)

    def _check_room(self, bundle: Bundle) -> None:
        free, need = shutil.disk_usage(self.root).free, 2 * bundle.size_bytes
        if free < need:
            raise InvalidConfig(
                f"{self.root} has {free / 1e6:,.0f} MB free, and {need / 1e6:,.0f} MB are wanted; make room, or set "
                "engine_cache_mb = 0 in [serve]"
            )

    def _make_room(self, newest: Path) -> None:
        """Remove the longest unused until all fit, the newest last. Whoever has mapped one keeps it."""
        entries = [(_used_at(path), path != newest, path) for path in self.root.iterdir() if path.is_dir()]
        sizes = {path: _size(path) for *_, path in entries}
        for _, _, path in sorted(entries, key=lambda entry: (not entry[1], entry[0])):
            if sum(sizes.values()) <= self.limit_bytes:
                break
            if remove(path):
                del sizes[path]


def _make(spec: EngineSpec, bundle: Bundle, staged: Path, ask: Ask) -> str:
    """Let the engine write to ``staged``, and try what it wrote: why that is not kept, or nothing."""
    answers = _answers(spec, bundle, staged, ask)
    written = [path for path in staged.rglob("*") if path.is_file()]
    if not written:
        return "the engine keeps nothing"
    for path in written:
        sync(path)
    try:
        if _answers(spec, bundle, staged, ask) == answers:
            return ""
        refused = "the engine answers otherwise with it"
    except InvalidBundle as error:
        refused = f"the engine cannot read it again: {error}"
    for path in written:
        path.unlink()
    return refused


def _answers(spec: EngineSpec, bundle: Bundle, cache: Path, ask: Ask) -> bytes:
    engine = load_engine(spec, bundle.path, cache=cache)
    try:
        return ask(engine)
    finally:
        engine.close()


def _entry_of(staged: Path) -> _Entry:
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    return _Entry({path.relative_to(staged).as_posix(): _identity(path) for path in files})


def _identity(path: Path) -> tuple[int, int, int]:
    """Nobody writes to a file without changing this; hashing it would take longer than loading it does."""
    info = path.lstat()
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _size(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError:  # it was removed meanwhile
        return 0


def _used_at(path: Path) -> float:
    try:
        return (path / _INDEX).stat().st_mtime
    except OSError:
        return 0.0


def _check_private(root: Path) -> None:
    info = root.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise InvalidConfig(
            f"{root} is run from, and must be a directory of this user alone; remove it, or: chmod 700 {root}"
        )
