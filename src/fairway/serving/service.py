"""Everything that one process of a server runs on its event loop: start, become ready, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from prometheus_client import CollectorRegistry

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError
from fairway.core.events import EventSink
from fairway.serving.follow import FollowedRegistry, Follower
from fairway.serving.grpc_side import GrpcSide
from fairway.serving.inference import InferenceCore
from fairway.serving.listening import BACKLOG, bind, reachable
from fairway.serving.management import Management
from fairway.serving.models import Models
from fairway.serving.repository import GivenBundles
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.telemetry import Telemetry
from fairway.serving.tracer import Tracer
from fairway.serving.transports.rest import make_app

if TYPE_CHECKING:
    from fairway.serving.spans import SpanExport

log = logging.getLogger(__name__)

_AFTERWARDS_S = 2.0
"""For what is still to be told, such as windows of traffic, once a call was given up."""


class Service:
    """Everything that runs on one event loop. :func:`fairway.serving.app.make_service` makes one.

    Parameters
    ----------
    bundles : sequence of Bundle
        Served as they are; those of one model are its versions 1, 2 …, of which the last answers by default.
    refs : sequence of str
        Model references to follow in ``registry``.
    registry : FollowedRegistry or None
    settings : ServeSettings
    sink : EventSink or None
    cache_dir : Path
        Where bundles fetched from the registry are kept.
    engine_cache : Path or None
        Where engines keep what they made of graphs.
    metrics : CollectorRegistry
        What ``/metrics`` shows.
    sockets : mapping, optional
        By what is spoken (``rest``): sockets to listen on, made by the process that watches this one; else it makes its own.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        refs: Sequence[str],
        *,
        registry: FollowedRegistry | None,
        settings: ServeSettings,
        sink: EventSink | None,
        cache_dir: Path,
        metrics: CollectorRegistry,
        sockets: Mapping[str, socket.socket] | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        self._bundles = bundles
        self._settings = settings
        self.registry = metrics
        self.telemetry = Telemetry()
        self.telemetry.register(self.registry)
        self.telemetry.ready = lambda: self.ready
        self.models = Models(settings, self.telemetry, sink, engine_cache)
        self.core = InferenceCore(self.models, self.telemetry)
        self.memory = SharedMemory(settings.max_body_bytes) if settings.shared_memory else None
        self.management = Management(self.models, self.telemetry, settings, self.memory)
        self._spans = make_tracing(self.core, self.management, settings) if settings.tracing else None
        self._socket = bind(settings.host, settings.port) if sockets is None else sockets["rest"]
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{reachable(settings.host)}:{self.port}"
        self._grpc: GrpcSide | None = None
        try:
            if settings.grpc_port is not None:
                listener = bind(settings.host, settings.grpc_port) if sockets is None else sockets["grpc"]
                self._grpc = GrpcSide(
                    listener, self.core, self.management, settings, self.memory, stopping=lambda: self.stopping
                )
            self._follower = (
                Follower(registry, self.models, refs, settings=settings, url=self.url, cache_dir=cache_dir)
                if registry
                else None
            )
        except BaseException:  # a port taken, or a wrong reference
            self._socket.close()
            if self._grpc is not None:
                self._grpc.deaf()
            raise
        self.ready = False
        self.stopping = False
        self.worker = sockets is not None
        self.drained: Callable[[], None] | None = None
        """Called when the last request is answered, before versions and their counts are freed."""
        self._server: _Uvicorn | None = None
        self._stop: asyncio.Future[float] | None = None
        self._hurry = asyncio.Event()
        self._drained_by: float | None = None
        self.ends_at: float | None = None
        """When this process is to end at the latest, on the monotonic clock, if a thread may still load or compute."""

    async def main(
        self,
        started: Callable[[], None],
        *,
        gate: Callable[[], Awaitable[bool]] | None = None,
        early: bool = True,
    ) -> None:
        """Run until :meth:`stop`; ``started`` is called once ready. Raises what keeps it from becoming ready.

        ``gate``, if given, is awaited when everything is loaded, and says whether to become ready. ``early``: accept
        connections before that, as liveness is a TCP probe to some platforms.
        """
        self._stop = asyncio.get_running_loop().create_future()
        if self._spans is not None:
            self._spans.start()
        self._server = server = _Uvicorn(self._config())
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        if early:
            await self._listen(server)
        ticking = asyncio.create_task(_tick(server, self._grpc, min(1.0, self._settings.read_timeout_s / 4)))
        following: asyncio.Task[None] | None = None
        try:
            server.config.timeout_graceful_shutdown = self._settings.grace_s  # type: ignore[assignment]
            if not await self._came_up(asyncio.create_task(self._bring_up())):
                return
            if self._follower is not None:
                following = asyncio.create_task(self._follower.run())
            if gate is not None and not await gate():
                return
            if not early:
                await self._listen(server)
            self.ready = True
            what = "worker_ready" if self.worker else "server_ready"
            log.info(what, extra={"url": self.url, "grpc_port": self.grpc_port, "models": self.models.names()})
            started()
            delay_s = await self._stop
            await self._drain(server, delay_s)
        finally:
            self.ready = False
            for task in (ticking, following):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            if server.started and server.servers[0].is_serving():
                await server.shutdown(sockets=[self._socket])
            if self._grpc is not None:
                await self._grpc.drain(0)
            await self._close()
            log.info("worker_stopped" if self.worker else "server_stopped", extra={"url": self.url})

    def stop(self, delay_s: float = 0.0) -> None:
        """Stop: not ready at once, but serving for ``delay_s`` more seconds. Called again, it stops waiting.

        On the event loop's thread.
        """
        if self._stop is None or self._stop.done():
            self._hurry.set()
            return
        self._stop.set_result(delay_s)

    async def accept(self, listeners: Mapping[str, socket.socket]) -> Callable[[], None]:
        """Take connections from more sockets, by what is spoken on each, until what this gives is called."""
        server = self._server
        assert server is not None
        make = partial(self._protocol_class, config=server.config, server_state=server.server_state, app_state={})
        accepting = await asyncio.get_running_loop().create_server(make, sock=listeners["rest"], backlog=BACKLOG)
        server.servers.append(accepting)
        if self._grpc is None:
            return accepting.close
        also = await self._grpc.accept(listeners["grpc"])

        def close() -> None:
            accepting.close()
            also()

        return close

    async def retire(self, delay_s: float) -> None:
        """Stop, another process having taken over the socket: whoever is connected has ``delay_s`` to come to an end."""
        server = self._server
        assert server is not None
        self.stopping = True  # every answer asks its client to connect anew, which now reaches the other
        if server.started:
            for accepting in server.servers:
                accepting.close()
        if self._grpc is not None:
            self._grpc.deaf()
        ends = time.monotonic() + delay_s
        while self._connections and time.monotonic() < ends and not self._hurry.is_set():
            await asyncio.sleep(0.02)
        self.stop(0.0)

    @property
    def grpc_port(self) -> int | None:
        """The port that gRPC listens on, ``None`` if it is off."""
        return None if self._grpc is None else self._grpc.port

    @property
    def _connections(self) -> int:
        """How many are open."""
        assert self._server is not None
        return len(self._server.server_state.connections) + (self._grpc.connections if self._grpc is not None else 0)

    async def _close(self) -> None:
        if self._follower is not None:
            await self._follower.close()
        if self.drained is not None:
            self.drained()
        now = time.monotonic()
        by = now + self._settings.grace_s if self._drained_by is None else self._drained_by
        if not await self.models.close(max(0.0, by - now)):
            self.ends_at = time.monotonic() + _AFTERWARDS_S
        self.management.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    async def _listen(self, server: uvicorn.Server) -> None:
        """Accept connections."""
        await server.startup(sockets=[self._socket])
        if self._grpc is not None:
            await self._grpc.start()

    async def _came_up(self, coming: asyncio.Task[None]) -> bool:
        """Whether ``coming`` came to its end before this server was told to stop."""
        assert self._stop is not None
        try:
            await asyncio.wait((coming, self._stop), return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                coming.result()
                return True
        finally:
            coming.cancel()
        self.stopping = True
        self.ends_at = time.monotonic() + self._settings.grace_s
        log.info("server_stopping", extra={"reason": "it was told to before it was ready"})
        with contextlib.suppress(asyncio.CancelledError, FairwayError):
            await coming
        return False

    async def _bring_up(self) -> None:
        """What this server was started with, and what its registry wants."""
        given = GivenBundles(self._bundles, shared=self._settings.workers != 1)
        self.models.repository = self._follower or given
        for name in given.names():
            offer = await given.offer(name)
            assert offer is not None
            for version, opened in offer.versions.items():
                await self.models.load(name, version, opened)
            self.models.point(name, offer.route)
        if self._follower is not None:
            await self._follower.first()

    async def _drain(self, server: uvicorn.Server, delay_s: float) -> None:
        """Not ready; serve on while balancers take notice; take nothing new; answer what is in flight."""
        began = time.monotonic()
        self.ready = False
        self.stopping = True  # from now on every answer asks its client to connect anew, elsewhere
        log.info("server_stopping", extra={"delay_s": delay_s})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), delay_s)
        self._drained_by = began + self._settings.grace_s
        left = max(0.1, self._drained_by - time.monotonic())
        server.config.timeout_graceful_shutdown = left  # type: ignore[assignment]
        async with asyncio.TaskGroup() as ending:
            ending.create_task(server.shutdown(sockets=[self._socket]))
            if self._grpc is not None:
                ending.create_task(self._grpc.drain(left))

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            make_app(self.core, self._settings, self.registry, self.management, self.memory),
            http=self._protocol_class,
            backlog=BACKLOG,
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(self._settings.keep_alive_s),
        )

    @cached_property
    def _protocol_class(self) -> Any:
        from fairway.serving.transports.fastlane import make_protocol

        return make_protocol(self.core, self._settings, stopping=lambda: self.stopping, memory=self.memory)


def make_tracing(core: InferenceCore, management: Management, settings: ServeSettings) -> SpanExport | None:
    """Let ``core`` trace, as the settings and the protocol's trace settings say; ``None`` if the environment forbids it.

    Raises
    ------
    InvalidConfig
        If it cannot be told where spans go.
    MissingExtra
        If OpenTelemetry is not installed.
    """
    from fairway.serving.spans import SpanExport, otlp_exporter

    exporter = otlp_exporter(settings.tracing)
    if exporter is None:
        return None
    spans = SpanExport(exporter)
    core.tracer = tracer = Tracer(management.traces, spans.put, limit=settings.trace_limit)
    core.telemetry.traces = lambda: (spans.exported, spans.dropped, tracer.over)
    return spans


class _Uvicorn(uvicorn.Server):
    """Uvicorn's server without its signal handlers: stopping is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _tick(server: uvicorn.Server, grpc: GrpcSide | None, every_s: float) -> None:
    """The Date header, and clients that hold things up."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            await server.on_tick(0)
            for connection in list(server.server_state.connections):
                connection.check(loop.time())  # type: ignore[union-attr]
            if grpc is not None:
                grpc.check(loop.time())
        except Exception:  # one connection's trouble must not end the watch over all others
            log.exception("check_failed")
        await asyncio.sleep(every_s)
