"""The Open Inference Protocol over HTTP as one Starlette application: every route, none of them needing the fast lane."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fairway.core.errors import FairwayError, InvalidRequest, ModelNotReady, Overloaded
from fairway.core.messages import InferRequest, InferResponse
from fairway.core.tensors import TensorSpec
from fairway.serving.inference import InferenceCore
from fairway.serving.models import ServedVersion, State
from fairway.serving.settings import ServeSettings
from fairway.serving.status import wire
from fairway.serving.transports.access import AccessLog
from fairway.serving.transports.bodies import decompress, too_large
from fairway.serving.transports.openapi import DOCS, document
from fairway.serving.transports.v2json import decode_object, decode_request, encode_error, encode_response

JSON = "application/json"
ROUTE_KEY = "fairway-route-key"
BINARY_HEADER = "inference-header-content-length"
_PLATFORMS = {"onnxruntime": "onnxruntime_onnx"}


def error_response(error: FairwayError) -> tuple[int, dict[str, str], bytes]:
    """Status, extra headers and body of an error."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, ModelNotReady):
        headers["retry-after"] = "1"
    return wire(error).http, headers, encode_error(error)


def normal_version(version: str | None) -> str | None:
    """``/versions/01`` is version 1."""
    return str(int(version)) if version and version.isdecimal() and version.isascii() and len(version) < 20 else version


def refuse_binary() -> InvalidRequest:
    """The error for a request in the binary tensor form."""
    return InvalidRequest(
        "this server reads tensors as JSON only, and the request has an Inference-Header-Content-Length; "
        "send JSON data (tritonclient: set_data_from_numpy(…, binary_data=False))"
    )


class RestRoutes:
    """The handlers.

    Parameters
    ----------
    core : InferenceCore
    settings : ServeSettings
    """

    def __init__(self, core: InferenceCore, settings: ServeSettings) -> None:
        self._core = core
        self._models = core.models
        self._telemetry = core.telemetry
        self._limit = settings.max_body_bytes
        self._version = importlib.metadata.version("fairway")

    def routes(self) -> list[Route]:
        """Every route of the server."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        return [
            Route("/v2", self.server_metadata),
            Route("/v2/", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(Route(base, self.model_metadata) for base in (model, version)),
            *(Route(base + "/ready", self.model_ready) for base in (model, version)),
            *(Route(base + "/infer", self.infer, methods=["POST"]) for base in (model, version)),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
        ]

    async def infer(self, request: Request) -> Response:
        """Decode, call the core, encode."""
        try:
            call = await self._decoded(request)
        except FairwayError as error:
            self._telemetry.rejected[error.code] += 1
            raise
        return Response(encode_response(await self._while_connected(request, call)), media_type=JSON)

    async def server_metadata(self, _: Request) -> Response:
        """Name, version and extensions."""
        return _json({"name": "fairway", "version": self._version, "extensions": ["model_repository"]})

    async def live(self, _: Request) -> Response:
        """The process runs."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """The server may be sent requests."""
        if not self._telemetry.ready():
            raise ModelNotReady("the server is starting or stopping; send requests to another, or try again soon")
        return _json({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """One model, or one version, can answer."""
        served = self._served(request)
        return _json({"name": served.name, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """What a model takes and gives."""
        served = self._served(request)
        engine = served.model.manifest.engine.name
        return _json(
            {
                "name": served.name,
                "versions": self._models.versions(served.name),
                "platform": _PLATFORMS.get(engine, engine),
                "inputs": [_spec(spec) for spec in served.model.inputs],
                "outputs": [_spec(spec) for spec in served.model.outputs],
            }
        )

    async def index(self, request: Request) -> Response:
        """Every version and its state; only those ready if the body says ``{"ready": true}``."""
        body = await self._body(request)
        only_ready = decode_object(body).get("ready", False) if body else False
        entries = [entry for entry in self._models.index() if not only_ready or entry.state is State.READY]
        return Response(msgspec.json.encode(entries), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics, in whichever form the scraper asks for."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(request.app.state.registry), headers={"content-type": content_type})

    async def openapi(self, _: Request) -> Response:
        """The API, described."""
        return _json(document(self._version))

    async def docs(self, _: Request) -> Response:
        """The same for people; needs nothing from elsewhere."""
        return Response(DOCS, media_type="text/html")

    async def _decoded(self, request: Request) -> InferRequest:
        if BINARY_HEADER in request.headers:
            raise refuse_binary()
        body = await self._body(request)
        model, version = request.path_params["model"], normal_version(request.path_params.get("version"))
        return decode_request(body, model, version, request.headers.get(ROUTE_KEY))

    async def _while_connected(self, request: Request, call: InferRequest) -> InferResponse:
        """Answer, unless the caller leaves: then its queued work is cancelled."""
        answer = asyncio.ensure_future(self._core.infer(call))
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
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            raise too_large(self._limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limit:
                raise too_large(self._limit)
        encoding = ",".join(
            request.headers.getlist("content-encoding")
        )  # lines of one name are one list (RFC 9110, 5.3)
        return decompress(bytes(body), encoding.encode("latin-1"), self._limit) if encoding else bytes(body)

    def _served(self, request: Request) -> ServedVersion:
        version = normal_version(request.path_params.get("version"))
        return self._models.resolve(request.path_params["model"], version, None)


def make_app(core: InferenceCore, settings: ServeSettings, registry: Any) -> ASGIApp:
    """The whole server as an ASGI application. ``registry`` is the ``CollectorRegistry`` behind ``/metrics``."""
    handlers: Mapping[Any, Any] = {
        FairwayError: _on_error,
        HTTPException: _on_http_exception,
        ClientDisconnect: _on_disconnect,
        Exception: _on_bug,
    }
    app = Starlette(routes=RestRoutes(core, settings).routes(), exception_handlers=handlers)
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


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=JSON)


def _spec(spec: TensorSpec) -> dict[str, Any]:
    known = {"name": spec.name, "datatype": spec.datatype.value, "shape": spec.shape}
    return {**known, "parameters": {"columns": spec.columns}} if spec.columns else known
