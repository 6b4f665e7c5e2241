"""gRPC's own health service, which orchestrators and load balancers ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fairway.core.errors import FairwayError, InvalidRequest, ModelNotReady
from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.base import NOT_FOUND, Call
from fairway.serving.transports.grpc.infer import fail

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_SERVICES = frozenset({"", messages.INFERENCE})


class Health:
    """The handlers of ``grpc.health.v1.Health``. The server (an empty name) and its inference service have one state.

    Parameters
    ----------
    ready : callable
        Whether the server may be sent requests.
    watch_s : float, default 0.25
        How often watched states are looked at.
    """

    def __init__(self, ready: Callable[[], bool], watch_s: float = 0.25) -> None:
        self._ready = ready
        self._watch_s = watch_s
        self._finished = asyncio.Event()
        self._asked = messages.message("grpc.health.v1.HealthCheckRequest")
        self._answered = messages.message("grpc.health.v1.HealthCheckResponse")

    def check(self, message: bytes, call: Call) -> None:
        """``Check``."""
        try:
            service = messages.parse(self._asked, message).service
        except FairwayError as error:
            fail(call, error)
            return
        status = self._status(service)
        if status == SERVICE_UNKNOWN:
            call.fail(NOT_FOUND, f"no service {service!r} is known here; ask about '' or {messages.INFERENCE!r}")
        else:
            call.reply(self._encoded(status))

    async def watch(self, incoming: AsyncIterator[bytes], call: Call) -> None:
        """``Watch``: the state, and each that it changes to, until the caller leaves."""
        async for message in incoming:
            service = messages.parse(self._asked, message).service
            break
        else:
            raise InvalidRequest("Watch takes one message, which names a service")
        told = None
        while True:
            status = self._status(service)
            if status != told:
                told = status
                await call.send(self._encoded(status))
            if self._finished.is_set():
                raise ModelNotReady("the server is stopping; watch another")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), self._watch_s)

    def finish(self) -> None:
        """End every watch, once it has told the last state."""
        self._finished.set()

    def _status(self, service: str) -> int:
        if service not in _SERVICES:
            return SERVICE_UNKNOWN
        return SERVING if self._ready() else NOT_SERVING

    def _encoded(self, status: int) -> bytes:
        encoded: bytes = self._answered(status=status).SerializeToString()
        return encoded
