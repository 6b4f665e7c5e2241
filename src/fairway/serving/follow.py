"""Follow a registry: whatever its aliases and releases say, this server moves itself there."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from fairway.bundle.format import Bundle
from fairway.bundle.staging import still_used
from fairway.core.errors import FairwayError, ModelNotFound
from fairway.core.manifest import ModelRef
from fairway.registry.records import CHAMPION, Release, Replica, Version
from fairway.serving.models import Models
from fairway.serving.prefetch import Prefetch, announced
from fairway.serving.repository import Offer
from fairway.serving.routing import Route
from fairway.serving.settings import ServeSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
HEARTBEAT_S = 5.0
_RETRY_S = (1.0, 60.0)


class FollowedRegistry(Protocol):
    """What a server needs of :class:`fairway.registry.store.Registry`. Called from one thread at a time."""

    def revision(self) -> int:
        """Changes whenever an alias or a release does."""
        ...

    def models(self) -> Sequence[str]:
        """Names of all models."""
        ...

    def version(self, ref: str) -> Version:
        """What a reference names."""
        ...

    def newest(self, model: str) -> Version | None:
        """The version registered last."""
        ...

    def fetch(self, version: Version, cache_dir: Path) -> Bundle:
        """A version's bundle, verified."""
        ...

    def aliases(self, model: str) -> Mapping[str, int]:
        """A model's aliases."""
        ...

    def release(self, model: str) -> Release | None:
        """A model's release."""
        ...

    def heartbeat(self, replica: Replica) -> None:
        """Say that a replica is alive."""
        ...

    def remove_replica(self, replica: str) -> None:
        """Forget a replica."""
        ...


class Wanted(msgspec.Struct, frozen=True):
    """What a registry wants of a server, for one model: where callers go, what else stays loaded, and what may come."""

    route: Route
    also: frozenset[str] = frozenset()
    announced: tuple[Version, ...] = ()

    @property
    def versions(self) -> frozenset[str]:
        """Every version to be loaded, in no order."""
        return self.also | versions_of(self.route)


def versions_of(route: Route) -> frozenset[str]:
    """The versions that a route sends callers to."""
    return frozenset({route.champion} | ({route.challenger} if route.challenger is not None else set()))


def route_for(ref: ModelRef, aliases: Mapping[str, int], release: Release | None) -> Route | None:
    """Where a reference's callers go. Pure. ``None``: the registry names no version.

    Examples
    --------
    >>> route_for(ModelRef("digits"), {"champion": 3}, Release("digits", 3, challenger=4, weight=0.1))
    Route(champion='3', challenger='4', weight=0.1)
    >>> route_for(ModelRef("digits", alias="staging"), {"champion": 3, "staging": 5}, None)
    Route(champion='5', challenger=None, weight=0.0)
    """
    if ref.version is not None:
        return Route(str(ref.version))
    if ref.alias is None and release is not None:
        if release.challenger is None:
            return Route(str(release.champion))
        return Route(str(release.champion), str(release.challenger), release.weight)
    number = aliases.get(ref.alias or CHAMPION)
    return None if number is None else Route(str(number))


def possible(wanted: Route, loaded: frozenset[str], current: Route | None) -> Route | None:
    """The nearest to ``wanted`` that loaded versions allow: without a challenger that is not there, or as things are."""
    if wanted.champion not in loaded:
        return current
    if wanted.challenger is not None and wanted.challenger not in loaded:
        return Route(wanted.champion)
    return wanted


class Follower:
    """Keeps ``models`` where a registry wants them.

    Parameters
    ----------
    registry : FollowedRegistry
    models : Models
    refs : sequence of str
        Model references; empty: every model with a champion.
    settings : ServeSettings
    url : str
        Of this server, for its heartbeat.
    cache_dir : Path
    """

    overridable = False  # what a caller's files answered would be noted under a registered version's number

    def __init__(
        self,
        registry: FollowedRegistry,
        models: Models,
        refs: Sequence[str],
        *,
        settings: ServeSettings,
        url: str,
        cache_dir: Path,
    ) -> None:
        self._registry = registry
        self._models = models
        self._refs = tuple(ModelRef.parse(ref) for ref in refs)
        self._poll_s = settings.poll_s
        self._cache_dir = cache_dir
        self._id = f"{platform.node() or 'replica'}-{os.getpid()}-{secrets.token_hex(4)}"
        self._url = url
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fairway-follow")
        self._revision: int | None = None
        self._failures: dict[tuple[str, str], FairwayError] = {}
        self._retry_at = 0.0
        self._retry_s = _RETRY_S[0]
        self._beat_at = 0.0
        self._reachable = True
        self._announced: tuple[Version, ...] = ()
        self._prefetch: Prefetch | None = None
        if settings.prefetch:
            self._prefetch = Prefetch(lambda version: registry.fetch(version, cache_dir), models.prepare)

    async def first(self) -> None:
        """Bring up what the registry wants.

        Raises
        ------
        FairwayError
            If the registry cannot be used, or a model that was asked for by name cannot be served.
        """
        await self._follow()
        if self._failures and (self._refs or not self._models.names()):
            raise next(iter(self._failures.values()))
        await self._beat()

    async def run(self) -> None:
        """Poll until cancelled. While the registry is out of reach, what is live stays live."""
        self._announce()
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._poll()
            except Exception as error:  # noqa: BLE001 (whatever fails, the server goes on)
                if self._reachable:
                    log.warning("registry_unreachable", extra={"reason": str(error)})
                self._reachable = False
            else:
                if not self._reachable:
                    log.info("registry_reachable")
                self._reachable = True

    def _announce(self) -> None:
        if self._prefetch is not None:
            self._prefetch.announce(self._announced)

    async def close(self) -> None:
        """Tell the registry that this server is gone, if it can be told."""
        if self._prefetch is not None:
            await self._prefetch.close()
        try:
            await self._off_loop(lambda: self._registry.remove_replica(self._id))
        except Exception as error:  # noqa: BLE001 (it will be seen as gone by its last heartbeat)
            log.info("replica_not_removed", extra={"reason": str(error)})
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> None:
        revision = await self._off_loop(self._registry.revision)
        if revision != self._revision or (self._failures and time.monotonic() >= self._retry_at):
            await self._follow()
            self._announce()
        if time.monotonic() >= self._beat_at:
            await self._beat()

    async def _follow(self) -> None:
        revision = await self._off_loop(self._registry.revision)  # before reading, so that no change is missed
        changed = revision != self._revision
        wanted = await self._off_loop(self._read)
        self._failures = {}
        for name, want in wanted.items():
            await self._move(name, want)
        for name in self._models.names():
            if name not in wanted and self._models.held(name) is None:
                async with self._models.changing(name):
                    self._models.keep(name, set())
        self._announced = tuple(version for want in wanted.values() for version in want.announced)
        self._revision = revision
        self._retry_s = _RETRY_S[0] if changed else min(self._retry_s * 2, _RETRY_S[1])
        self._retry_at = time.monotonic() + self._retry_s
        if changed:
            self._beat_at = 0.0

    def _read(self) -> dict[str, Wanted]:
        """In the thread: what the registry wants now."""
        refs = self._refs or tuple(ModelRef(name) for name in self._registry.models())
        wanted: dict[str, Wanted] = {}
        for ref in refs:
            route = route_for(ref, self._registry.aliases(ref.name), self._registry.release(ref.name))
            if route is None:
                if self._refs:
                    raise ModelNotFound(str(ref), (f"{ref.name}@{alias}" for alias in self._registry.aliases(ref.name)))
                continue
            first = wanted.get(ref.name)
            wanted[ref.name] = Wanted(route) if first is None else Wanted(first.route, first.also | versions_of(route))
        if self._prefetch is not None:
            moving = {ref.name for ref in refs if ref.version is None}
            wanted = {
                name: self._with_announced(name, want) if name in moving else want for name, want in wanted.items()
            }
        return wanted

    def _with_announced(self, name: str, want: Wanted) -> Wanted:
        newest, aliases = self._registry.newest(name), self._registry.aliases(name)
        numbers = announced(
            int(want.route.champion),
            aliases,
            newest.number if newest is not None else None,
            frozenset(map(int, want.versions)),
        )
        found = (
            newest if newest is not None and newest.number == number else self._registry.version(f"{name}:{number}")
            for number in numbers
        )
        return msgspec.structs.replace(want, announced=tuple(found))

    async def offer(self, name: str) -> Offer | None:
        """What the registry wants of this server under ``name`` now; ``None`` if nothing."""
        wanted = (await self._off_loop(self._read)).get(name)
        if wanted is None:
            return None
        versions = sorted(wanted.versions, key=int)
        return Offer({version: self._opener(name, version) for version in versions}, wanted.route)

    async def _move(self, name: str, want: Wanted) -> None:
        async with self._models.changing(name):
            if self._models.held(name) is None:  # else it was unloaded by hand, and stays so until it is loaded by hand
                await self._change(name, want)

    async def _change(self, name: str, want: Wanted) -> None:
        missing = want.versions - set(self._models.versions(name))
        for version in sorted(missing, key=lambda each: (each != want.route.champion, int(each))):
            try:
                await self._models.load(name, version, self._opener(name, version))
            except FairwayError as error:
                self._failures[name, version] = error
            except Exception as error:  # noqa: BLE001 (one model's trouble is not another's)
                self._failures[name, version] = FairwayError(f"{name}:{version} cannot be loaded: {error}")
        loaded = frozenset(self._models.versions(name))
        route = possible(want.route, loaded, self._models.route(name))
        if route is not None:
            self._models.point(name, route)
            self._models.keep(name, set(want.versions | versions_of(route)))

    def _opener(self, name: str, version: str) -> Callable[[], Bundle]:
        def opened() -> Bundle:
            return self._registry.fetch(self._registry.version(f"{name}:{version}"), self._cache_dir)

        return opened

    async def _beat(self) -> None:
        live = self._models.live()
        models = tuple(sorted(f"{served.name}:{served.version}" for served in live))
        replica = Replica(self._id, self._url, models, time.time())
        self._beat_at = time.monotonic() + HEARTBEAT_S

        def beat() -> None:
            for served in live:
                still_used(served.model.bundle.path)
            self._registry.heartbeat(replica)

        await self._off_loop(beat)

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
