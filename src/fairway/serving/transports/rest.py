"""The Open Inference Protocol over HTTP as one Starlette application: every route, none of them needing the fast lane."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fairway.core.errors import FairwayError, ModelNotReady, Overloaded
from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.inference import InferenceCore
from fairway.serving.management import Management
from fairway.serving.routing import normal_version
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.shared_metrics import Families, families_of
from fairway.serving.status import wire
from fairway.serving.tracer import Trace
from fairway.serving.transports import traced
from fairway.serving.transports.access import TRACE, AccessLog
from fairway.serving.transports.bodies import LARGE, chosen_encoding, compress, decompressed, encoded, too_large
from fairway.serving.transports.codec import Codec
from fairway.serving.transports.docs_page import DOCS
from fairway.serving.transports.manage import JSON, ManagementRoutes, to_json
from fairway.serving.transports.openapi import document
from fairway.serving.transports.v2 import Reply
from fairway.serving.transports.v2json import encode_error

ROUTE_KEY = "fairway-route-key"
_ENCODING = b"content-encoding"


def error_response(error: FairwayError) -> tuple[int, dict[str, str], bytes]:
    """Status, extra headers and body of an error."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, ModelNotReady):
        headers["retry-after"] = "1"
    return wire(error).http, headers, encode_error(error)


class RestRoutes:
    """The handlers.

    Parameters
    ----------
    core : InferenceCore
    settings : ServeSettings
    management : Management
    memory : SharedMemory or None
        ``None``: requests that use shared memory are refused.
    """

    def __init__(
        self,
        core: InferenceCore,
        settings: ServeSettings,
        management: Management,
        memory: SharedMemory | None = None,
    ) -> None:
        self._core = core
        self._others = ManagementRoutes(management, self._body)
        self._codec = Codec(core, settings, memory)
        self._telemetry = core.telemetry
        self._limit = settings.max_body_bytes
        self._version = importlib.metadata.version("fairway")

    def routes(self) -> list[Route]:
        """Every route of the server."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        return [
            *self._others.routes(),
            *(Route(base + "/infer", self.infer, methods=["POST"]) for base in (model, version)),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
        ]

    async def infer(self, request: Request) -> Response:
        """Decode, call the core, encode."""
        tracer = self._core.tracer
        trace = None if tracer is None else tracer.begin(request.path_params["model"], traced.parent(_lines(request)))
        if trace is None:
            return await self._infer(request, None)
        request.scope[TRACE] = trace
        try:
            response = await self._infer(request, trace)
        except FairwayError as error:
            trace.failed(error)
            trace.finish(_seen(request, wire(error).http))
            raise
        except BaseException:
            trace.lost(_seen(request, 499))
            raise

        async def finish() -> None:
            trace.finish(_seen(request, 200))

        response.background = BackgroundTask(finish)
        return response

    async def _infer(self, request: Request, trace: Trace | None) -> Response:
        try:
            call, reply = await self._decoded(request)
        except FairwayError as error:
            self._telemetry.rejected[error.code] += 1
            raise
        response = await self._while_connected(request, call, trace)
        if trace is not None:
            trace.answered()
        accepts = ",".join(request.headers.getlist("accept-encoding"))
        headers, body, rest = self._codec.encode(response, reply)
        content = b"".join((body, *rest))
        if encoding := chosen_encoding(accepts.encode("latin-1"), len(content)):
            headers |= encoded(encoding)
            large = len(content) > LARGE
            content = (
                await asyncio.to_thread(compress, (content,), encoding) if large else compress((content,), encoding)
            )
        said = {name.decode(): value.decode() for name, value in headers.items()}
        return Response(content, headers=said)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics, in whichever form the scraper asks for."""
        from prometheus_client.exposition import choose_encoder

        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (ValueError, TypeError):  # it asks for a version that is none
            encode, content_type = choose_encoder("")
        registry = request.app.state.registry
        if self._telemetry.gather is not None:
            registry = Families(families_of(await self._telemetry.gather(), registry.collect()))
        return Response(encode(registry), headers={"content-type": content_type})

    async def openapi(self, _: Request) -> Response:
        """The API, described."""
        return to_json(document(self._version))

    async def docs(self, _: Request) -> Response:
        """The same for people; needs nothing from elsewhere."""
        return Response(DOCS, media_type="text/html")

    async def _decoded(self, request: Request) -> tuple[InferRequest, Reply | None]:
        body = await self._received(request)
        lines = _lines(request)
        headers = dict(lines)
        if _ENCODING in headers:  # lines of one name are one list (RFC 9110, 5.3)
            headers[_ENCODING] = b",".join(value for name, value in lines if name == _ENCODING)
            body = await decompressed(body, headers[_ENCODING], self._limit)
        model, version = request.path_params["model"], normal_version(request.path_params.get("version"))
        return self._codec.decode(body, headers, model, version, request.headers.get(ROUTE_KEY))

    async def _while_connected(self, request: Request, call: InferRequest, trace: Trace | None) -> InferResponse:
        """Answer, unless the caller leaves: then its queued work is cancelled."""
        answer = asyncio.ensure_future(self._core.infer(call, trace))
        leaving = asyncio.ensure_future(request.receive())  # the body is read, so only a disconnect can come
        try:
            await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return answer.result()
        finally:
            answer.cancel()
            leaving.cancel()

    async def _body(self, request: Request) -> bytes:
        body = await self._received(request)
        encoding = ",".join(request.headers.getlist("content-encoding"))
        return await decompressed(body, encoding.encode("latin-1"), self._limit) if encoding else body

    async def _received(self, request: Request) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            raise too_large(self._limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limit:
                raise too_large(self._limit)
        return bytes(body)


def _lines(request: Request) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in request.headers.raw]


def _seen(request: Request, status: int) -> dict[str, Any]:
    """What a span says of HTTP."""
    return traced.attributes(
        request.scope["path"],
        status,
        host=request.headers.get("host", "").encode("latin-1"),
        client=request.scope.get("client"),
        versioned=request.path_params.get("version"),
    )


def make_app(
    core: InferenceCore,
    settings: ServeSettings,
    registry: Any,
    management: Management,
    memory: SharedMemory | None = None,
) -> ASGIApp:
    """The whole server as an ASGI application.

    ``registry`` is the ``CollectorRegistry`` behind ``/metrics``; ``memory`` is what clients share, ``None`` if nothing.
    """
    handlers: Mapping[Any, Any] = {
        FairwayError: _on_error,
        HTTPException: _on_http_exception,
        ClientDisconnect: _on_disconnect,
        Exception: _on_bug,
    }
    app = Starlette(routes=RestRoutes(core, settings, management, memory).routes(), exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.registry = registry
    return AccessLog(app) if settings.access_log else app


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, FairwayError)
    status, headers, body = error_response(error)
    return Response(body, status, headers, media_type=JSON)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allow = (error.headers or {}).get("Allow", "")
    text = {
        404: f"nothing is at {request.url.path}; see /docs for what is",
        405: f"{request.method} is not taken at {request.url.path}; use {allow}",
    }.get(error.status_code, str(error.detail))
    body = orjson.dumps({"error": text, "code": "invalid_request"})
    return Response(body, error.status_code, error.headers, media_type=JSON)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _on_bug(_: Request, __: Exception) -> Response:
    body = encode_error(FairwayError("the server failed on this request; its log says why"))
    return Response(body, 500, media_type=JSON)
