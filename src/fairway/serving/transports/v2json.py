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
from fairway.serving.joining import Rows
from fairway.serving.transports.elsewhere import NOWHERE, Elsewhere
from fairway.serving.transports.numbers import LARGE, load_numbers
from fairway.serving.transports.options import output_options, own_parameters, reply_of
from fairway.serving.transports.v2 import Reply
from fairway.serving.transports.v2rows import encode_rows
from fairway.serving.transports.v2usual import MAX_BYTES as MAX_USUAL
from fairway.serving.transports.v2usual import decode_usual

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
NAMES = {kind.dtype: kind.value for kind in Datatype}
_PLAIN = {kind.dtype: kind.value for kind in Datatype if kind not in (Datatype.BYTES, Datatype.BF16)}
_TYPECODES = {Datatype.FP32: "f", Datatype.FP64: "d"}
_FLOATS = {kind.value: (typecode, kind.dtype) for kind, typecode in _TYPECODES.items()}


def decode_request(
    body: bytes | bytearray,
    model: str,
    version: str | None,
    route_key: str | None,
    elsewhere: Elsewhere = NOWHERE,
) -> tuple[InferRequest, Reply | None]:
    """An inference request from a V2 JSON body, and how it wants its answer: ``None`` is plain JSON.

    Raises
    ------
    InvalidRequest
        Saying what is wrong and where.
    NotEnabled
        If it uses shared memory, and the server does not.
    """
    if len(body) <= MAX_USUAL:
        usual = decode_usual(body, model, version, route_key)
        if usual is not None:
            return usual, None
    message = decode_object(body)
    entries = message.get("inputs")
    if type(entries) is not list or not entries:
        raise InvalidRequest("'inputs' is missing: send a list of tensors, each with name, shape, datatype and data")
    inputs: dict[str, Tensor] = {}
    for entry in entries:
        name, tensor = _input(entry, body, elsewhere)
        if name in inputs:
            raise InvalidRequest(f"input {name!r} is given twice; send each input once")
        inputs[name] = tensor
    identity = message.get("id")
    if identity is not None and type(identity) is not str:
        raise InvalidRequest(f"'id' is {identity!r}; it must be a string")
    parameters = message.get("parameters")
    parameters = {} if parameters is None else own_parameters(_object(parameters, "parameters"))
    wanted = message.get("outputs")
    outputs, reply = None, None
    if parameters or wanted is not None:
        options = output_options(wanted, elsewhere)
        outputs = tuple(options) or None
        reply = reply_of(options, parameters)
    request = InferRequest(
        model,
        inputs,
        version=version,
        id=identity or None,
        outputs=outputs,
        parameters=parameters,
        route_key=route_key,
    )
    return request, reply


def encode_response(response: InferResponse) -> bytes:
    """A V2 JSON body.

    Raises
    ------
    InvalidRequest
        If an output is BF16, which JSON does not carry.
    InferenceFailed
        If an output's strings are not UTF-8.
    """
    outputs: object = response.outputs
    if type(outputs) is Rows and not response.parameters:
        body = encode_rows(response, outputs)
        if body is not None:
            return body
    entries = []
    for name, tensor in response.outputs.items():
        datatype = _PLAIN.get(tensor.dtype)
        if datatype is None:
            entries.append(json_output(name, tensor))
        else:
            entries.append({"name": name, "shape": tensor.shape, "datatype": datatype, "data": tensor.ravel()})
    return dump_response(response, entries)


def json_output(name: str, tensor: Tensor) -> dict[str, Any]:
    """One entry of ``outputs``, with its data."""
    datatype = NAMES.get(tensor.dtype, "BYTES")
    data: Any = tensor.ravel()
    if datatype == "BYTES":
        data = _strings(name, tensor)
    elif datatype == "BF16":
        raise InvalidRequest(
            f"output {name!r} is BF16, which JSON does not carry; ask for it as binary (parameter binary_data)"
        )
    return {"name": name, "shape": tensor.shape, "datatype": datatype, "data": data}


def dump_response(response: InferResponse, outputs: list[dict[str, Any]]) -> bytes:
    """The JSON of an answer whose ``outputs`` are these entries, with arrays as their data."""
    message: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.id:
        message["id"] = response.id
    if response.parameters:
        message["parameters"] = response.parameters
    body = orjson.dumps(message, option=_ORJSON)
    if b"null" in body and not all(map(_finite, outputs)):
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
    """A JSON object, bare ``NaN`` and ``Infinity`` included; inputs of many numbers may have arrays as their data.

    Raises :class:`InvalidRequest`.
    """
    try:
        message = load_numbers(body) if len(body) >= LARGE else None
        if message is None:
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
        text = "a number in it has too many digits" if "int_max_str_digits" in str(error) else error
        raise InvalidRequest(f"the body is not JSON: {text}") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidRequest(f"{what} is {_said(value)}; it must be a JSON object")
    return value


def _said(value: Any) -> str:
    return {"list": "a list", "str": "a string", "NoneType": "null"}.get(type(value).__name__, f"{value!r}")


def _input(entry: Any, body: bytes | bytearray, elsewhere: Elsewhere) -> tuple[str, Tensor]:
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
        return name, elsewhere.read(name, datatype, shape, entry.get("parameters"))
    data = entry["data"]
    if type(data) is np.ndarray:  # of this datatype already
        return name, data.reshape(shape)
    literals = b"true" in body or b"false" in body
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
    if datatype is Datatype.BF16:
        raise InvalidRequest(
            f"input {name!r} is BF16, which JSON does not carry; send it as binary (tritonclient: binary_data=True)"
        )
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


def _strings(name: str, tensor: Tensor) -> list[str]:
    try:
        return [item.decode() if isinstance(item, bytes) else str(item) for item in tensor.ravel()]
    except UnicodeDecodeError:
        raise InferenceFailed(
            f"output {name!r} holds bytes that are not UTF-8, which JSON cannot carry; ask for it as binary (parameter "
            "binary_data)"
        ) from None


def _finite(output: dict[str, Any]) -> bool:
    data = output.get("data")
    return not isinstance(data, np.ndarray) or data.dtype.kind != "f" or bool(np.isfinite(data).all())


def _with_bare_nan(message: dict[str, Any]) -> bytes:
    """As Triton writes them: orjson would turn NaN and infinities into null."""
    for output in message["outputs"]:
        if isinstance(output.get("data"), np.ndarray):
            output["data"] = output["data"].tolist()
    return json.dumps(message, separators=(",", ":")).encode()
