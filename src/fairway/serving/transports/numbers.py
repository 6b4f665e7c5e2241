"""Large JSON bodies, parsed so that lists of numbers become arrays without a Python object for each number.

:func:`load_numbers` gives what ``orjson.loads`` would, with arrays in place of inputs' data, or nothing: whatever is unusual,
wrong or merely uncertain is left to the ordinary way, so that results and errors are the same.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fairway.core.tensors import Datatype, Tensor

LARGE = 8192
"""Bytes from which on a body is worth it: below, both ways take about as long."""

_KEEP = 8 * 2**20  # a parser keeps as much memory as its largest body took, which is some three times as much
_MAX_KEPT = 2
_FEW = 1000
_MAX_DIMENSIONS = 8
_KINDS = {
    kind.value: ("d" if kind.is_float else "u" if kind is Datatype.UINT64 else "i", kind.dtype)
    for kind in Datatype
    if kind not in (Datatype.BOOL, Datatype.BF16, Datatype.BYTES)
}
_WIDE = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}


_parsers: list[Any] = []
"""Not in use: taken out while they parse, so that threads may share them. A new one's memory would cost half of the time."""


class _Unsure(Exception):
    """Leave the body to the ordinary way."""


def load_numbers(body: bytes | bytearray) -> dict[str, Any] | None:
    """The message, or ``None`` if the ordinary way must be taken: because of what it holds, or because pysimdjson is absent."""
    simdjson = _simdjson()
    if simdjson is None or body[:1] == b"\xef":  # a byte order mark is no JSON to the ordinary way
        return None
    try:
        parser = _parsers.pop()
    except IndexError:
        parser = simdjson.Parser()
    try:
        message = _message(simdjson, parser.parse(body), body)
    except (_Unsure, ValueError, TypeError, RuntimeError, KeyError):  # of keys, one that holds U+0000 is not found
        return None  # and the parser goes: something may still hold a part of what it parsed
    if len(body) <= _KEEP and len(_parsers) < _MAX_KEPT:
        _parsers.append(parser)
    return message


@cache
def _simdjson() -> Any:
    try:
        import simdjson
    except ImportError:
        return None
    return simdjson


def _message(simdjson: Any, root: Any, body: bytes | bytearray) -> dict[str, Any]:
    if type(root) is not simdjson.Object:
        raise _Unsure
    inputs: list[dict[str, Any]] = []
    brackets = 0
    message = _shallow(simdjson, root, keep="inputs")
    entries: Any = message.get("inputs")
    if type(entries) is not simdjson.Array:
        raise _Unsure
    for entry in entries:
        if type(entry) is not simdjson.Object:
            raise _Unsure
        made = _shallow(simdjson, entry, keep="data")
        if type(made.get("data")) is simdjson.Array:
            brackets += _read(made)
        inputs.append(made)
    # The lists that were looked at, and those outside of the data, are all that there are: so none is among the numbers.
    data = [made.pop("data", None) for made in inputs]
    message["inputs"] = inputs
    if b"\\" in body or _opened(body) != brackets + _brackets(message):
        raise _Unsure
    for made, values in zip(inputs, data, strict=True):
        if values is not None:
            made["data"] = values
    return message


def _opened(body: bytes | bytearray) -> int:
    """How many ``[`` there are. To look for the next one is fastest while they are few; ``bytes.count`` is slowest."""
    found, place = 0, body.find(b"[")
    while place >= 0 and found < _FEW:
        found, place = found + 1, body.find(b"[", place + 1)
    return found if place < 0 else int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))


def _shallow(simdjson: Any, proxy: Any, keep: str) -> dict[str, Any]:
    """An object as a dict, all of it but ``keep``."""
    found: dict[str, Any] = {}
    for key in proxy:
        if key in found:
            raise _Unsure  # which of them counts is the ordinary way's to say
        value = proxy[key]
        if key != keep and type(value) is simdjson.Array:
            value = value.as_list()
        elif key != keep and type(value) is simdjson.Object:
            value = value.as_dict()
        elif key == keep and type(value) is not simdjson.Array:
            raise _Unsure
        found[key] = value
    return found


def _read(entry: dict[str, Any]) -> int:
    """Make an input's data an array of its datatype; how many lists it was."""
    data, shape, datatype = entry["data"], entry.get("shape"), entry.get("datatype")
    if type(shape) is not list or not 0 < len(shape) <= _MAX_DIMENSIONS or type(datatype) is not str:
        raise _Unsure
    if datatype not in _KINDS or any(type(size) is not int or size <= 0 for size in shape):
        raise _Unsure
    kind, dtype = _KINDS[datatype]
    count = math.prod(shape)
    lists = _lists(data, shape) if len(data) and type(data[0]) is type(data) else 1
    values = np.frombuffer(data.as_buffer(of_type=kind), _WIDE[kind])
    if len(values) != count:
        raise _Unsure
    entry["data"] = _narrow(values, dtype)
    return lists


def _lists(data: Any, shape: list[int]) -> int:
    """How many lists ``data`` is, if it nests as ``shape`` says."""
    level, lists = [data], 1
    for size, inner in zip(shape, [*shape[1:], 0], strict=True):
        if any(len(item) != size for item in level):
            raise _Unsure
        if inner:
            level = [item for items in level for item in items]
            lists += len(level)
    return lists


def _narrow(values: Tensor, dtype: np.dtype[Any]) -> Tensor:
    if values.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise _Unsure
    with np.errstate(over="ignore"):  # becomes infinite, which the model's spec then allows or refuses
        return values.astype(dtype, copy=False)


def _brackets(value: Any) -> int:
    """How often the JSON of a value has ``[``."""
    if isinstance(value, str):
        return value.count("[")
    if isinstance(value, dict):
        return sum(key.count("[") + _brackets(item) for key, item in value.items())
    return 1 + sum(map(_brackets, value)) if isinstance(value, list) else 0
