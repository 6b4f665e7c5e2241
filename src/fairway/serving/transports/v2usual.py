"""The usual V2 JSON request, understood in one pass: numbers in flat lists. All others, and every error, are ``v2json``'s.

A typed decoder checks as it parses, so nothing is looked at twice. Whatever it gives, ``v2json`` would give as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

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


class _Known(msgspec.Struct, frozen=True, eq=False):
    """A body but for its numbers: what follows them, and what it says."""

    end: bytes
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pack: Callable[..., bytes]


_decode = msgspec.json.Decoder(_Message).decode
_decode_numbers = msgspec.json.Decoder(list[int | float]).decode
_known: dict[bytes, _Known] = {}
"""By what stands before the numbers, up to their bracket: clients send the same again and again."""
_MAX_KNOWN = 256
_MAX_KNOWN_BYTES = 1024
_DATA = b'"data"'
_BEFORE = re.compile(rb'[^\\]*"data":[ ]?')
"""Nothing escaped, so that a quote is a quote."""


def decode_usual(
    body: bytes | bytearray, model: str, version: str | None, route_key: str | None
) -> InferRequest | None:
    """The request, or ``None`` if it is an unusual one, or a wrong one.

    Its arrays cannot be written to, and hold finite numbers only.
    """
    start = body.find(b"[", body.find(_DATA))
    known = _known.get(bytes(body[:start]))
    if known is not None and body.endswith(known.end):
        try:
            numbers = _decode_numbers(body[start : len(body) - len(known.end)])
            array: Tensor = np.ndarray(known.shape, known.dtype, known.pack(*numbers))
            return InferRequest(model, {known.name: array}, version, None, None, {}, route_key, True)
        except (msgspec.MsgspecError, OverflowError, struct.error):
            pass  # and on to say what is wrong
    inputs: dict[str, Tensor] = {}
    try:
        message = _decode(body)
        for entry in message.inputs:
            typecode, dtype = _KINDS[entry.datatype]
            data, shape, name = entry.data, entry.shape, entry.name
            # As many bytes as numbers, or NumPy refuses; a number that does not fit its type is refused by struct.
            array = np.ndarray(shape, dtype, _packer(len(data), typecode)(*data))
            if array.size != len(data) or name in inputs or not name or len(shape) > _MAX_DIMENSIONS:
                return None
            inputs[name] = array
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, OverflowError, struct.error, RecursionError):
        return None
    if len(inputs) == 1 and not message.id:
        _remember(bytes(body), start, message.inputs[0])
    return InferRequest(model, inputs, version, message.id or None, None, {}, route_key, True) if inputs else None


def _remember(body: bytes, start: int, entry: _Input) -> None:
    """Keep what a good body with one input says, but for its numbers; with other numbers in their place it says the same."""
    end = body.find(b"]", start) + 1
    before, after = body[:start], body[end:]
    if len(before) + len(after) > _MAX_KNOWN_BYTES or not _BEFORE.fullmatch(before) or _DATA in after:
        return
    if before.count(_DATA) > 1 or not entry.data:
        return
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    typecode, dtype = _KINDS[entry.datatype]
    _known[before] = _Known(after, entry.name, dtype, tuple(entry.shape), _packer(len(entry.data), typecode))


@lru_cache(512)
def _packer(count: int, typecode: str) -> Callable[..., bytes]:
    return struct.Struct(f"={count}{typecode}").pack
