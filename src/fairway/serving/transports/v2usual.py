"""The usual V2 JSON request, understood in one pass: numbers in flat lists. All others, and every error, are ``v2json``'s.

A typed decoder checks as it parses, so nothing is looked at twice. Whatever it gives, ``v2json`` would give as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import msgspec
import numpy as np

from fairway.core.messages import InferRequest
from fairway.core.tensors import Datatype, Tensor

MAX_BYTES = 16384
"""Of a body: parsing a longer one twice, where it is unusual, would cost more than is gained."""
_MAX_DIMENSIONS = 32
_TYPECODES = {
    "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_KINDS = {name: (typecode, Datatype(name).dtype) for name, typecode in _TYPECODES.items()}


class _Input(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: list[int]
    data: list[int | float]  # true and false are neither
    parameters: None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True):  # what is skipped would not be checked for valid Unicode
    inputs: list[_Input]
    id: str | None = None
    parameters: None = None
    outputs: None = None


_decode = msgspec.json.Decoder(_Message).decode


def decode_usual(
    body: bytes | bytearray, model: str, version: str | None, route_key: str | None
) -> InferRequest | None:
    """The request, or ``None`` if it is an unusual one, or a wrong one.

    Its arrays cannot be written to, and hold finite numbers only.
    """
    inputs: dict[str, Tensor] = {}
    try:
        message = _decode(body)
        for entry in message.inputs:
            typecode, dtype = _KINDS[entry.datatype]
            data, shape, name = entry.data, entry.shape, entry.name
            # As many bytes as numbers, or NumPy refuses; a number that does not fit its type is refused by struct.
            array: Tensor = np.ndarray(shape, dtype, _packer(len(data), typecode)(*data))
            if array.size != len(data) or name in inputs or not name or len(shape) > _MAX_DIMENSIONS:
                return None
            inputs[name] = array
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, OverflowError, struct.error, RecursionError):
        return None
    return InferRequest(model, inputs, version, message.id or None, None, {}, route_key, True) if inputs else None


@lru_cache(512)
def _packer(count: int, typecode: str) -> Callable[..., bytes]:
    return struct.Struct(f"={count}{typecode}").pack
