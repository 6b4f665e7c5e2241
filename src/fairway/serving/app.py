"""Serve: in a thread of this process, or in the foreground until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import uvloop
from prometheus_client import CollectorRegistry

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import InvalidConfig
from fairway.core.events import EventSink
from fairway.serving.follow import FollowedRegistry
from fairway.serving.footprint import settle
from fairway.serving.inference import InferenceCore
from fairway.serving.service import Service
from fairway.serving.settings import ServeSettings

log = logging.getLogger(__name__)

Served: TypeAlias = Bundle | Path | str


class RunningServer:
    """A server in a thread of this process, ready on entry. A context manager; :meth:`stop` it otherwise.

    Attributes
    ----------
    url : str
    port : int
    core : InferenceCore
        For its event loop's thread only.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = uvloop.new_event_loop()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="fairway-server", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise

    @property
    def url(self) -> str:
        """Where to connect, such as ``http://127.0.0.1:8080``."""
        return self._service.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._service.port

    @property
    def grpc_port(self) -> int | None:
        """The port that gRPC listens on, ``None`` if it is off."""
        return self._service.grpc_port

    @property
    def core(self) -> InferenceCore:
        """The inference core."""
        return self._service.core

    @property
    def ready(self) -> bool:
        """Whether it may be sent requests."""
        return self._service.ready

    def stop(self, *, delay_s: float = 0.0) -> None:
        """Drain and stop; returns when stopped. ``delay_s``: how long to serve on, not ready, before."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it may end by itself just now
                self._loop.call_soon_threadsafe(self._service.stop, delay_s)
            self._thread.join()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._service.main(lambda: self._started.set_result(None)))
        except BaseException as error:
            if self._started.done():
                log.exception("server_failed")
            else:
                self._started.set_exception(error)


def serve(
    bundle_or_models: Served | Sequence[Served] = (),
    *,
    registry: FollowedRegistry | None = None,
    settings: ServeSettings | None = None,
    sink: EventSink | None = None,
    cache_dir: Path | None = None,
    metrics: CollectorRegistry | None = None,
) -> RunningServer:
    """Serve in the background of this process; ready when this returns.

    Parameters
    ----------
    bundle_or_models : Bundle, path, or a sequence of them
        With a ``registry``: model references to follow (``digits``, ``digits@staging``, ``digits:4``); none means every
        model that has a champion.
    registry : Registry, optional
    settings : ServeSettings, optional
        Port 0 lets the kernel pick one; see ``.url``.
    sink : EventSink, optional
        Is told every batch.
    cache_dir : Path, optional
        Where fetched bundles are kept; ``.fairway/cache`` by default. If it is given, engines keep there, in ``engines``, what
        they made of graphs; see ``engine_cache_mb``.
    metrics : CollectorRegistry, optional
        What ``/metrics`` shows; the server adds its own to it.

    Raises
    ------
    InvalidConfig
        If the port is taken.
    InvalidBundle
        If a bundle is damaged or cannot be loaded.
    ModelNotFound
        If the registry has no such model, or no version to serve.
    """
    return RunningServer(make_service(bundle_or_models, registry, settings, sink, cache_dir, metrics))


def run(
    bundle_or_models: Served | Sequence[Served] = (),
    *,
    registry: FollowedRegistry | None = None,
    settings: ServeSettings | None = None,
    sink: EventSink | None = None,
    cache_dir: Path | None = None,
    metrics: CollectorRegistry | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve in the foreground until SIGTERM or SIGINT. See :func:`serve`; ``started`` is called with the URL once ready.

    SIGTERM drains as ``stop_delay_s`` and ``grace_s`` say; SIGINT drains without delay; a second signal stops waiting.
    """
    service = make_service(bundle_or_models, registry, settings, sink, cache_dir, metrics)
    delay_s = (settings or ServeSettings()).stop_delay_s
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        loop.add_signal_handler(signal.SIGTERM, service.stop, delay_s)
        loop.add_signal_handler(signal.SIGINT, service.stop, 0.0)

        def ready() -> None:
            settle()
            if started is not None:
                started(service.url)

        runner.run(service.main(ready))
    if service.ends_at is not None:
        _end_by(service.ends_at)


def make_service(
    bundle_or_models: Served | Sequence[Served],
    registry: FollowedRegistry | None = None,
    settings: ServeSettings | None = None,
    sink: EventSink | None = None,
    cache_dir: Path | None = None,
    metrics: CollectorRegistry | None = None,
    sockets: Mapping[str, socket.socket] | None = None,
) -> Service:
    """What :func:`serve` and :func:`run` run. ``sockets``: see :class:`Service`."""
    what = bundle_or_models
    given = [what] if isinstance(what, (Bundle, Path, str)) else list(what)
    refs = [item for item in given if registry is not None and isinstance(item, str)]
    bundles = [
        item if isinstance(item, Bundle) else read_bundle(item, verify=False) for item in given if item not in refs
    ]
    if registry is None and not bundles:
        raise InvalidConfig("there is nothing to serve; name a bundle, or give a registry to follow")
    return Service(
        bundles,
        refs,
        registry=registry,
        settings=settings or ServeSettings(),
        sink=sink,
        cache_dir=cache_dir or Path(".fairway/cache"),
        metrics=metrics or CollectorRegistry(),
        sockets=sockets,
        engine_cache=cache_dir / "engines" if cache_dir is not None else None,
    )


def _end_by(at: float) -> None:
    """End this process, whatever its threads do then: an engine cannot be interrupted, and Python waits for it."""

    def end() -> None:
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(max(0.0, at - time.monotonic()), end)
    timer.daemon = True
    timer.start()
