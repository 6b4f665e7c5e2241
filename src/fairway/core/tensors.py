"""Tensors in the Open Inference Protocol's words: datatypes, specs, and the check of an array against a spec."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidRequest

Tensor: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Tensor]


class Datatype(StrEnum):
    """Tensor element types of the Open Inference Protocol (V2) that NumPy can hold.

    ``BYTES`` is held as an object array of ``bytes``, ``BF16`` as ``ml_dtypes.bfloat16``.

    Examples
    --------
    >>> Datatype.of(np.dtype("float32")), Datatype.FP16.dtype
    (<Datatype.FP32: 'FP32'>, dtype('float16'))
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype that holds this datatype."""
        return _DTYPES[self]

    @property
    def is_float(self) -> bool:
        """Whether values can be NaN or infinite."""
        return self.value.startswith(("FP", "BF"))

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> Datatype:
        """The datatype of a NumPy dtype; strings, bytes and objects are ``BYTES``. Raises ``ValueError`` if there is none."""
        if dtype.kind in "OSU":
            return cls.BYTES
        for datatype, known in _DTYPES.items():
            if known == dtype:
                return datatype
        raise ValueError(f"no V2 datatype for NumPy {dtype}")


_DTYPES: dict[Datatype, np.dtype[Any]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype(np.uint8),
    Datatype.UINT16: np.dtype(np.uint16),
    Datatype.UINT32: np.dtype(np.uint32),
    Datatype.UINT64: np.dtype(np.uint64),
    Datatype.INT8: np.dtype(np.int8),
    Datatype.INT16: np.dtype(np.int16),
    Datatype.INT32: np.dtype(np.int32),
    Datatype.INT64: np.dtype(np.int64),
    Datatype.FP16: np.dtype(np.float16),
    Datatype.BF16: np.dtype(ml_dtypes.bfloat16),
    Datatype.FP32: np.dtype(np.float32),
    Datatype.FP64: np.dtype(np.float64),
    Datatype.BYTES: np.dtype(np.object_),
}


def is_float(array: Tensor) -> bool:
    """Whether values can be NaN or infinite; of BF16, too, whose ``kind`` is not that of NumPy's own floats.

    Examples
    --------
    >>> is_float(np.zeros(1, Datatype.BF16.dtype)), is_float(np.zeros(1, np.float16)), is_float(np.zeros(1, np.int8))
    (True, True, False)
    """
    return array.dtype.kind == "f" or array.dtype == _DTYPES[Datatype.BF16]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input or output of a model.

    Attributes
    ----------
    name, datatype
        As in the protocol's model metadata.
    shape : tuple of int
        ``-1`` is any size. The first axis is rows (the batch) unless the manifest says that the model does not batch.
    columns : tuple of str
        For tabular inputs: the data columns that fill the last axis, in order. Empty if unknown.
    allow_nan : bool, default False
        Whether NaN and infinities mean something to the model (a missing value, say). If not, they are refused.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    allow_nan: bool = False

    def check(self, array: Tensor) -> None:
        """Raise :class:`InvalidRequest`, saying what was expected, unless ``array`` fits this spec.

        Examples
        --------
        >>> TensorSpec("x", Datatype.FP32, (-1, 2)).check(np.zeros((3, 4), np.float32))
        Traceback (most recent call last):
        ...
        fairway.core.errors.InvalidRequest: input 'x' has shape [3, 4], but the model takes [-1, 2]
        """
        if array.dtype != self.datatype.dtype:
            sent = Datatype.of(array.dtype)
            raise InvalidRequest(f"input {self.name!r} is {sent}, but the model takes {self.datatype}")
        self.check_shape(array.shape)
        if self.datatype.is_float and not self.allow_nan and not np.isfinite(array).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise InvalidRequest(
                f"input {self.name!r} holds {array[tuple(where)]} at index {where}; this model takes finite numbers only: "
                "impute missing values before sending"
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise :class:`InvalidRequest` unless ``shape`` fits."""
        if len(shape) != len(self.shape) or any(
            want not in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        ):
            raise InvalidRequest(f"input {self.name!r} has shape {list(shape)}, but the model takes {list(self.shape)}")
