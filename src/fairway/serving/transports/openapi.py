"""The REST API described by OpenAPI."""

from __future__ import annotations

from typing import Any

from fairway.serving.transports.schemas import SCHEMAS


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server of Fairway ``version``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fairway",
            "version": version,
            "description": "The Open Inference Protocol (V2) with Triton's extensions.",
        },
        "paths": {**_server(), **_models(), **_repository(), **_settings(), **_shared_memory(), **_cuda()},
        "components": {"schemas": SCHEMAS},
    }


_MODEL = "/v2/models/{model}"
_SYSTEM = "/v2/systemsharedmemory"
_CUDA = "/v2/cudasharedmemory"
_REGION = "/region/{region}"
_BODY_ERRORS = (400, 413, 415)
_INFER_ERRORS = (400, 403, 404, 413, 415, 429, 500, 503, 504)
_ABSENT = (404, 503)
_REASONS = {
    400: "The request does not fit the protocol or the model",
    403: "The server's settings leave this off; the error names the setting",
    404: "No such model, version or region",
    409: "Something else has a say in this",
    413: "The body is above the server's limit",
    415: "The content encoding is not read here",
    429: "The queue is full; Retry-After says when to come back",
    500: "The model failed on a valid request, or cannot be loaded",
    503: "Not ready",
    504: "The request's timeout passed before it was answered",
}
_LENGTH = "Inference-Header-Content-Length"
_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}
_HEADERS = [
    {
        "name": "Fairway-Route-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Callers with the same key stay with one version while a release is in progress.",
    },
    {
        "name": _LENGTH,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 0},
        "description": "The body is so many bytes of JSON, then tensors as raw bytes; 0: it is one tensor.",
    },
]


def _server() -> dict[str, Any]:
    return {
        "/v2": {"get": _operation("serverMetadata", "Server metadata", "ServerMetadata")},
        "/v2/health/live": {"get": _operation("serverLive", "Is the process alive?", "Live")},
        "/v2/health/ready": {"get": _operation("serverReady", "May requests be sent?", "Ready", errors=(503,))},
    }


def _models() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2/models/stats": {"get": _operation("statistics", "Statistics of all models", "Statistics")}
    }
    for suffix, base in (("", _MODEL), ("Version", _MODEL + "/versions/{version}")):
        names = ("model", "version") if suffix else ("model",)
        gets = {
            "": ("Metadata", "What a model takes and gives", "Model", _ABSENT),
            "/ready": ("Ready", "Can it answer?", "ModelReady", (400, 503)),
            "/config": ("Config", "How it is run, as Triton's ModelConfig", "ModelConfig", _ABSENT),
            "/stats": ("Statistics", "Counts and times since it was loaded", "Statistics", _ABSENT),
        }
        for path, (name, summary, answer, errors) in gets.items():
            paths[base + path] = {"get": _operation(f"model{suffix}{name}", summary, answer, names, errors=errors)}
        paths[base + "/infer"] = {"post": _infer(suffix, names)}
    return paths


def _infer(suffix: str, names: tuple[str, ...]) -> dict[str, Any]:
    infer = _operation(
        f"model{suffix}Infer", "Infer", "InferResponse", names, body="InferRequest", errors=_INFER_ERRORS
    )
    infer["parameters"].extend(_HEADERS)
    infer["requestBody"]["required"] = True
    infer["requestBody"]["content"] |= _OCTETS
    answer = infer["responses"]["200"]
    answer["content"] |= _OCTETS
    answer["headers"] = {
        _LENGTH: {
            "schema": {"type": "integer", "minimum": 0},
            "description": "Of an answer with raw bytes: how many bytes of JSON come before them.",
        }
    }
    return infer


def _repository() -> dict[str, Any]:
    one = "/v2/repository/models/{model}"
    errors = (400, 403, 404, 409, 413, 415, 500, 503)
    index = _operation(
        "repositoryIndex", "Every version and its state", "Index", body="IndexRequest", errors=_BODY_ERRORS
    )
    load = _operation("loadModel", "Load a model, or load it anew", "", ("model",), body="LoadRequest", errors=errors)
    unload = _operation("unloadModel", "Unload a model", "", ("model",), body="UnloadRequest", errors=errors)
    return {
        "/v2/repository/index": {"post": index},
        one + "/load": {"post": load},
        one + "/unload": {"post": unload},
    }


def _settings() -> dict[str, Any]:
    trace, errors = "/trace/setting", (400, 403, 413, 415)
    return {
        "/v2/logging": {
            "get": _operation("logSettings", "Log settings", "LogSettings"),
            "post": _operation(
                "updateLogSettings", "Change log settings", "LogSettings", body="LogUpdate", errors=(*errors, 409)
            ),
        },
        "/v2" + trace: {
            "get": _operation("traceSettings", "Trace settings", "TraceSettings"),
            "post": _operation(
                "updateTraceSettings", "Change trace settings", "TraceSettings", body="TraceUpdate", errors=errors
            ),
        },
        _MODEL + trace: {
            "get": _operation(
                "modelTraceSettings", "Trace settings of a model", "TraceSettings", ("model",), errors=_ABSENT
            ),
            "post": _operation(
                "updateModelTraceSettings",
                "Change trace settings of a model",
                "TraceSettings",
                ("model",),
                body="TraceUpdate",
                errors=(*errors, *_ABSENT),
            ),
        },
    }


def _shared_memory() -> dict[str, Any]:
    one = ("region",)
    register = _operation(
        "registerRegion", "Register shared memory", "", one, body="RegisterRequest", errors=(400, 403, 413, 415)
    )
    register["requestBody"]["required"] = True
    return {
        _SYSTEM + "/status": {"get": _operation("regions", "All regions", "Regions", errors=(403,))},
        _SYSTEM + _REGION + "/status": {"get": _operation("region", "One region", "Regions", one, errors=(403, 404))},
        _SYSTEM + "/unregister": {"post": _operation("unregisterRegions", "Forget all regions", "", errors=(403,))},
        _SYSTEM + _REGION + "/unregister": {
            "post": _operation("unregisterRegion", "Forget one region", "", one, errors=(403,))
        },
        _SYSTEM + _REGION + "/register": {"post": register},
    }


def _cuda() -> dict[str, Any]:
    return {
        _CUDA + "/status": {"get": _operation("cudaRegions", "No regions: there is no CUDA memory here", "Regions")},
        _CUDA + "/unregister": {"post": _operation("unregisterCudaRegions", "Succeeds, having nothing to do", "")},
        _CUDA + _REGION + "/unregister": {
            "post": _operation("unregisterCudaRegion", "Succeeds, having nothing to do", "", ("region",))
        },
    }


def _operation(
    name: str,
    summary: str,
    answer: str,
    path: tuple[str, ...] = (),
    *,
    body: str = "",
    errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    """One operation; without an ``answer``, its body is empty."""
    success = {"description": "OK"} | ({"content": _content(answer)} if answer else {})
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for part in path
        ],
        "responses": {"200": success}
        | {str(status): {"description": _REASONS[status], "content": _content("Error")} for status in sorted(errors)},
    }
    if body:
        operation["requestBody"] = {"content": _content(body)}
    return operation


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
