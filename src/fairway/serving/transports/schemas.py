"""JSON Schemas of what the REST API takes and gives."""

from __future__ import annotations

from typing import Any

from fairway.core.tensors import Datatype
from fairway.serving.logs import FORMATS
from fairway.serving.shared_memory import MAX_BYTES
from fairway.serving.tracing import LEVELS, MODE


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _closed(**properties: Any) -> dict[str, Any]:
    return _object(**properties) | {"additionalProperties": False}


def _or_one(kind: dict[str, Any]) -> dict[str, Any]:
    """The value, a list of it alone, or null for the default."""
    return {"anyOf": [{"type": "null"}, kind, _list(kind) | {"minItems": 1, "maxItems": 1}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_DATATYPE = {"type": "string", "enum": [kind.value for kind in Datatype]}
_SPEC = _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_list({"type": "integer"}))
_SHARED = {
    "binary_data_size": _COUNT | {"description": "Bytes of the values, which follow the JSON."},
    "shared_memory_region": _NAME | {"description": "The registered region that holds the values."},
    "shared_memory_byte_size": _COUNT,
    "shared_memory_offset": _COUNT,
}
_TENSOR = _object(
    ("name", "shape", "datatype"),
    name=_NAME,
    shape=_list(_COUNT),
    datatype=_DATATYPE,
    data={"type": "array", "description": "Values in row-major order, nested or flat."},
    parameters=_object((), **_SHARED),
)
_PARAMETERS = _object(
    raw={"type": "boolean", "description": "Skip the model's pre- and post-processing."},
    timeout=_COUNT | {"description": "Microseconds to answer within; 0 is no limit."},
    priority=_COUNT | {"description": "1 is the highest; 0 is the model's own."},
    binary_data_output={"type": "boolean", "description": "Answer with raw bytes, where no outputs are named."},
)
_WANTED = _object(
    ("name",),
    name=_NAME,
    parameters=_object(
        (),
        binary_data={"type": "boolean", "description": "Answer with raw bytes."},
        classification=_COUNT | {"description": "Answer with so many best classes; 0 with the values."},
        **{key: value for key, value in _SHARED.items() if key != "binary_data_size"},
    ),
)
_DIMS = _list({"type": "integer"})
_CONFIG_TENSOR = _object(
    ("name", "data_type", "dims"),
    name=_TEXT,
    data_type={"type": "string", "pattern": "^TYPE_"},
    dims=_DIMS,
    reshape=_object(("shape",), shape=_DIMS),
)
_PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_MOST = 2**31 - 1
_SIZE = {"type": "integer", "maximum": MAX_BYTES}

SCHEMAS: dict[str, Any] = {
    "Error": _object(("error",), error=_TEXT, code=_TEXT),
    "ServerMetadata": _object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "Live": _object(("live",), live=_FLAG),
    "Ready": _object(("ready",), ready=_FLAG),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready=_FLAG),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_SPEC),
        outputs=_list(_SPEC),
    ),
    "ModelConfig": _object(
        ("name", "platform", "backend", "max_batch_size", "input", "output", "version_policy", "instance_group"),
        name=_TEXT,
        platform=_TEXT,
        backend=_TEXT,
        max_batch_size=_COUNT | {"description": "Rows per engine call; 0: the first axis is not rows."},
        input=_list(_CONFIG_TENSOR),
        output=_list(_CONFIG_TENSOR),
        version_policy=_object(specific=_object(("versions",), versions=_list({"type": "integer"}))),
        instance_group=_list(_object(("name", "kind", "count"), name=_TEXT, kind=_TEXT, count=_COUNT)),
        dynamic_batching={"type": "object"},
        default_model_filename=_TEXT,
        parameters={"type": "object"},
    ),
    "Duration": _object(("count", "ns"), count=_COUNT, ns=_COUNT | {"description": "Nanoseconds, over all."}),
    "Statistics": _object(("model_stats",), model_stats=_list(_ref("ModelStatistics"))),
    "ModelStatistics": _object(
        ("name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"),
        name=_TEXT,
        version=_TEXT,
        last_inference=_COUNT | {"description": "Milliseconds since 1970."},
        inference_count=_COUNT | {"description": "Rows that an engine ran."},
        execution_count=_COUNT | {"description": "Engine calls."},
        inference_stats=_object(_PARTS, **{part: _ref("Duration") for part in _PARTS}),
        batch_stats=_list(
            _object(("batch_size", *_COMPUTE), batch_size=_COUNT, **{part: _ref("Duration") for part in _COMPUTE})
        ),
    ),
    "IndexRequest": _object(ready={"type": "boolean", "description": "Only versions that can answer."}),
    "Index": _list(_object(("name", "version", "state"), name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    "LoadRequest": _object(
        parameters={
            "type": "object",
            "properties": {"config": {"type": "string", "description": "A model configuration, as a JSON string."}},
            "patternProperties": {"^file:": {"type": "string", "description": "A file's content in base64."}},
            "additionalProperties": False,
        }
    ),
    "UnloadRequest": _object(parameters=_object(unload_dependents=_FLAG)),
    "TraceSettings": _object(
        ("trace_level", "trace_rate", "trace_count", "trace_mode"),
        trace_level=_list({"type": "string", "enum": list(LEVELS)}),
        trace_rate=_TEXT | {"description": "One request in so many is traced."},
        trace_count=_TEXT | {"description": "How many are still to be traced; -1: all."},
        trace_mode={"type": "string", "const": MODE},
    ),
    "TraceUpdate": _closed(
        trace_level={
            "anyOf": [
                {"type": "null"},
                {"type": "string", "enum": list(LEVELS)},
                _list({"type": "string", "enum": list(LEVELS)}) | {"minItems": 1},
            ]
        },
        trace_rate=_or_one(
            {
                "anyOf": [
                    {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
                    {"type": "integer", "minimum": 1, "maximum": _MOST},
                ]
            }
        ),
        trace_count=_or_one(
            {
                "anyOf": [
                    {"type": "string", "pattern": "^(-1|[0-9]{1,9})$"},
                    {"type": "integer", "minimum": -1, "maximum": _MOST},
                ]
            }
        ),
        trace_mode=_or_one({"type": "string", "const": MODE}),
    ),
    "LogSettings": _object(
        ("log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"),
        log_file={"type": "string", "const": ""},
        log_info=_FLAG,
        log_warning=_FLAG,
        log_error=_FLAG,
        log_verbose_level=_COUNT,
        log_format={"type": "string", "enum": list(FORMATS)},
    ),
    "LogUpdate": _closed(
        log_file={"type": "string", "const": ""},
        log_info=_FLAG,
        log_warning=_FLAG,
        log_error=_FLAG,
        log_verbose_level=_COUNT | {"maximum": _MOST},
        log_format={"type": "string", "enum": list(FORMATS)},
    ),
    "Regions": _list(
        _object(("name", "key", "offset", "byte_size"), name=_TEXT, key=_TEXT, offset=_COUNT, byte_size=_COUNT)
    ),
    "RegisterRequest": _object(
        ("key", "byte_size"),
        key={"type": "string", "minLength": 1, "description": "The POSIX shared memory object."},
        byte_size=_SIZE | {"minimum": 1},
        offset=_SIZE | {"minimum": 0},
    ),
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(_TENSOR) | {"minItems": 1},
        outputs=_list(_WANTED),
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=_TEXT,
        model_name=_TEXT,
        model_version=_TEXT,
        outputs=_list(_TENSOR),
    ),
}
