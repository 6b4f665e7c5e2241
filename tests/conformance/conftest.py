"""A Fairway server with the suite's models, and everything switched on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from fairway.bundle.format import read_bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.grpc.service import GrpcService
from fairway.serving.transports.http2.server import make_http2
from fairway.testing.conformance import Target, write_models


class Served(NamedTuple):
    """Where it listens: a URL, and ``host:port``."""

    url: str
    grpc: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folders = write_models(tmp_path_factory.mktemp("conformance"), "bundle")
    settings = ServeSettings(port=0, access_log=False, model_control=True, shared_memory=True)
    with (
        serve([read_bundle(folder) for folder in folders], settings=settings) as running,
        _grpc(running, settings) as address,
    ):
        yield Served(running.url, address)


@pytest.fixture(scope="session")
def target(served: Served) -> Iterator[Target]:
    with Target(served.url, grpc=served.grpc) as made:
        yield made


@contextmanager
def _grpc(running: RunningServer, settings: ServeSettings) -> Iterator[str]:
    """The server's gRPC side: ``host:port``."""
    service, loop = running._service, running._loop

    def on_loop(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def start() -> Any:
        made = make_http2(GrpcService(running.core, service.management, service.memory).methods, settings)
        return made, await loop.create_server(made, "127.0.0.1", 0)

    async def stop() -> None:
        accepting.close()
        await http2.drain(0.2)
        http2.close()

    http2, accepting = on_loop(start())
    yield f"127.0.0.1:{accepting.sockets[0].getsockname()[1]}"
    on_loop(stop())
