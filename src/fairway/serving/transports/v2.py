"""What the Open Inference Protocol's wires share, REST and gRPC alike: tensors as raw bytes, and what is asked of an output.

Raw bytes are the tensor's values in row-major order, little-endian: BOOL takes 1 byte, BF16 takes 2, and each element of BYTES
is its length in 4 bytes and then its data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from fairway.core.errors import InferenceFailed, InvalidRequest
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.classification import classify

__all__ = ["Buffer", "OutputOptions", "Region", "Reply", "classify", "tensor_from_bytes", "tensor_to_bytes"]

Buffer: TypeAlias = bytes | bytearray | memoryview

_LENGTH = struct.Struct("<I")
_BOOL = np.dtype(np.bool_)
_OBJECT = np.dtype(np.object_)


class Region(msgspec.Struct, frozen=True):
    """A part of a registered shared memory region: ``byte_size`` bytes from ``offset`` bytes on."""

    name: str
    byte_size: int
    offset: int = 0


class OutputOptions(msgspec.Struct, frozen=True):
    """One entry of a request's ``outputs``.

    Attributes
    ----------
    name : str
    binary : bool or None, default None
        Whether the values come as raw bytes; ``None``: the request does not say.
    classification : int, default 0
        How many of the best classes are wanted in place of the values; 0: the values.
    region : Region or None, default None
        Where to put the values in place of the answer.
    """

    name: str
    binary: bool | None = None
    classification: int = 0
    region: Region | None = None


class Reply(msgspec.Struct, frozen=True):
    """How a request wants its answer, beyond JSON with the values of its outputs.

    Attributes
    ----------
    options : mapping of name to OutputOptions
        Of the outputs that it lists.
    binary : bool, default False
        Whether the other outputs come as raw bytes.
    labels : sequence of str
        Of the classes of the version that answers.
    batched : bool, default True
        Whether the first axis of that version's outputs is rows.
    """

    options: Mapping[str, OutputOptions] = {}
    binary: bool = False
    labels: Sequence[str] = ()
    batched: bool = True

    @property
    def classifies(self) -> bool:
        """Whether any output is wanted as classes."""
        return any(option.classification for option in self.options.values())


def tensor_from_bytes(name: str, datatype: Datatype, shape: Sequence[int], buffer: Buffer) -> Tensor:
    """An input from its raw bytes: a view of ``buffer`` where its alignment allows, never more memory than was received.

    Parameters
    ----------
    name : str
        For the error's text.
    datatype : Datatype
    shape : sequence of int
        Sizes of 0 or more.
    buffer : bytes-like

    Raises
    ------
    InvalidRequest
        If ``buffer`` does not hold exactly as many values as ``shape`` says.

    Examples
    --------
    >>> tensor_from_bytes("x", Datatype.INT16, (2,), bytes([1, 0, 2, 0]))
    array([1, 2], dtype=int16)
    """
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        array = _strings(name, shape, count, buffer)
    else:
        dtype = datatype.dtype
        if count * dtype.itemsize != len(buffer):
            raise InvalidRequest(
                f"input {name!r} is {datatype} of shape {list(shape)}, which takes {count * dtype.itemsize} bytes, "
                f"but {len(buffer)} were sent"
            )
        array = np.frombuffer(buffer, dtype)
        if dtype == _BOOL:
            array = _zero_or_one(array)
        elif not array.flags.aligned:  # engines may read it with instructions that need that
            array = array.copy()
    try:
        return array.reshape(shape)
    except ValueError:  # no values, but sizes beyond what an array can have
        raise InvalidRequest(f"input {name!r} cannot have shape {list(shape)}; send a smaller one") from None


def tensor_to_bytes(tensor: Tensor) -> bytes | memoryview:
    """A tensor's raw bytes: a view of its memory where that is contiguous.

    Raises
    ------
    InferenceFailed
        If an element of BYTES has 4 GiB or more, which the form cannot tell.

    Examples
    --------
    >>> list(tensor_to_bytes(np.array([b"a"], dtype=object)))
    [1, 0, 0, 0, 97]
    """
    if tensor.dtype.kind in "OSU":
        return _packed(tensor)
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data


def _zero_or_one(array: Tensor) -> Tensor:
    """Any other byte is true, as in C; left as it is, it would be neither true nor false to NumPy."""
    numbers = array.view(np.uint8)
    return numbers != 0 if numbers.size and numbers.max() > 1 else array


def _strings(name: str, shape: Sequence[int], count: int, buffer: Buffer) -> Tensor:
    size = len(buffer)
    if 4 * count > size:
        raise InvalidRequest(
            f"input {name!r} of shape {list(shape)} takes {count} strings, but {size} bytes cannot hold as many; each is "
            "sent as its length in 4 bytes and its data"
        )
    array = np.empty(count, _OBJECT)
    data, start = bytes(buffer), 0
    for index in range(count):
        end = start + 4
        if end > size:
            raise _cut_short(name, index)
        start, end = end, end + _LENGTH.unpack_from(data, start)[0]
        if end > size:
            raise _cut_short(name, index)
        array[index] = data[start:end]
        start = end
    if start != size:
        raise InvalidRequest(
            f"input {name!r} of shape {list(shape)} takes {count} strings, but {size - start} bytes follow the last"
        )
    return array


def _cut_short(name: str, index: int) -> InvalidRequest:
    return InvalidRequest(
        f"string {index} of input {name!r} is cut short; each is sent as its length in 4 bytes, little-endian, and its data"
    )


def _packed(tensor: Tensor) -> bytes:
    parts: list[bytes] = []
    for item in tensor.ravel():
        data = item if isinstance(item, bytes) else str(item).encode()
        if len(data) >= 2**32:
            raise InferenceFailed("an output's string has 4 GiB or more, which no answer can carry")
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)
