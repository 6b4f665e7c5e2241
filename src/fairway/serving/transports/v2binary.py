"""The binary tensor extension: raw bytes after the JSON, both ways. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson

from fairway.core.errors import InvalidRequest
from fairway.core.messages import InferRequest, InferResponse
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.elsewhere import Elsewhere
from fairway.serving.transports.v2 import (
    Buffer,
    OutputOptions,
    Region,
    Reply,
    classify,
    tensor_from_bytes,
    tensor_to_bytes,
)
from fairway.serving.transports.v2json import NAMES, decode_request, dump_response, json_output

_NOTHING = OutputOptions("")
_LITTLE = 4096
"""Bytes that are copied sooner than a view of them is made."""


class Answer(msgspec.Struct, frozen=True):
    """An answer's body: JSON and, if it is not JSON alone, the outputs' raw bytes."""

    header: bytes
    blobs: Sequence[Buffer] | None = None


def decode_binary(
    body: Buffer,
    header_length: int,
    model: str,
    version: str | None,
    route_key: str | None,
    memory: SharedMemory | None,
) -> tuple[InferRequest, Reply | None]:
    """An inference request whose body is ``header_length`` bytes of JSON, more than 0, and then the inputs' raw bytes.

    Raises
    ------
    InvalidRequest
        Saying what is wrong and where.
    NotEnabled
        If it uses shared memory, and ``memory`` is ``None``.
    """
    if header_length > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes; it is the length of the "
            "JSON alone, uncompressed"
        )
    view = memoryview(body)
    elsewhere = Elsewhere(memory, view[header_length:])
    request, reply = decode_request(bytes(view[:header_length]), model, version, route_key, elsewhere)
    elsewhere.finish()
    return request, reply


def header_length(value: bytes) -> int:
    """The value of Inference-Header-Content-Length. Raises :class:`InvalidRequest` unless it is a number."""
    if not value.isdigit() or len(value) > 18:
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {value.decode('latin-1')!r:.100}; it is how many bytes of the body are JSON"
        )
    return int(value)


def raw_input(body: Buffer, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The only input of a model, from a body that is nothing but its values: one row, which fills the one free size.

    The only element of an input of BYTES is the body as it is, without its length.

    Raises
    ------
    InvalidRequest
        If the model takes several inputs or has several free sizes, or the body is no such row.
    """
    if len(specs) != 1:
        raise InvalidRequest(
            f"the body is one raw tensor (Inference-Header-Content-Length: 0), but the model takes {len(specs)} inputs; "
            "send JSON that names them"
        )
    if not len(body):
        raise InvalidRequest("the body is empty; send the input's values")
    spec = specs[0]
    if spec.datatype is Datatype.BYTES:
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        return {
            spec.name: tensor_from_bytes(spec.name, spec.datatype, shape, len(body).to_bytes(4, "little") + bytes(body))
        }
    return {spec.name: tensor_from_bytes(spec.name, spec.datatype, _one_row(spec, len(body)), body)}


def encode_reply(response: InferResponse, reply: Reply, memory: SharedMemory | None) -> Answer:
    """An answer as its request wants it.

    Raises
    ------
    InvalidRequest
        If an output is BF16 and wanted as JSON, or does not fit its region.
    InferenceFailed
        If an output's strings are not UTF-8, and wanted as JSON.
    """
    usual = _all_numbers(response, reply)
    if usual is not None:
        return usual
    outputs: list[dict[str, Any]] = []
    blobs: list[Buffer] = []
    for name, tensor in response.outputs.items():
        option = reply.options.get(name, _NOTHING)
        if option.classification:
            tensor = classify(tensor, option.classification, reply.labels, batched=reply.batched)  # noqa: PLW2901
        if option.region is not None:
            assert memory is not None  # the decoder has refused it
            outputs.append(_described(name, tensor, _put(tensor, option.region, memory)))
        elif reply.binary if option.binary is None else option.binary:
            blob = tensor_to_bytes(tensor)
            blobs.append(blob)
            outputs.append(_described(name, tensor, {"binary_data_size": len(blob)}))
        else:
            outputs.append(json_output(name, tensor))
    header = dump_response(response, outputs)
    return Answer(header, blobs if blobs else None)


def _all_numbers(response: InferResponse, reply: Reply) -> Answer | None:
    """The answer if all of it is numbers as raw bytes, as usual: only the sizes of its outputs vary, and they repeat."""
    options = reply.options
    if response.parameters:
        return None
    entries: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = []
    for name, tensor in response.outputs.items():
        option = options.get(name, _NOTHING)
        if option.classification or option.region is not None or tensor.dtype.kind in "OSU":
            return None
        if not (reply.binary if option.binary is None else option.binary):
            return None
        entries.append((name, tensor.dtype, tensor.shape))
    if not entries:
        return None
    header = _header(response.model, response.version, tuple(entries))
    identity = b',"id":%b}' % orjson.dumps(response.id) if response.id else b"}"
    tensors = response.outputs.values()
    blobs = [tensor.tobytes() if tensor.nbytes <= _LITTLE else tensor_to_bytes(tensor) for tensor in tensors]
    return Answer(header + identity, blobs)


@lru_cache(256)
def _header(model: str, version: str, entries: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    """The JSON of an answer without an id, but for its end."""
    outputs = [
        {
            "name": name,
            "shape": shape,
            "datatype": NAMES.get(dtype, "BYTES"),
            "parameters": {"binary_data_size": math.prod(shape) * dtype.itemsize},
        }
        for name, dtype, shape in entries
    ]
    return dump_response(InferResponse(model, version, {}), outputs)[:-1]


def _described(name: str, tensor: Tensor, parameters: dict[str, Any]) -> dict[str, Any]:
    datatype = NAMES.get(tensor.dtype, "BYTES")
    return {"name": name, "shape": tensor.shape, "datatype": datatype, "parameters": parameters}


def _put(tensor: Tensor, region: Region, memory: SharedMemory) -> dict[str, Any]:
    data = tensor_to_bytes(tensor)
    memory.write(region, data)
    said: dict[str, Any] = {"shared_memory_region": region.name, "shared_memory_byte_size": len(data)}
    return said | ({"shared_memory_offset": region.offset} if region.offset else {})


def _one_row(spec: TensorSpec, size: int) -> tuple[int, ...]:
    shape = list(spec.shape)
    if shape.count(-1) > 1 and shape[0] == -1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise InvalidRequest(
            f"input {spec.name!r} has shape {list(spec.shape)}, of which raw values tell one size only; send JSON with all"
        )
    if -1 in shape:
        free = shape.index(-1)
        rest = math.prod(known for known in shape if known != -1) * spec.datatype.dtype.itemsize
        shape[free] = 1 if free == 0 and len(shape) > 1 else size // rest if rest else 0
    return tuple(shape)
