"""The registry: one object over the database and the blobs. Every change is one transaction with its event."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection

from fairway.bundle.format import Bundle
from fairway.core.events import Action
from fairway.core.manifest import ModelRef
from fairway.registry import catalog, journal, releases, reports
from fairway.registry.blobs import Blobs, open_blobs
from fairway.registry.cache import fetch_bundle
from fairway.registry.database import Database
from fairway.registry.forgetting import EVERY_S, forget_windows, forgotten_periods
from fairway.registry.journal import Entry
from fairway.registry.records import CHAMPION, Event, Release, Replica, Version, Window
from fairway.registry.schema import prepare
from fairway.registry.settings import RegistrySettings


class Registry:
    """Versions, aliases, releases, windows and their audit trail. Thread-safe; a context manager.

    Open one with :meth:`open`. Every method raises :class:`~fairway.core.errors.RegistryUnavailable` when the database or
    the blob store cannot be used, with what to do about it.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Callable[[], float],
        *,
        cache_bytes: float = math.inf,
        keep_windows_s: float = math.inf,
        max_windows: float = math.inf,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._cache_bytes = cache_bytes
        self._keep_windows_s = keep_windows_s
        self._max_windows = max_windows
        self._forget_at = -math.inf

    @classmethod
    def open(
        cls,
        settings: RegistrySettings | None = None,
        *,
        create: bool = True,
        root: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Registry:
        """Open the registry, making or migrating its tables if needed.

        Parameters
        ----------
        settings : RegistrySettings
        create : bool, default True
            Whether a registry that does not exist yet is made.
        root : Path, optional
            Where relative paths in the settings start; the working directory by default.
        clock : callable
            Seconds since the epoch, UTC.

        Raises
        ------
        RegistryUnavailable
            If it cannot be reached or used, or does not exist and ``create`` is false.
        NewerFormat
            If a newer Fairway made it.
        InvalidConfig
            If the settings name no database or blob store that Fairway knows.
        """
        placed = (settings or RegistrySettings()).at(root or Path())
        database = Database(placed.url, placed.lock_timeout_s)
        try:
            prepare(database, create=create)
            return cls(
                database,
                open_blobs(placed.blobs),
                clock,
                cache_bytes=placed.cache_mb * 1e6 or math.inf,
                keep_windows_s=placed.keep_windows_days * 86_400 or math.inf,
                max_windows=placed.max_windows or math.inf,
            )
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def register(self, bundle: Bundle, *, aliases: Sequence[str] = (), actor: str = "") -> Version:
        """Keep a bundle as the next version of its model, and point ``aliases`` at it.

        The same bundle registered again, by whichever process, is the version that it already is.

        Raises
        ------
        InvalidBundle
            If the bundle was altered or truncated.
        InvalidConfig
            If an alias has no valid name.
        Conflict
            If ``champion`` is among the aliases while a challenger is being tried.
        """
        for alias in aliases:
            catalog.check_alias(alias)
        bundle.verify()
        signature = bundle.signature()
        for name, file in bundle.manifest.files.items():  # blobs first: a version never names what is not there
            self._blobs.put(bundle.file(name), file)
        with self._writing() as (connection, at):
            version, new = catalog.add_version(connection, bundle.manifest, bundle.size_bytes, signature, at)
            if new:
                change = {"version": version.number, "digest": version.digest, "parent": version.parent}
                entry = Entry(at=at, model=version.model, action=Action.REGISTERED, actor=actor, change=change)
                self._changed(connection, entry)
            for alias in dict.fromkeys(aliases):
                self._point(connection, at, version, alias, actor=actor, reason="registered")
        return version

    def models(self) -> tuple[str, ...]:
        """The names of all models, sorted."""
        with self._database.read() as connection:
            return catalog.model_names(connection)

    def versions(self, model: str) -> tuple[Version, ...]:
        """All versions of a model, oldest first. Raises :class:`~fairway.core.errors.ModelNotFound`."""
        with self._database.read() as connection:
            return catalog.versions_of(connection, model)

    def newest(self, model: str) -> Version | None:
        """The version registered last; ``None`` if there is no such model."""
        with self._database.read() as connection:
            return catalog.newest(connection, model)

    def version(self, ref: str | ModelRef) -> Version:
        """The version that ``digits:4`` or ``digits@champion`` names; ``digits`` is the champion, or else the newest.

        Raises
        ------
        ModelNotFound
            If there is none; the message lists what there is.
        InvalidConfig
            If ``ref`` is not a reference.
        """
        parsed = ModelRef.parse(ref) if isinstance(ref, str) else ref
        with self._database.read() as connection:
            return catalog.find(connection, parsed)

    def fetch(self, version: Version | str, cache_dir: Path) -> Bundle:
        """The version's bundle, verified, in a cache that several processes may share.

        Raises
        ------
        InvalidBundle
            If the blob store lacks one of its files or holds it altered; registering the bundle again repairs that.
        """
        found = self.version(version) if isinstance(version, str) else version
        signature = b""
        if found.signed:
            with self._database.read() as connection:
                signature = catalog.signature_of(connection, found)
        return fetch_bundle(found, signature, self._blobs, cache_dir, limit_bytes=self._cache_bytes)

    def aliases(self, model: str) -> dict[str, int]:
        """A model's aliases and the version numbers they point at, sorted; empty if there are none."""
        with self._database.read() as connection:
            return catalog.alias_numbers(connection, model)

    def set_alias(self, model: str, alias: str, version: int, *, actor: str, reason: str = "") -> None:
        """Point an alias at a version. Moving ``champion`` takes the model's release along.

        Raises
        ------
        ModelNotFound
            If there is no such version.
        InvalidConfig
            If the alias has no valid name.
        Conflict
            If the alias is ``champion`` and a challenger is being tried.
        """
        catalog.check_alias(alias)
        with self._writing() as (connection, at):
            found = catalog.version_at(connection, model, version)
            self._point(connection, at, found, alias, actor=actor, reason=reason)

    def release(self, model: str) -> Release | None:
        """Which versions answer the model's callers; ``None`` if no release was ever made."""
        with self._database.read() as connection:
            return releases.read_release(connection, model)

    def save_release(
        self,
        release: Release,
        *,
        expected: int | None,
        action: Action,
        actor: str,
        reason: str = "",
        evidence: Any = None,
    ) -> Release:
        """Change a release if nobody else did since it was read. The ``champion`` alias moves with it.

        Parameters
        ----------
        release : Release
            As it shall be; its ``revision`` and ``updated_at`` are set here.
        expected : int or None
            The revision that it had when it was read; ``None`` if there was no release.
        action, actor, reason, evidence
            For the event; ``evidence`` is JSON data, or ``bytes`` that already are JSON.

        Raises
        ------
        Conflict
            If the release is not at revision ``expected``: the message tells what it is now.
        InvalidConfig
            If the release contradicts itself.
        ModelNotFound
            If it names a version that does not exist.
        """
        releases.check_release(release)
        with self._writing() as (connection, at):
            saved = releases.write_release(connection, release, expected, at)
            change = releases.as_change(saved)
            entry = Entry(
                at=at,
                model=saved.model,
                action=action,
                actor=actor,
                reason=reason,
                change=change,
                evidence=evidence,
            )
            self._changed(connection, entry)
        return saved

    def record(self, model: str, action: Action, actor: str, reason: str = "", evidence: Any = None) -> None:
        """Add an event that changes nothing, such as a refusal."""
        with self._writing() as (connection, at):
            entry = Entry(at=at, model=model, action=action, actor=actor, reason=reason, evidence=evidence)
            journal.append(connection, entry)

    def events(
        self, model: str | None = None, after: int = 0, limit: int = 100, *, newest: bool = False
    ) -> tuple[Event, ...]:
        """The audit trail in order: the first ``limit`` events after id ``after``, or the last ``limit`` if ``newest``."""
        with self._database.read() as connection:
            return journal.read(connection, model, after, limit, newest=newest)

    def add_window(self, window: Window) -> None:
        """Keep what a replica saw. The same window again counts once. Raises :class:`ModelNotFound` for an unknown version.

        Now and then, windows of any model that are too old or too many go.
        """
        now = self._clock()
        due = now >= self._forget_at
        with self._database.write() as connection:
            if due:
                catalog.serialize_writers(connection)
                forget_windows(connection, now=now, keep_s=self._keep_windows_s, most=self._max_windows)
            catalog.version_at(connection, window.model, window.version)
            reports.add_window(connection, window)
        if due:
            self._forget_at = now + EVERY_S

    def windows(self, model: str, version: int | None = None, since: float | None = None) -> tuple[Window, ...]:
        """A model's windows, oldest first: of one version if given, and that ended after ``since`` if given."""
        with self._database.read() as connection:
            return reports.read_windows(connection, model, version, since)

    def forgotten_periods(self, model: str, version: int) -> int:
        """How many starts the windows of a version had that are no longer kept: drift counts each as a look."""
        with self._database.read() as connection:
            return forgotten_periods(connection, model, version)

    def heartbeat(self, replica: Replica) -> None:
        """Say that a server process is alive, and what it serves."""
        with self._database.write() as connection:
            reports.write_heartbeat(connection, replica)

    def replicas(self, seen_since: float | None = None) -> tuple[Replica, ...]:
        """Server processes by id: all ever heard of, or those heard of after ``seen_since``."""
        with self._database.read() as connection:
            return reports.read_replicas(connection, seen_since)

    def remove_replica(self, replica: str) -> None:
        """Forget a server process that stops."""
        with self._database.write() as connection:
            reports.remove_replica(connection, replica)

    def revision(self) -> int:
        """Grows whenever a version, an alias or a release changes. One row read: poll it."""
        with self._database.read() as connection:
            return catalog.revision(connection)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, float]]:
        """A transaction that no other writer overlaps, and its time: so times grow with event ids."""
        with self._database.write() as connection:
            catalog.serialize_writers(connection)
            yield connection, self._clock()

    def _point(
        self, connection: Connection, at: float, version: Version, alias: str, *, actor: str, reason: str
    ) -> None:
        release = None
        if alias == CHAMPION:
            release = releases.follow_champion(connection, version.model, version.number, at)
        before = catalog.alias_numbers(connection, version.model).get(alias) if release is None else release.previous
        catalog.move_alias(connection, version.model, alias, version.number, at)
        if before == version.number:
            return
        change: dict[str, Any] = {"alias": alias, "version": version.number, "before": before}
        change |= releases.as_change(release) if release else {}
        entry = Entry(at=at, model=version.model, action=Action.ALIASED, actor=actor, reason=reason, change=change)
        self._changed(connection, entry)

    @staticmethod
    def _changed(connection: Connection, entry: Entry) -> None:
        catalog.tell_followers(connection)
        journal.append(connection, entry)
