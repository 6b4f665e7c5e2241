"""A server's gRPC side: its sockets, its handlers, and its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from fairway.serving.inference import InferenceCore
from fairway.serving.listening import BACKLOG
from fairway.serving.management import Management
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory

if TYPE_CHECKING:
    from fairway.serving.transports.grpc.service import GrpcService
    from fairway.serving.transports.http2.server import Http2


class GrpcSide:
    """The same core over gRPC. Nothing of it is imported where it is off.

    Parameters
    ----------
    listener : socket
        Bound; it listens once :meth:`start` is called.
    core : InferenceCore
    management : Management
    settings : ServeSettings
    shared_memory : SharedMemory or None
    stopping : callable
        Whether clients are to be sent elsewhere.

    Attributes
    ----------
    port : int
    """

    def __init__(
        self,
        listener: socket.socket,
        core: InferenceCore,
        management: Management,
        settings: ServeSettings,
        shared_memory: SharedMemory | None,
        stopping: Callable[[], bool],
    ) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._core = core
        self._management = management
        self._settings = settings
        self._shared_memory = shared_memory
        self._stopping = stopping
        self._service: GrpcService | None = None
        self._http2: Http2 | None = None
        self._accepting: list[asyncio.Server] = []

    async def start(self) -> None:
        """Accept connections."""
        from fairway.serving.transports.grpc.accesslog import logged
        from fairway.serving.transports.grpc.service import GrpcService
        from fairway.serving.transports.http2.server import make_http2

        self._service = GrpcService(self._core, self._management, self._shared_memory)
        methods = logged(self._service.methods) if self._settings.access_log else self._service.methods
        self._http2 = make_http2(methods, self._settings, self._stopping)
        await self.accept(self._listener)

    async def accept(self, listener: socket.socket) -> Callable[[], None]:
        """Take connections from one more socket, until what this gives is called."""
        assert self._http2 is not None
        accepting = await asyncio.get_running_loop().create_server(self._http2, sock=listener, backlog=BACKLOG)
        self._accepting.append(accepting)
        return accepting.close

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._http2 is None else len(self._http2.connections)

    def check(self, now: float) -> None:
        """End connections whose clients take too long; call it every second or so with the loop's time."""
        if self._http2 is not None:
            self._http2.check(now)

    def deaf(self) -> None:
        """Accept no more connections."""
        self._listener.close()
        for accepting in self._accepting:
            accepting.close()

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing more, answer what is in flight within ``timeout_s``, and close."""
        self.deaf()
        if self._service is not None and self._http2 is not None:
            self._service.finish()
            await self._http2.drain(timeout_s)
            self._http2.close()
