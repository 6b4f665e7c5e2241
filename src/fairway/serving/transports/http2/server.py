"""A gRPC server on HTTP/2 with prior knowledge: what all its connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fairway.serving.settings import ServeSettings
from fairway.serving.transports.grpc.base import Method
from fairway.serving.transports.http2.connection import Connection
from fairway.serving.transports.http2.limits import Held, Limits
from fairway.serving.transports.http2.link import Link
from fairway.serving.transports.http2.request import head_reader

_HEADER_BYTES = 16384


class Http2:
    """A protocol factory, and the handle on its connections. Make one with :func:`make_http2`, on the event loop.

    Attributes
    ----------
    connections : set of Link
    held : Held
        Bytes of requests that are held, over all connections.
    """

    def __init__(
        self,
        methods: Mapping[bytes, Method],
        settings: ServeSettings,
        stopping: Callable[[], bool],
        limits: Limits,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.limits = limits
        self.header_bytes = min(settings.max_header_bytes, _HEADER_BYTES)
        self.read_head = head_reader(methods, self.header_bytes)
        self.held = Held(limits.held_bytes or 4 * settings.max_body_bytes)
        self.connections: set[Link] = set()
        self._stopping = stopping

    def __call__(self) -> Connection:
        """A new connection's protocol."""
        return Connection(self)

    def check(self, now: float) -> None:
        """End connections whose clients take too long; call it every second or so with the loop's time."""
        stopping = self._stopping()
        for connection in tuple(self.connections):
            if stopping:
                connection.drain()
            connection.check(now)

    async def drain(self, timeout_s: float) -> bool:
        """Ask all clients to go elsewhere, answer what is open, and close; ``False`` if ``timeout_s`` was too short.

        The listening socket is the caller's to close first.
        """
        end = self.loop.time() + timeout_s
        while self.connections and (now := self.loop.time()) < end:
            for connection in tuple(self.connections):
                connection.drain()
                connection.check(now)
            await asyncio.sleep(min(0.02, max(0.0, end - now)))
        return not self.connections

    def close(self) -> None:
        """End all connections now; open calls are cancelled."""
        for connection in tuple(self.connections):
            connection.end(0, "the server stops")
            connection.abort()


def make_http2(
    methods: Mapping[bytes, Method],
    settings: ServeSettings,
    stopping: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
) -> Http2:
    """A gRPC server's protocol factory.

    Parameters
    ----------
    methods : mapping of bytes to Unary or Streaming
        What answers each path, such as ``b"/inference.GRPCInferenceService/ModelInfer"``.
    settings : ServeSettings
        ``max_body_bytes`` bounds one message, before and after decompression; ``max_header_bytes``, ``keep_alive_s`` and
        ``read_timeout_s`` are those of REST.
    stopping : callable
        Whether clients are to be sent elsewhere.
    limits : Limits or None
        Those that only HTTP/2 has.

    Returns
    -------
    Http2
        Give it to ``loop.create_server``; call its ``check`` every second or so, and its ``drain`` and ``close`` at the end.
    """
    return Http2(methods, settings, stopping, limits or Limits())
