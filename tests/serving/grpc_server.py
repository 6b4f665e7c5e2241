"""A running server's gRPC side, on either carrier."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fairway.serving.app import RunningServer
from fairway.serving.management import Management
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.grpc.service import GrpcService
from tests.serving import grpc_host

CARRIERS = ("http2", "grpc.aio")


class GrpcServer(NamedTuple):
    """Where to connect, and what answers."""

    address: str
    running: RunningServer


@contextmanager
def carried(running: RunningServer, settings: ServeSettings, carrier: str) -> Iterator[GrpcServer]:
    """The gRPC methods of ``running``, with management and shared memory on, carried by one of :data:`CARRIERS`."""
    loop = running._loop

    def on_loop(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    memory = SharedMemory(settings.max_body_bytes) if settings.shared_memory else None
    management = Management(running.core.models, running.core.telemetry, settings, memory)
    methods = GrpcService(running.core, management, memory).methods
    if carrier == "grpc.aio":
        server, port = on_loop(grpc_host.start(methods))
        yield GrpcServer(f"127.0.0.1:{port}", running)
        on_loop(server.stop(0))
    else:
        from fairway.serving.transports.http2.server import make_http2

        async def start() -> Any:
            made = make_http2(methods, settings)
            return made, await loop.create_server(made, "127.0.0.1", 0)

        async def stop() -> None:
            accepting.close()
            await http2.drain(0.2)
            http2.close()

        http2, accepting = on_loop(start())
        yield GrpcServer(f"127.0.0.1:{accepting.sockets[0].getsockname()[1]}", running)
        on_loop(stop())
    management.close()
