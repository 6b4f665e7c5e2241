"""Tensors in the protocol's JSON and binary forms, written from the specification alone: an oracle for any server."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairway.testing.conformance.case import Unmet

Array: TypeAlias = NDArray[Any]

DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<u2",  # as its bits
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": "O",
}
BINARY_ONLY = ("FP16", "BF16")
"""What Triton's binary extension carries and JSON does not."""


@dataclass(frozen=True)
class Tensor:
    """A named array; ``parameters`` of a request's input, or of an answer's output."""

    name: str
    datatype: str
    array: Array
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> list[int]:
        """As the protocol writes it."""
        return list(self.array.shape)

    def as_json(self) -> dict[str, Any]:
        """With its values as one flat list."""
        values = [_text(v) if self.datatype == "BYTES" else v.item() for v in self.array.ravel()]
        return self._head() | {"data": values}

    def as_binary(self) -> tuple[dict[str, Any], bytes]:
        """Without values, and the bytes that follow."""
        blob = to_bytes(self)
        head = self._head()
        head["parameters"] = {**self.parameters, "binary_data_size": len(blob)}
        return head, blob

    def _head(self) -> dict[str, Any]:
        head: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": self.shape}
        return head | {"parameters": dict(self.parameters)} if self.parameters else head


def tensor(name: str, datatype: str, values: Any, shape: Sequence[int] | None = None) -> Tensor:
    """A tensor of ``values``; BYTES from ``bytes``, BF16 from its 16 bits."""
    if datatype == "BYTES":
        flat = np.empty(len(values), object)
        flat[:] = values
        return Tensor(name, datatype, flat.reshape(shape if shape is not None else (len(values),)))
    array = np.asarray(values, DTYPES[datatype])
    return Tensor(name, datatype, array if shape is None else array.reshape(shape))


def to_bytes(given: Tensor) -> bytes:
    """Row-major, little-endian; BYTES elements each after its length in four bytes."""
    if given.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in given.array.ravel())
    return given.array.tobytes()


def from_bytes(name: str, datatype: str, shape: Sequence[int], blob: bytes) -> Tensor:
    """Raise :class:`Unmet` where the bytes do not fill the shape exactly."""
    count = int(np.prod(shape, dtype=np.int64))
    if datatype != "BYTES":
        dtype = np.dtype(DTYPES[datatype])
        if len(blob) != count * dtype.itemsize:
            raise Unmet(
                f"output {name!r} has {len(blob)} bytes, but {datatype} {list(shape)} takes {count * dtype.itemsize}"
            )
        return Tensor(name, datatype, np.frombuffer(blob, dtype).reshape(shape))
    items, at = [], 0
    while at < len(blob):
        (size,) = struct.unpack_from("<I", blob, at)
        items.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    if len(items) != count or at != len(blob):
        raise Unmet(f"output {name!r} holds {len(items)} strings in {len(blob)} bytes, but its shape is {list(shape)}")
    return tensor(name, datatype, items, shape)


def from_json(output: Mapping[str, Any]) -> Tensor:
    """An output with ``data``; nested lists are read in order."""
    name, datatype, shape = output["name"], output["datatype"], output["shape"]
    if datatype not in DTYPES:
        raise Unmet(f"output {name!r} has the unknown datatype {datatype!r}")
    values = list(_flat(output["data"]))
    if len(values) != int(np.prod(shape, dtype=np.int64)):
        raise Unmet(f"output {name!r} has {len(values)} values, but its shape is {shape}")
    if datatype == "BYTES":
        return tensor(name, datatype, [v.encode() for v in values], shape)
    if datatype == "BOOL" and not all(isinstance(v, bool) for v in values):
        raise Unmet(f"output {name!r} is BOOL, but its data are not all true or false")
    if datatype.startswith(("INT", "UINT")) and not all(isinstance(v, int) for v in values):
        raise Unmet(f"output {name!r} is {datatype}, but its data are not all integers")
    wanted = [np.nan if v is None else v for v in values] if "FP" in datatype else values
    return Tensor(name, datatype, np.array(wanted, DTYPES[datatype]).reshape(shape), output.get("parameters", {}))


def same(found: Tensor, wanted: Tensor) -> None:
    """Raise :class:`Unmet` unless datatype, shape and every value are equal; NaN equals NaN."""
    if found.datatype != wanted.datatype:
        raise Unmet(f"output {found.name!r} is {found.datatype}, not {wanted.datatype}")
    if found.shape != wanted.shape:
        raise Unmet(f"output {found.name!r} has shape {found.shape}, not {wanted.shape}")
    numbers = wanted.array.dtype.kind == "f"
    if not np.array_equal(found.array, wanted.array, equal_nan=numbers):
        raise Unmet(f"output {found.name!r} holds {_some(found)}, not {_some(wanted)}")


def join(head: Mapping[str, Any], blobs: Sequence[bytes]) -> tuple[bytes, int]:
    """A binary request's body, and the length of its JSON."""
    text = json.dumps(head).encode()
    return b"".join([text, *blobs]), len(text)


def _some(given: Tensor) -> str:
    return str(given.array.ravel()[:8].tolist())


def _flat(data: Any) -> Any:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
