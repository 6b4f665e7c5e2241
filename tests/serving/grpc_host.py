"""The gRPC handlers carried by grpcio's asyncio server: slow, but the reference for what a carrier owes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from grpc import aio

from fairway.serving.transports.grpc.base import Failure, Metadata, Method, Unary

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class HostedCall:
    """A call of :mod:`fairway.serving.transports.grpc.base`, over grpcio's context."""

    def __init__(self, context: Any) -> None:
        pairs = [(key.encode(), _octets(value)) for key, value in context.invocation_metadata()]
        self.metadata: Mapping[bytes, bytes] = dict(pairs)
        left = context.time_remaining()
        self.deadline_s: float | None = None if left is None or left > 1e9 else left
        self.peer: str = context.peer()
        self.on_cancel: Callable[[], None] | None = None
        self.outcome: asyncio.Future[bytes | Failure] = asyncio.get_running_loop().create_future()
        self._context = context

    def reply(self, message: bytes) -> None:
        self._settle(message)

    def fail(self, status: int, text: str, metadata: Metadata = ()) -> None:
        self._settle(Failure(status, text, metadata))

    async def send(self, message: bytes) -> None:
        await self._context.write(message)

    def _settle(self, outcome: bytes | Failure) -> None:
        if not self.outcome.done():  # its caller may have left
            self.outcome.set_result(outcome)


async def start(methods: Mapping[bytes, Method]) -> tuple[aio.Server, int]:
    """A started server on a port that the kernel picked."""
    server = aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((_Handlers(methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, methods: Mapping[bytes, Method]) -> None:
        self._methods = methods

    def service(self, details: Any) -> Any:
        method = self._methods.get(details.method.encode())
        if method is None:
            return None
        if isinstance(method, Unary):
            return grpc.unary_unary_rpc_method_handler(_unary(method))
        return grpc.stream_stream_rpc_method_handler(_streaming(method.handler))


def _unary(method: Unary) -> Any:
    async def handle(message: bytes, context: Any) -> bytes:
        call = HostedCall(context)
        method.call(message, call)
        try:
            outcome = await call.outcome
        except asyncio.CancelledError:
            if call.on_cancel is not None:
                call.on_cancel()
            raise
        if isinstance(outcome, Failure):
            await _abort(context, outcome)
            raise AssertionError
        return outcome

    return handle


def _streaming(handler: Any) -> Any:
    from fairway.core.errors import FairwayError
    from fairway.serving.transports.grpc.base import failure

    async def handle(messages: AsyncIterator[bytes], context: Any) -> None:
        try:
            await handler(messages, HostedCall(context))
        except FairwayError as error:
            await _abort(context, failure(error))

    return handle


async def _abort(context: Any, how: Failure) -> None:
    trailing = tuple((key.decode(), value.decode()) for key, value in how.metadata)
    await context.abort(_CODES[how.status], how.text, trailing)


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
