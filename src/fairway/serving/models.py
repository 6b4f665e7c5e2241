"""The versions that a server has loaded: verify, load, warm up, go live in one step, drain, close."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from enum import StrEnum

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError, InvalidBundle, ModelNotFound, ModelNotReady
from fairway.core.events import EventSink
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.serving.batching import BatchingSettings, Scheduler
from fairway.serving.cost import CostCurve
from fairway.serving.routing import Route, choose
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry, VersionStats
from fairway.serving.validation import Signature
from fairway.serving.warmup import Warmed, warm_up

log = logging.getLogger(__name__)


class State(StrEnum):
    """Of a version, in the repository index's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class IndexEntry(msgspec.Struct, frozen=True):
    """One line of the repository index."""

    name: str
    version: str
    state: State
    reason: str = ""


class ServedVersion:
    """One loaded version that can answer.

    Attributes
    ----------
    name, version : str
    model : Model
    scheduler : Scheduler
    signature, raw_signature : Signature
        Of processed and of raw requests.
    stats : VersionStats
    """

    def __init__(
        self,
        name: str,
        version: str,
        model: Model,
        warmed: Warmed,
        *,
        settings: ServeSettings,
        sink: EventSink | None,
    ) -> None:
        processing = model.manifest.processing
        self.name = name
        self.version = version
        self.model = model
        self.processed = bool(processing.pre or processing.post)
        self.signature = Signature(model.inputs, batching=warmed.batching)
        self.raw_signature = Signature(model.raw_inputs, batching=warmed.batching) if self.processed else self.signature
        self.stats = VersionStats(name, version, sink, raw_differs=self.processed)
        slots = settings.concurrent_batches
        self._executor: Executor = ThreadPoolExecutor(slots, thread_name_prefix=f"{name}:{version}")
        self.scheduler = Scheduler(
            self._infer,
            BatchingSettings(
                max_batch=model.manifest.engine.max_batch,
                batching=warmed.batching,
                slots=slots,
                max_requests=settings.max_queue_requests,
                max_rows=settings.max_queue_rows,
                inline_us=settings.inline_us,
            ),
            loop=asyncio.get_running_loop(),
            executor=self._executor,
            listener=self.stats,
            curves=_by_kind(warmed),
        )
        self.stats.queue = lambda: (self.scheduler.queued_requests, self.scheduler.queued_rows)

    async def retire(self) -> None:
        """Answer what is queued, then free the model."""
        await self.scheduler.drain()
        self._executor.shutdown(wait=True)
        self.model.close()

    def _infer(self, feed: Tensors, raw: bool) -> Tensors:
        return self.model.infer(feed, raw=raw)


class Models:
    """All versions of all models that this process serves. For the event loop's thread only.

    Parameters
    ----------
    settings : ServeSettings
    telemetry : Telemetry
    sink : EventSink or None
    """

    def __init__(self, settings: ServeSettings, telemetry: Telemetry, sink: EventSink | None = None) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._sink = sink
        self._live: dict[str, dict[str, ServedVersion]] = {}
        self._routes: dict[str, Route] = {}
        self._absent: dict[tuple[str, str], IndexEntry] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="fairway-load")

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
            If it is still loading, or could not be loaded.
        """
        live = self._live.get(name)
        if not live:
            raise self._missing(name, version)
        if version is None:
            route = self._routes[name]
            if route.challenger is None:
                return live[route.champion]
            return live[choose(route, name, key if key is not None else f"{random.getrandbits(64):x}")]
        found = live.get(version)
        if found is None:
            raise self._missing(name, version)
        return found

    def versions(self, name: str) -> list[str]:
        """The versions of a model that can answer, oldest first."""
        return sorted(self._live.get(name, ()), key=_by_number)

    def names(self) -> list[str]:
        """The models that can answer."""
        return sorted(name for name, live in self._live.items() if live)

    def route(self, name: str) -> Route | None:
        """Where a model's callers go, ``None`` if it is not served."""
        return self._routes.get(name)

    def live(self) -> list[ServedVersion]:
        """Every version that can answer."""
        return [served for versions in self._live.values() for served in versions.values()]

    def index(self) -> list[IndexEntry]:
        """Every version known here and its state."""
        ready = [IndexEntry(served.name, served.version, State.READY) for served in self.live()]
        return sorted([*ready, *self._absent.values()], key=lambda entry: (entry.name, _by_number(entry.version)))

    # -- changing

    async def load(self, name: str, version: str, opened: Callable[[], Bundle]) -> None:
        """Make a version able to answer those who ask for it by number; :meth:`point` sends it everybody else.

        ``opened`` gives the verified bundle; it, the loading and the warm-up run in a thread. What is live stays so,
        whatever happens here; a failure stays visible in the index.

        Raises
        ------
        FairwayError
            If the bundle cannot be had, read, loaded or warmed up.
        """
        if version in self._live.get(name, ()):
            return
        self._absent[name, version] = IndexEntry(name, version, State.LOADING)
        started = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            model, warmed = await loop.run_in_executor(self._loader, _prepare, opened)
        except BaseException as error:
            reason = str(error) or type(error).__name__
            self._absent[name, version] = IndexEntry(name, version, State.UNAVAILABLE, reason)
            log.error("model_load_failed", extra={"model": name, "version": version, "reason": reason})
            raise
        served = ServedVersion(name, version, model, warmed, settings=self._settings, sink=self._sink)
        served.stats.load_s = time.perf_counter() - started
        self._absent.pop((name, version), None)
        self._live.setdefault(name, {})[version] = served
        self._routes.setdefault(name, Route(version))
        self._telemetry.versions[name, version] = served.stats
        extra = {"model": name, "version": version, "duration_ms": round(served.stats.load_s * 1e3, 1)}
        log.info("model_loaded", extra=extra)

    def point(self, name: str, route: Route) -> None:
        """Send a model's callers along ``route``, whose versions are loaded. Takes effect at once and for all."""
        for version in (route.champion, route.challenger):
            if version is not None and version not in self._live.get(name, ()):
                raise ModelNotReady(f"version {version} of {name!r} is not loaded, so nobody can be sent there")
        if self._routes.get(name) != route:
            self._routes[name] = route
            extra = {"model": name, "champion": route.champion, "challenger": route.challenger, "weight": route.weight}
            log.info("model_routed", extra=extra)

    def keep(self, name: str, versions: set[str]) -> None:
        """Retire every other version of ``name``: it answers what it has accepted, and is then freed."""
        live = self._live.get(name, {})
        for version in [version for version in live if version not in versions]:
            served = live.pop(version)
            self._telemetry.versions.pop((name, version), None)
            task = asyncio.get_running_loop().create_task(self._retire(served))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        if not live:
            self._live.pop(name, None)
            self._routes.pop(name, None)
        for key in [key for key in self._absent if key[0] == name and key[1] not in versions]:
            del self._absent[key]

    def failed(self, name: str, version: str, reason: str) -> None:
        """Show in the index that a version could not be served."""
        self._absent[name, version] = IndexEntry(name, version, State.UNAVAILABLE, reason)

    async def close(self) -> None:
        """Retire everything, and wait for it."""
        for name in list(self._live):
            self.keep(name, set())
        await asyncio.gather(*self._retiring)
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _retire(self, served: ServedVersion) -> None:
        await served.retire()
        log.info("model_unloaded", extra={"model": served.name, "version": served.version})

    def _missing(self, name: str, version: str | None) -> FairwayError:
        entries = [entry for (model, _), entry in self._absent.items() if model == name]
        for entry in entries:
            if version in (None, entry.version):
                return ModelNotReady(_not_ready(entry))
        ref = name if version is None else f"{name}:{version}"
        known = [f"{served.name}:{served.version}" for served in self.live()]
        return ModelNotFound(ref, known)


def _prepare(opened: Callable[[], Bundle]) -> tuple[Model, Warmed]:
    bundle = opened()
    try:
        model = Model(bundle)
    except FairwayError:
        raise
    except Exception as error:
        raise InvalidBundle(f"{bundle.path} cannot be loaded: {error}") from error
    try:
        return model, warm_up(model, bundle)
    except BaseException:
        model.close()
        raise


def _not_ready(entry: IndexEntry) -> str:
    if entry.state is State.LOADING:
        return f"version {entry.version} of {entry.name!r} is loading; try again soon"
    return f"version {entry.version} of {entry.name!r} could not be loaded: {entry.reason}"


def _by_number(version: str) -> tuple[int, str]:
    """``10`` is newer than ``2``."""
    return (int(version) if version.isdecimal() else -1, version)


def _by_kind(warmed: Warmed) -> dict[Hashable, CostCurve]:
    """The scheduler's signatures also tell raw requests from others; warm-up was not raw."""
    return {None if key is None else (False, key): curve for key, curve in warmed.curves.items()}
