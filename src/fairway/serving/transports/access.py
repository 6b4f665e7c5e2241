"""The access log as ASGI middleware, for what does not go through the fast lane."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.serving.access_lines import access, log_request
from fairway.serving.tracer import Trace, caller_ids
from fairway.serving.transports import traced

TRACE = "fairway.trace"
"""In an ASGI scope: the trace of a request that is traced."""


class AccessLog:
    """Logs every HTTP request that the wrapped application answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = size = 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            client = scope["client"][0] if scope.get("client") else ""
            seconds = time.perf_counter() - started
            trace: Trace | None = scope.get(TRACE)
            ids = trace.ids if trace is not None else caller_ids(traced.parent(scope["headers"]))
            log_request(scope["method"], scope["path"], status, seconds=seconds, size=size, client=client, trace=ids)
