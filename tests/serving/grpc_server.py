"""A running server's gRPC side: its own, and the same handlers carried by grpcio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fairway.serving.app import RunningServer
from fairway.serving.transports.grpc.service import GrpcService
from tests.serving import grpc_host

CARRIERS = ("http2", "grpc.aio")


class GrpcServer(NamedTuple):
    """Where to connect, and what answers."""

    address: str
    running: RunningServer


@contextmanager
def carried(running: RunningServer, carrier: str = "http2") -> Iterator[GrpcServer]:
    """The gRPC methods of ``running``, which has a ``grpc_port``, carried by one of :data:`CARRIERS`."""
    if carrier == "http2":
        yield GrpcServer(f"127.0.0.1:{running.grpc_port}", running)
        return

    def on_loop(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, running._loop).result(30)

    service = running._service
    methods = GrpcService(service.core, service.management, service.memory).methods
    server, port = on_loop(grpc_host.start(methods))
    yield GrpcServer(f"127.0.0.1:{port}", running)
    on_loop(server.stop(0))
