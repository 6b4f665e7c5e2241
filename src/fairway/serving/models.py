"""The versions that a server has loaded: verify, load, warm up, go live in one step, drain, close."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError, InvalidRequest, ModelNotFound, ModelNotReady
from fairway.core.events import EventSink
from fairway.engines.cache import EngineCache
from fairway.serving.cold import Cold, ColdModel
from fairway.serving.control import Agreed, alone
from fairway.serving.loading import Loader
from fairway.serving.memory import Holding, make_room
from fairway.serving.overrides import bundle_of, check_limits, chosen, limited, read_config
from fairway.serving.repository import Offer, Opener, Repository
from fairway.serving.routing import Route, choose
from fairway.serving.served import Description, IndexEntry, ServedVersion, State
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.serving.workers import threads_here

log = logging.getLogger(__name__)

UNLOADED = "unloaded"
EVICTED = "unloaded to make room; a request for it loads it again"
BROUGHT = "loaded from files"
_HANGS = "an engine call does not end"


class Models:
    """All versions of all models that this process serves. For the event loop's thread only.

    Parameters
    ----------
    settings : ServeSettings
    telemetry : Telemetry
    sink : EventSink or None
    engine_cache : Path, optional
        Where engines keep what they made of graphs; without, or with ``engine_cache_mb = 0``, nowhere.

    Attributes
    ----------
    settings : ServeSettings
    repository : Repository or None
        Where :meth:`load_model` finds models.
    """

    def __init__(
        self,
        settings: ServeSettings,
        telemetry: Telemetry,
        sink: EventSink | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        self.repository: Repository | None = None
        self.settings = settings
        self._telemetry = telemetry
        self._sink = sink
        self._live: dict[str, dict[str, ServedVersion]] = {}
        self._routes: dict[str, Route] = {}
        self._absent: dict[tuple[str, str], IndexEntry] = {}
        self._cold: dict[tuple[str, str], Cold] = {}
        self._limits: dict[str, ModelServeSettings] = {}
        self._held: dict[str, str] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._coming: list[ServedVersion] = []  # ready, and not live yet
        self._waking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._retiring: dict[asyncio.Task[None], ServedVersion] = {}
        limit_bytes = int(settings.engine_cache_mb * 1e6)
        cache = EngineCache(engine_cache, limit_bytes) if engine_cache is not None and limit_bytes else None
        self._loader = Loader(
            lambda bundled: threads_here(bundled, settings), cache=cache, shared=settings.workers != 1
        )

    # -- answering

    def resolve(self, name: str, version: str | None, key: str | None) -> ServedVersion:
        """The version that answers this caller.

        Parameters
        ----------
        name : str
        version : str or None
            ``None``: by the route.
        key : str or None
            Whose callers stay together; ``None`` is drawn anew for each request.

        Raises
        ------
        ModelNotFound
            If nothing of that name, or no such version, is loaded here.
        ModelNotReady
            If it is still loading, could not be loaded, or was unloaded (:class:`ColdModel` if only to make room).
        """
        if version is None:
            route = self._routes.get(name)
            if route is None:
                raise self._missing(name, None)
            version = route.champion
            if route.challenger is not None:
                version = choose(route, name, key if key is not None else f"{random.getrandbits(64):x}")
        try:
            return self._live[name][version]
        except KeyError:
            raise self._missing(name, version) from None

    def describe(self, name: str, version: str | None, key: str | None) -> Description:
        """The version that answers this caller, be it loaded or unloaded to make room; see :meth:`resolve`."""
        try:
            return self.resolve(name, version, key).description
        except ColdModel as cold:
            return cold.description

    def knows(self, name: str) -> bool:
        """Whether a model can answer, is being loaded, or could not be, or was unloaded."""
        return bool(self.versions(name)) or any(model == name for model, _ in self._absent)

    def versions(self, name: str) -> list[str]:
        """The versions of a model that can answer, at once or when loaded again, oldest first."""
        return sorted({*self._live.get(name, ()), *self._cold_of(name)}, key=_by_number)

    def names(self) -> list[str]:
        """The models that can answer, at once or when loaded again."""
        return sorted({*self._live, *(name for name, _ in self._cold)})

    def route(self, name: str) -> Route | None:
        """Where a model's callers go, ``None`` if it is not served."""
        return self._routes.get(name)

    def cold(self) -> list[Description]:
        """Every version that was unloaded to make room."""
        return [cold.description for cold in self._cold.values()]

    def live(self) -> list[ServedVersion]:
        """Every version that can answer at once."""
        return [served for versions in self._live.values() for served in versions.values()]

    def index(self) -> list[IndexEntry]:
        """Every version known here and its state."""
        ready = [IndexEntry(served.name, served.version, State.READY) for served in self.live()]
        return sorted([*ready, *self._absent.values()], key=lambda entry: (entry.name, _by_number(entry.version)))

    # -- explicit control

    async def load_model(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        agreed: Agreed = alone,
    ) -> None:
        """Load a model, or load it anew: what this server knows under ``name``, or the bundle in ``files``.

        All its versions are made ready beside those that serve, and then take over in one step. What fails leaves everything
        as it was.

        Parameters
        ----------
        name : str
        config : mapping, optional
            Limits and a choice of versions for as long as it is loaded; see :func:`fairway.serving.overrides.read_config`.
        files : mapping of path to content, optional
            A bundle to serve instead; see :func:`fairway.serving.overrides.bundle_of`.
        agreed : callable
            Awaited when all is ready, before it goes live; if it raises, everything stays as it was.

        Raises
        ------
        ModelNotFound
            If this server does not know the name.
        InvalidRequest
            If ``config`` is wrong, or ``files`` are another model's.
        FairwayError
            If a version cannot be had, verified, loaded or warmed up, or there is no room for it.
        """
        understood = read_config(name, config)
        check_limits(self.settings, name, understood.limits)
        async with self.changing(name):
            offer = await self._offer(name, files)
            offer = offer if files else chosen(offer, understood.policy, name)
            made: list[ServedVersion] = []
            absent = {version: self._absent.get((name, version)) for version in offer.versions}
            try:
                for version, opened in offer.versions.items():
                    made.append(await self._make(name, version, opened, understood.limits))
                await agreed()
            except BaseException:
                for served in made:
                    self._coming.remove(served)
                    self._absent.pop((name, served.version), None)
                    if (entry := absent[served.version]) is not None:
                        self._absent[name, served.version] = entry
                    await served.retire()
                raise
            self._limits[name] = understood.limits
            self._held.pop(name, None)
            if files:
                self._held[name] = BROUGHT
            for served in made:
                served.brought = bool(files)
                self._install(served, offer.versions[served.version])
            self.point(name, offer.route)
            self.keep(name, set(offer.versions))

    async def unload_model(self, name: str) -> None:
        """Stop serving a model: it answers what it has accepted, and stays unloaded until :meth:`load_model`.

        Returns when its memory is free, or after ``grace_s`` if a request still runs then. An unknown name is no error.
        """
        async with self.changing(name):
            known = {*self.versions(name), *(version for model, version in self._absent if model == name)}
            if not known:
                return
            self._held[name] = UNLOADED
            self._limits.pop(name, None)
            self.keep(name, set())
            for version in known:
                self._absent[name, version] = IndexEntry(name, version, State.UNAVAILABLE, UNLOADED)
            leaving = [task for task, served in self._retiring.items() if served.name == name]
        if leaving:
            await asyncio.wait(leaving, timeout=self.settings.grace_s)

    def held(self, name: str) -> str | None:
        """Why a follower must leave a model alone: it was unloaded, or loaded from files, by hand. ``None``: it need not."""
        return self._held.get(name)

    def changing(self, name: str) -> asyncio.Lock:
        """To be held by whoever loads, points or unloads a model: one change of a name at a time."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    # -- changing

    async def load(self, name: str, version: str, opened: Opener) -> None:
        """Make a version able to answer those who ask for it by number; :meth:`point` sends it everybody else.

        ``opened`` gives the verified bundle; it, the loading and the warm-up run in a thread. What is live stays so,
        whatever happens here; a failure stays visible in the index.

        Raises
        ------
        FairwayError
            If the bundle cannot be had, read, loaded or warmed up, or there is no room for it.
        """
        if version in self._live.get(name, ()):
            return
        self._install(await self._make(name, version, opened, self._limits.get(name, ModelServeSettings())), opened)

    async def prepare(self, bundle: Bundle) -> None:
        """Have ready what would make loading ``bundle`` fast, where the budget of memory leaves room to. Never fails."""
        limit_bytes = self.settings.memory_mb * 1e6
        held = sum(served.size_bytes for served in self.live())
        if not limit_bytes or held + 2 * bundle.size_bytes <= limit_bytes:
            await self._loader.prepare(bundle)

    async def wake(self, name: str, version: str) -> None:
        """Load again what was unloaded to make room; however many ask, it is loaded once.

        Raises
        ------
        FairwayError
            If it cannot be. It is tried again, when asked for, after growing pauses up to a minute.
        """
        task = self._waking.get((name, version))
        if task is None:
            task = asyncio.get_running_loop().create_task(self._wake(name, version))
            self._waking[name, version] = task
            task.add_done_callback(lambda done: self._woken(name, version, done))
        await asyncio.shield(task)

    def point(self, name: str, route: Route) -> None:
        """Send a model's callers along ``route``, whose versions are loaded. Takes effect at once and for all."""
        for version in (route.champion, route.challenger):
            if version is not None and version not in self.versions(name):
                raise ModelNotReady(f"version {version} of {name!r} is not loaded, so nobody can be sent there")
        if self._routes.get(name) != route:
            self._routes[name] = route
            extra = {"model": name, "champion": route.champion, "challenger": route.challenger, "weight": route.weight}
            log.info("model_routed", extra=extra)

    def keep(self, name: str, versions: set[str]) -> None:
        """Retire every other version of ``name``: it answers what it has accepted, and is then freed."""
        live = self._live.get(name, {})
        for version in [version for version in live if version not in versions]:
            self._retire(live.pop(version))
            self._telemetry.versions.pop((name, version), None)
        for version in [version for version in self._cold_of(name) if version not in versions]:
            del self._cold[name, version]
        if not live:
            self._live.pop(name, None)
            if not self._cold_of(name):
                self._routes.pop(name, None)
        for key in [key for key in self._absent if key[0] == name and key[1] not in versions]:
            del self._absent[key]

    def failed(self, name: str, version: str, reason: str) -> None:
        """Show in the index that a version could not be served."""
        self._absent[name, version] = IndexEntry(name, version, State.UNAVAILABLE, reason)

    async def close(self, wait_s: float | None = None) -> bool:
        """Retire everything: whether all has come to its end, for which ``wait_s`` is waited at most."""
        self._loader.close()
        for task in self._waking.values():
            task.cancel()
        for name in self.names():
            self.keep(name, set())
        if not self._retiring:
            return True
        _, pending = await asyncio.wait(self._retiring, timeout=wait_s)
        for task in pending:
            served = self._retiring[task]
            log.error("model_not_unloaded", extra={"model": served.name, "version": served.version, "reason": _HANGS})
        return not pending

    # -- inside

    async def _offer(self, name: str, files: Mapping[str, bytes] | None) -> Offer:
        repository = self.repository
        if files:
            if repository is not None and not repository.overridable:
                raise InvalidRequest(
                    f"this server follows a registry, so {name!r} cannot be loaded from files; register the bundle instead"
                )
            limit = self.settings.max_body_bytes
            asked, bundle = await asyncio.to_thread(bundle_of, name, files, limit)
            route = self._routes.get(name)
            version = asked or (route.champion if route is not None else "1")
            return Offer({version: lambda: bundle}, Route(version))
        offer = await repository.offer(name) if repository is not None else None
        if offer is None:
            raise ModelNotFound(name, self.names())
        return offer

    async def _make(self, name: str, version: str, opened: Opener, limits: ModelServeSettings) -> ServedVersion:
        """A version that could answer; not yet known to anybody."""
        replaces = version in self._live.get(name, ())
        if not replaces:
            self._absent[name, version] = IndexEntry(name, version, State.LOADING)
        started = time.perf_counter()
        settings = limited(self.settings, name, limits)
        memory_mb = settings.own(name).memory_mb
        try:
            loaded = await self._loader.load(
                opened,
                size_bytes=None if memory_mb is None else int(memory_mb * 1e6),
                make_room=lambda need: self._make_room((name, version), need),
            )
        except BaseException as error:
            reason = str(error) or type(error).__name__
            if not replaces:
                self._absent[name, version] = IndexEntry(name, version, State.UNAVAILABLE, reason)
            if not isinstance(error, asyncio.CancelledError):  # the server stops
                log.error("model_load_failed", extra={"model": name, "version": version, "reason": reason})
            raise
        served = ServedVersion(name, version, loaded.model, loaded.warmed, settings=settings, sink=self._sink)
        served.size_bytes = loaded.size_bytes
        served.stats.load_s = time.perf_counter() - started
        self._coming.append(served)
        return served

    def _install(self, served: ServedVersion, opened: Opener) -> None:
        """Go live; who was live under the same number retires."""
        name, version = served.name, served.version
        self._coming.remove(served)
        served.opened = opened
        before = self._live.setdefault(name, {}).get(version)
        self._live[name][version] = served
        self._absent.pop((name, version), None)
        self._cold.pop((name, version), None)
        self._telemetry.versions[name, version] = served.stats
        if before is not None:
            self._retire(before)
        extra = {"model": name, "version": version, "duration_ms": round(served.stats.load_s * 1e3, 1)}
        extra |= {"memory_mb": round(served.size_bytes / 1e6, 1), "engine_cached": served.model.cached}
        log.info("model_loaded", extra=extra)

    def _retire(self, served: ServedVersion) -> asyncio.Task[None]:
        async def retire() -> None:
            await served.retire()
            log.info("model_unloaded", extra={"model": served.name, "version": served.version})

        task = asyncio.get_running_loop().create_task(retire())
        self._retiring[task] = served
        task.add_done_callback(lambda done: self._retiring.pop(done, None))
        return task

    # -- memory

    async def _make_room(self, newcomer: tuple[str, str], need_bytes: int) -> None:
        limit_bytes = int(self.settings.memory_mb * 1e6)
        if not limit_bytes:
            return
        holdings = {
            (served.name, served.version): Holding(served.size_bytes, served.used_at, self._pinned(served, newcomer))
            for served in self.live()
        }
        # What is ready and not live yet has its memory already. It is none of those that may leave.
        holdings |= {
            (served.name, f"{served.version}, to come"): Holding(served.size_bytes, served.used_at, pinned=True)
            for served in self._coming
        }
        leaving = [self._evict(key) for key in make_room(limit_bytes, newcomer, need_bytes, holdings)]
        if leaving:
            await asyncio.wait(leaving, timeout=self.settings.load_timeout_s)

    def _pinned(self, served: ServedVersion, newcomer: tuple[str, str]) -> bool:
        """Whether a version must stay: half of a release, brought by a caller, or about to be succeeded by the newcomer."""
        route = self._routes.get(served.name)
        routed = route is not None and served.version in (route.champion, route.challenger)
        released = routed and route is not None and route.challenger is not None
        return released or served.brought or (routed and served.name == newcomer[0])

    def _evict(self, key: tuple[str, str]) -> asyncio.Task[None]:
        name, version = key
        served = self._live[name].pop(version)
        if not self._live[name]:
            del self._live[name]
        self._telemetry.versions.pop(key, None)
        assert served.opened is not None
        self._cold[key] = Cold(served.opened, served.description)
        self._absent[key] = IndexEntry(name, version, State.UNAVAILABLE, EVICTED)
        return self._retire(served)

    async def _wake(self, name: str, version: str) -> None:
        async with self.changing(name):
            if version in self._live.get(name, ()):
                return
            cold = self._cold.get((name, version))
            if cold is None:
                raise self._missing(name, version)
            cold.check()
            try:
                await self.load(name, version, cold.opened)
            except FairwayError as error:
                cold.failed(error)
                raise

    def _woken(self, name: str, version: str, done: asyncio.Task[None]) -> None:
        self._waking.pop((name, version), None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; if nobody is left, it is in the log and in the index

    def _cold_of(self, name: str) -> list[str]:
        return [version for model, version in self._cold if model == name]

    def _missing(self, name: str, version: str | None) -> FairwayError:
        if version is not None and (name, version) in self._cold:
            return ColdModel(name, version, self._cold[name, version].description)
        entries = [entry for (model, _), entry in self._absent.items() if model == name]
        for entry in entries:
            if version in (None, entry.version):
                return ModelNotReady(_not_ready(entry))
        ref = name if version is None else f"{name}:{version}"
        known = [f"{served.name}:{served.version}" for served in self.live()]
        return ModelNotFound(ref, known)


def _not_ready(entry: IndexEntry) -> str:
    if entry.state is State.LOADING:
        return f"version {entry.version} of {entry.name!r} is loading; try again soon"
    if entry.reason == UNLOADED:
        return f"version {entry.version} of {entry.name!r} was unloaded; whoever runs this server can load it again"
    return f"version {entry.version} of {entry.name!r} could not be loaded: {entry.reason}"


def _by_number(version: str) -> tuple[int, str]:
    """``10`` is newer than ``2``."""
    return (int(version) if version.isdecimal() else -1, version)
