"""The Open Inference Protocol over HTTP but for inference: metadata, statistics, models, settings, shared memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.core.errors import InvalidRequest, ModelNotFound, ModelNotReady
from fairway.serving.management import Management
from fairway.serving.routing import normal_version
from fairway.serving.transports.v2json import decode_object, encode_error

JSON = "application/json"
Body = TypeVar("Body")


class _LoadBody(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] = {}


class _Dependents(msgspec.Struct, frozen=True):
    unload_dependents: bool = False


class _UnloadBody(msgspec.Struct, frozen=True):
    parameters: _Dependents = _Dependents()


class _IndexBody(msgspec.Struct, frozen=True):
    ready: bool = False


class _RegisterBody(msgspec.Struct, frozen=True):
    key: str
    byte_size: int
    offset: int = 0


class ManagementRoutes:
    """The handlers.

    Parameters
    ----------
    management : Management
    body : callable
        Receives a request's body, within the limit.
    """

    def __init__(self, management: Management, body: Callable[[Request], Awaitable[bytes]]) -> None:
        self._management = management
        self._body = body

    def routes(self) -> list[Route]:
        """Every route but infer."""
        return [*self._server_routes(), *self._model_routes(), *self._memory_routes()]

    def _server_routes(self) -> list[Route]:
        both = ["GET", "POST"]
        return [
            Route("/v2", self.server_metadata),
            Route("/v2/", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/logging", self.logging, methods=both),
            Route("/v2/trace/setting", self.trace_setting, methods=both),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self.unload, methods=["POST"]),
        ]

    def _model_routes(self) -> list[Route]:
        model = "/v2/models/{model}"
        bases = (model, model + "/versions/{version}")
        return [
            Route("/v2/models/stats", self.statistics),  # before names of models
            *(Route(base, self.model_metadata) for base in bases),
            *(Route(base + "/ready", self.model_ready) for base in bases),
            *(Route(base + "/config", self.model_config) for base in bases),
            *(Route(base + "/stats", self.statistics) for base in bases),
            Route(model + "/trace/setting", self.trace_setting, methods=["GET", "POST"]),
        ]

    def _memory_routes(self) -> list[Route]:
        system, cuda = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
        one = "/region/{region}"
        return [
            *(Route(system + part + "/status", self.memory_status) for part in ("", one)),
            *(Route(system + part + "/unregister", self.unregister, methods=["POST"]) for part in ("", one)),
            Route(system + one + "/register", self.register, methods=["POST"]),
            Route(cuda + "/status", self.no_cuda_regions),
            *(Route(cuda + part + "/unregister", self.no_cuda_unregister, methods=["POST"]) for part in ("", one)),
            Route(cuda + one + "/status", self.no_cuda),
            Route(cuda + one + "/register", self.no_cuda, methods=["POST"]),
        ]

    # -- server

    async def server_metadata(self, _: Request) -> Response:
        """Name, version and extensions."""
        return to_json(self._management.server_metadata())

    async def live(self, _: Request) -> Response:
        """The process runs."""
        return to_json({"live": True})

    async def ready(self, _: Request) -> Response:
        """The server may be sent requests."""
        if not self._management.server_ready():
            raise ModelNotReady("the server is starting or stopping; send requests to another, or try again soon")
        return to_json({"ready": True})

    async def logging(self, request: Request) -> Response:
        """The log settings, changed first if there is a body."""
        return to_json(await self._management.log_settings(await self._object(request)))

    async def trace_setting(self, request: Request) -> Response:
        """The trace settings of a model or of the server, changed first if there is a body."""
        model = request.path_params.get("model")
        return to_json(await self._management.trace_setting(model, await self._object(request)))

    # -- models

    async def model_ready(self, request: Request) -> Response:
        """One model, or one version, can answer. An unknown one is a 400 here, as in Triton."""
        model, version = _model(request)
        try:
            self._management.model_ready(model, version)
        except ModelNotFound as error:
            return Response(encode_error(error), 400, media_type=JSON)
        return to_json({"name": model, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """What a model takes and gives."""
        return to_json(self._management.model_metadata(*_model(request)))

    async def model_config(self, request: Request) -> Response:
        """How a model is run."""
        return to_json(self._management.model_config(*_model(request)))

    async def statistics(self, request: Request) -> Response:
        """Counts and times of one version, of a model's, or of all."""
        model = request.path_params.get("model", "")
        version = normal_version(request.path_params.get("version"))
        return to_json(await self._management.joined_statistics(model, version))

    async def index(self, request: Request) -> Response:
        """Every version and its state; only those ready if the body says ``{"ready": true}``."""
        body = await self._read(request, _IndexBody)
        return to_json(self._management.index(body.ready))

    async def load(self, request: Request) -> Response:
        """Load a model, with what the body's parameters bring."""
        body = await self._read(request, _LoadBody)
        await self._management.load(request.path_params["model"], body.parameters)
        return Response()

    async def unload(self, request: Request) -> Response:
        """Unload a model."""
        body = await self._read(request, _UnloadBody)
        await self._management.unload(request.path_params["model"], body.parameters.unload_dependents)
        return Response()

    # -- shared memory

    async def memory_status(self, request: Request) -> Response:
        """One region, or all."""
        return to_json(self._management.shared_memory_status(request.path_params.get("region")))

    async def register(self, request: Request) -> Response:
        """Register a region."""
        body = await self._read(request, _RegisterBody)
        region = request.path_params["region"]
        await self._management.register_shared_memory(region, body.key, body.offset, body.byte_size)
        return Response()

    async def unregister(self, request: Request) -> Response:
        """Forget one region, or all."""
        await self._management.unregister_shared_memory(request.path_params.get("region"))
        return Response()

    async def no_cuda_regions(self, _: Request) -> Response:
        """There are never any."""
        return to_json([])

    async def no_cuda_unregister(self, _: Request) -> Response:
        """Forgetting what is not registered succeeds; many clients begin with it."""
        return Response()

    async def no_cuda(self, _: Request) -> Response:
        """None can be registered."""
        raise InvalidRequest(
            "this server shares no CUDA memory; register system shared memory, or send the data itself"
        )

    async def _object(self, request: Request) -> dict[str, Any]:
        body = await self._body(request) if request.method == "POST" else b""
        return _whole(decode_object(body)) if body else {}

    async def _read(self, request: Request, kind: type[Body]) -> Body:
        body = await self._body(request) or b"{}"
        try:
            return msgspec.convert(_whole(decode_object(body)), kind)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"the body is wrong: {error}; see /docs for what belongs there") from None


def to_json(content: Any) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(content), media_type=JSON)


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    """``1.0`` is a whole number in JSON Schema."""
    return {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in values.items()}


def _model(request: Request) -> tuple[str, str | None]:
    return request.path_params["model"], normal_version(request.path_params.get("version"))
