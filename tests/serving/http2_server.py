"""A small gRPC service on the HTTP/2 server, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from fairway.core.errors import Overloaded
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.grpc.base import INVALID_ARGUMENT, Call, Method, Streaming, Unary
from fairway.serving.transports.http2.limits import Limits
from fairway.serving.transports.http2.server import Http2, make_http2


class Service:
    """Handlers that echo, fail, wait and count."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        self.cancelled = 0
        self.ended_streams = 0
        self.streams_open = 0
        self.seen: list[bytes] = []

    def methods(self) -> dict[bytes, Method]:
        return {
            b"/test/Echo": Unary(self._echo),
            b"/test/Fail": Unary(self._fail),
            b"/test/Raise": Unary(self._raise),
            b"/test/Wait": Unary(self._wait),
            b"/test/Size": Unary(self._size),
            b"/test/Metadata": Unary(self._metadata),
            b"/test/Chat": Streaming(self._chat),
            b"/test/Count": Streaming(self._count),
            b"/test/Sum": Streaming(self._sum),
            b"/test/Refuse": Streaming(self._refuse),
            b"/test/Break": Streaming(self._break),
            b"/test/Deaf": Streaming(self._deaf),
        }

    def _echo(self, message: bytes, call: Call) -> None:
        self.seen.append(message)
        call.reply(message)

    def _fail(self, message: bytes, call: Call) -> None:
        call.fail(INVALID_ARGUMENT, message.decode(), ((b"retry-after", b"1"),))

    def _raise(self, message: bytes, call: Call) -> None:
        raise ValueError("on purpose")

    def _wait(self, message: bytes, call: Call) -> None:
        def cancelled() -> None:
            self.cancelled += 1

        call.on_cancel = cancelled
        self.waiting.append(call)

    def _size(self, message: bytes, call: Call) -> None:
        call.reply(bytes(int(message)))

    def _metadata(self, message: bytes, call: Call) -> None:
        call.reply(repr((dict(call.metadata), call.deadline_s, call.peer)).encode())

    async def _chat(self, messages: AsyncIterator[bytes], call: Call) -> None:
        self.streams_open += 1
        try:
            async for message in messages:
                await call.send(message)
        finally:
            self.streams_open -= 1
            self.ended_streams += 1

    async def _count(self, messages: AsyncIterator[bytes], call: Call) -> None:
        count, size = [int(part) async for message in messages for part in message.split()]
        for number in range(count):
            await call.send(number.to_bytes(4, "big") + bytes(size))

    async def _sum(self, messages: AsyncIterator[bytes], call: Call) -> None:
        await call.send(b"%d" % sum([len(message) async for message in messages]))

    async def _refuse(self, messages: AsyncIterator[bytes], call: Call) -> None:
        async for _ in messages:
            await call.send(b"one")
            raise Overloaded("no more, for 50 %")

    async def _break(self, messages: AsyncIterator[bytes], call: Call) -> None:
        raise ValueError("on purpose")

    async def _deaf(self, messages: AsyncIterator[bytes], call: Call) -> None:
        self.streams_open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.streams_open -= 1
            self.ended_streams += 1


class Running:
    """The service, its port, and its loop."""

    def __init__(self, service: Service, http2: Http2, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.service = service
        self.http2 = http2
        self.loop = loop
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.stopping = False

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on the server's loop."""

        async def run() -> Any:
            result = function()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition``, asked on the server's loop, holds."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), 20), self.loop).result(30)


@contextmanager
def running(settings: ServeSettings | None = None, limits: Limits | None = None) -> Iterator[Running]:
    """A server; it is drained by nobody, and closed at the end."""
    started: threading.Event = threading.Event()
    made: list[Running] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        service = Service()
        http2 = make_http2(service.methods(), settings or ServeSettings(), lambda: made[0].stopping, limits)
        server = await loop.create_server(http2, "127.0.0.1", 0)
        made.append(Running(service, http2, loop, server.sockets[0].getsockname()[1]))
        stop = asyncio.Event()
        made[0].stop = lambda: loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
        started.set()
        await stop.wait()
        server.close()
        http2.close()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: uvloop.run(main()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield made[0]
    finally:
        made[0].stop()  # type: ignore[attr-defined]
        thread.join(20)
        assert not thread.is_alive()
