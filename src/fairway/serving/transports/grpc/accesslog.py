"""The access log of gRPC: one line per call, when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

from fairway.core.errors import FairwayError
from fairway.serving.access_lines import access, log_request
from fairway.serving.tracer import caller_ids
from fairway.serving.transports.grpc import base
from fairway.serving.transports.traced import PARENT


def logged(methods: Mapping[bytes, base.Method]) -> dict[bytes, base.Method]:
    """The same methods, whose calls are logged."""
    return {path: _logged(path.decode(), method) for path, method in methods.items()}


def _logged(path: str, method: base.Method) -> base.Method:
    if isinstance(method, base.Unary):
        unary = method.call

        def call(message: bytes, call: base.Call) -> None:
            unary(message, LoggedCall(call, path) if access.isEnabledFor(logging.INFO) else call)

        return base.Unary(call)
    stream = method.handler

    async def handle(messages: AsyncIterator[bytes], call: base.Call) -> None:
        watched = LoggedCall(call, path)
        status = base.INTERNAL
        try:
            await stream(messages, watched)
            status = base.OK
        except FairwayError as error:
            status = base.failure(error).status
            raise
        except asyncio.CancelledError:
            status = base.CANCELLED
            raise
        finally:
            watched.log(status)

    return base.Streaming(handle)


class LoggedCall:
    """A call that is logged when it is answered. One whose caller leaves before is not."""

    __slots__ = ("_arrived", "_call", "_path", "_size", "deadline_s", "metadata", "peer", "trace")

    def __init__(self, call: base.Call, path: str) -> None:
        self._arrived = time.perf_counter()
        self._call = call
        self._path = path
        self._size = 0
        self.metadata: Mapping[bytes, bytes] = call.metadata
        self.deadline_s: float | None = call.deadline_s
        self.peer: str = call.peer
        self.trace: tuple[str, str] | None = None  # a stream's is its last request's

    @property
    def on_cancel(self) -> Callable[[], None] | None:
        """As :class:`base.Call` says."""
        return self._call.on_cancel

    @on_cancel.setter
    def on_cancel(self, done: Callable[[], None] | None) -> None:
        self._call.on_cancel = done

    def reply(self, message: bytes) -> None:
        """As :class:`base.Call` says, and a line in the log."""
        self._call.reply(message)
        self._size = len(message)
        self.log(base.OK)

    def fail(self, status: int, text: str, metadata: base.Metadata = ()) -> None:
        """As :class:`base.Call` says, and a line in the log."""
        self._call.fail(status, text, metadata)
        self.log(status)

    async def send(self, message: bytes) -> None:
        """As :class:`base.Call` says."""
        self._size += len(message)
        await self._call.send(message)

    def log(self, status: int) -> None:
        """Write the line of a call that ended with ``status``."""
        if access.isEnabledFor(logging.INFO):
            seconds = time.perf_counter() - self._arrived
            log_request(
                "POST",
                self._path,
                200,
                seconds=seconds,
                size=self._size,
                client=self.peer.rpartition(":")[0],
                grpc_status=status,
                trace=self.trace or caller_ids(self.metadata.get(PARENT)),
            )
