"""The Open Inference Protocol's JSON, to and from Fairway's messages. Pure."""

from __future__ import annotations

import array
import json
import math
import struct
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson

from fairway.core.errors import FairwayError, InferenceFailed, InvalidRequest
from fairway.core.messages import InferRequest, InferResponse
from fairway.core.tensors import Datatype, Tensor

MAX_DEPTH = 32
_MAX_ERROR = 4000
_ORJSON = orjson.OPT_SERIALIZE_NUMPY
_NUMBER = frozenset({int, float})
_INT = frozenset({int})
_BOOL = frozenset({bool})
_STR = frozenset({str})
_JSON_NAMES = {int: "whole numbers", float: "fractions", bool: "true/false", str: "strings", type(None): "null",
               dict: "objects", list: "lists"}  # fmt: skip
_TYPES: Mapping[Datatype, frozenset[type]] = {
    kind: _BOOL if kind is Datatype.BOOL else _STR if kind is Datatype.BYTES else _NUMBER if kind.is_float else _INT
    for kind in Datatype
}
_DATATYPES = {kind.value: kind for kind in Datatype}
_NAMES = {kind.dtype: kind.value for kind in Datatype}
_TYPECODES = {Datatype.FP32: "f", Datatype.FP64: "d"}
_FLOATS = {kind.value: (typecode, kind.dtype) for kind, typecode in _TYPECODES.items()}


def decode_request(body: bytes | bytearray, model: str, version: str | None, route_key: str | None) -> InferRequest:
    """An inference request from a V2 JSON body. Raises :class:`InvalidRequest` saying what is wrong and where."""
    message = decode_object(body)
    entries = message.get("inputs")
    if type(entries) is not list or not entries:
        raise InvalidRequest("'inputs' is missing: send a list of tensors, each with name, shape, datatype and data")
    literals = b"true" in body or b"false" in body
    inputs: dict[str, Tensor] = {}
    for entry in entries:
        name, tensor = _input(entry, literals)
        if name in inputs:
            raise InvalidRequest(f"input {name!r} is given twice; send each input once")
        inputs[name] = tensor
    identity = message.get("id")
    if identity is not None and type(identity) is not str:
        raise InvalidRequest(f"'id' is {identity!r}; it must be a string")
    parameters = message.get("parameters")
    return InferRequest(
        model,
        inputs,
        version=version,
        id=identity or None,
        outputs=_outputs(message.get("outputs")),
        parameters=_object(parameters, "parameters") if parameters is not None else {},
        route_key=route_key,
    )


def encode_response(response: InferResponse) -> bytes:
    """A V2 JSON body. Raises :class:`InferenceFailed` where JSON cannot hold an output."""
    outputs = []
    for name, tensor in response.outputs.items():
        datatype = _NAMES.get(tensor.dtype, "BYTES")
        data: Any = _strings(name, tensor) if datatype == "BYTES" else tensor.ravel()
        outputs.append({"name": name, "shape": tensor.shape, "datatype": datatype, "data": data})
    message: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.id:
        message["id"] = response.id
    if response.parameters:
        message["parameters"] = response.parameters
    body = orjson.dumps(message, option=_ORJSON)
    if b"null" in body and not all(np.isfinite(a).all() for a in response.outputs.values() if a.dtype.kind == "f"):
        return _with_bare_nan(message)
    return body


def encode_error(error: FairwayError) -> bytes:
    """The body of every error. What it quotes may be as long as a request, and is cut."""
    text = str(error)
    if len(text) > _MAX_ERROR:
        text = f"{text[:_MAX_ERROR]} …"
    try:
        return orjson.dumps({"error": text, "code": error.code})
    except orjson.JSONEncodeError:  # a name with half a surrogate pair was quoted in the message
        return json.dumps({"error": text, "code": error.code}).encode()


def decode_object(body: bytes | bytearray) -> dict[str, Any]:
    """A JSON object, bare ``NaN`` and ``Infinity`` included. Raises :class:`InvalidRequest`."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = _lenient(body, error)
    return _object(message, "the body")


def _lenient(body: bytes | bytearray, problem: orjson.JSONDecodeError) -> Any:
    if b"NaN" not in body and b"Infinity" not in body:
        if not body:
            raise InvalidRequest("the body is empty; send a JSON object with 'inputs'") from None
        raise InvalidRequest(f"the body is not JSON: {problem}") from None
    try:
        message = json.loads(body)
        if b"\\u" in body:
            json.dumps(message, ensure_ascii=False).encode()  # half a surrogate pair, which no answer could give back
        return message
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidRequest(f"{what} is {_said(value)}; it must be a JSON object")
    return value


def _said(value: Any) -> str:
    return {"list": "a list", "str": "a string", "NoneType": "null"}.get(type(value).__name__, f"{value!r}")


def _input(entry: Any, literals: bool) -> tuple[str, Tensor]:
    """``literals``: whether the body holds ``true`` or ``false`` anywhere."""
    entry = _object(entry, "an input")
    name = entry.get("name")
    if type(name) is not str or not name:
        raise InvalidRequest("an input has no name; give each input a 'name'")
    declared = entry.get("datatype")
    datatype = _DATATYPES.get(declared) if type(declared) is str else None
    if datatype is None:
        raise InvalidRequest(f"input {name!r} has datatype {declared!r}; use one of {', '.join(_DATATYPES)}")
    shape = _shape(name, entry.get("shape"))
    if "data" not in entry:
        raise InvalidRequest(_no_data(name, entry.get("parameters")))
    data = entry["data"]
    floats = None if literals else _floats(data, declared, shape)
    return name, _array(name, data, datatype, shape) if floats is None else floats


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    valid = type(shape) is list
    for size in shape if valid else ():
        valid = valid and type(size) is int and size >= 0
    if not valid:
        raise InvalidRequest(f"input {name!r} has no valid shape; send a list of whole numbers of 0 or more")
    if len(shape) > MAX_DEPTH:
        raise InvalidRequest(f"input {name!r} has {len(shape)} dimensions; at most {MAX_DEPTH} are taken")
    return tuple(shape)


def _no_data(name: str, parameters: Any) -> str:
    if type(parameters) is dict and "binary_data_size" in parameters:
        return (
            f"input {name!r} is sent as binary, which this server does not read; send its data as JSON "
            "(tritonclient: set_data_from_numpy(…, binary_data=False))"
        )
    return f"input {name!r} has no data; send its values, nested or flat, as 'data'"


def _floats(data: Any, datatype: str, shape: tuple[int, ...]) -> Tensor | None:
    """The array, if ``data`` is a flat list of as many numbers as the shape says; else ``None``: :func:`_array` says why.

    ``struct`` converts and checks at once, in a third of the time of looking at each value's type and making an array. Only
    true and false would pass for numbers, so they must not be among the values.
    """
    if datatype not in _FLOATS or type(data) is not list or len(data) != math.prod(shape):
        return None
    typecode, dtype = _FLOATS[datatype]
    buffer = bytearray(len(data) * dtype.itemsize)
    try:
        struct.pack_into(f"{len(data)}{typecode}", buffer, 0, *data)
        return np.ndarray(shape, dtype, buffer)
    except (struct.error, OverflowError, ValueError):
        return None


def _array(name: str, data: Any, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    """The array, only made once there are as many values of the right type as the shape says."""
    if type(data) is not list:
        raise InvalidRequest(f"the data of input {name!r} is {_said(data)}; it must be a list")
    kinds = set(map(type, data))
    for _ in range(MAX_DEPTH):
        if kinds != {list}:
            break
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if not kinds <= _TYPES[datatype]:
        raise InvalidRequest(_wrong_values(name, datatype, kinds))
    if len(data) != math.prod(shape):
        raise InvalidRequest(
            f"input {name!r} of shape {list(shape)} takes {math.prod(shape)} values, but {len(data)} were sent"
        )
    try:
        if datatype is Datatype.BYTES:
            return _bytes(data).reshape(shape)
        typecode = _TYPECODES.get(datatype)
        if typecode is not None:  # the standard library's array is three times as fast on lists of floats
            return np.frombuffer(array.array(typecode, data), datatype.dtype).reshape(shape)
        with np.errstate(over="ignore"):  # becomes infinite, which the model's spec then allows or refuses
            return np.array(data, dtype=datatype.dtype).reshape(shape)
    except OverflowError as error:
        raise InvalidRequest(f"input {name!r} is {datatype}: {error}; send values within its range") from None
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"input {name!r} holds a string that is not valid Unicode: {error}") from None
    except ValueError:
        raise InvalidRequest(f"input {name!r} cannot have shape {list(shape)}; send a smaller one") from None


def _bytes(data: list[str]) -> Tensor:
    encoded = np.empty(len(data), dtype=object)
    encoded[:] = [item.encode() for item in data]
    return encoded


def _wrong_values(name: str, datatype: Datatype, kinds: set[type]) -> str:
    wrong = sorted(_JSON_NAMES[kind] for kind in kinds - _TYPES[datatype])
    if list in kinds:
        return f"the data of input {name!r} nests unevenly or deeper than {MAX_DEPTH}; send it flat, in row-major order"
    takes = {_BOOL: "true and false", _STR: "strings", _INT: "whole numbers", _NUMBER: "numbers"}[_TYPES[datatype]]
    return f"input {name!r} is {datatype}, which takes {takes}, but its data holds {' and '.join(wrong)}"


def _outputs(entries: Any) -> tuple[str, ...] | None:
    if not entries and (entries is None or type(entries) is list):
        return None
    if type(entries) is not list:
        raise InvalidRequest("'outputs' must be a list of objects, each with a 'name'")
    return tuple(_output(entry) for entry in entries)


def _output(entry: Any) -> str:
    entry = _object(entry, "an entry of 'outputs'")
    name = entry.get("name")
    if type(name) is not str or not name:
        raise InvalidRequest("an entry of 'outputs' has no name; give each a 'name'")
    parameters = entry.get("parameters") or {}
    for extension in ("classification", "shared_memory_region"):
        if type(parameters) is dict and parameters.get(extension):
            raise InvalidRequest(
                f"output {name!r} asks for {extension!r}, which this server does not offer; leave it out"
            )
    return name


def _strings(name: str, tensor: Tensor) -> list[str]:
    try:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in tensor.ravel()]
    except UnicodeDecodeError:
        raise InferenceFailed(
            f"output {name!r} holds bytes that are not UTF-8, which JSON cannot carry; ask for the other outputs only"
        ) from None


def _with_bare_nan(message: dict[str, Any]) -> bytes:
    """As Triton writes them: orjson would turn NaN and infinities into null."""
    for output in message["outputs"]:
        if isinstance(output["data"], np.ndarray):
            output["data"] = output["data"].tolist()
    return json.dumps(message, separators=(",", ":")).encode()
