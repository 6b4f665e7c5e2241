"""One Arrow column to a NumPy array and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.tensors import Tensor


def to_numpy(column: Any, name: str) -> Tensor:
    """A ``pyarrow.Array`` or ``ChunkedArray`` as an array of shape ``[rows, ...]``.

    Nulls among numbers become NaN (and the column float64); strings are ``str`` objects, null strings ``None``; lists must
    all have one length and become further axes; encoded images are their paths. Raises :class:`InvalidData` naming the column
    where that cannot be.
    """
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return _array(column, name)
    chunks = column.chunks
    return _array(pa.concat_arrays(chunks) if chunks else pa.array([], column.type), name)


def from_numpy(array: Tensor) -> Any:
    """An array of shape ``[rows, ...]`` as a ``pyarrow.Array``: further axes become fixed-size lists, NaN becomes null."""
    import pyarrow as pa

    if array.ndim == 0:
        raise InvalidData("a single number is not a column; give one value per row")
    if array.ndim == 1:
        return pa.array(array, from_pandas=True)
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), from_pandas=True)
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def is_image(kind: Any) -> bool:
    """Whether an Arrow type holds encoded images: a struct of ``bytes`` and ``path``, as in Hugging Face's data sets."""
    from pyarrow import types

    if not types.is_struct(kind) or kind.num_fields != 2:
        return False
    first, second = sorted((kind.field(0), kind.field(1)), key=lambda field: str(field.name))
    binary = types.is_binary(first.type) or types.is_large_binary(first.type)
    return (first.name, second.name) == ("bytes", "path") and binary


def is_words(kind: Any) -> bool:
    """Whether an Arrow type holds lists of any number of texts: the words of a text, say."""
    from pyarrow import types

    if not (types.is_list(kind) or types.is_large_list(kind)):
        return False
    return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))


def joined_words(column: Any) -> Any:
    """A column of words as one of texts, a space between words; any other column as it is."""
    import pyarrow.compute as pc

    return pc.binary_join(column, " ") if is_words(column.type) else column


def _array(array: Any, name: str) -> Tensor:
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if is_image(kind):
        return _array(array.field("path"), name)
    if types.is_dictionary(kind):
        return _array(array.cast(kind.value_type), name)
    if types.is_null(kind):
        return np.full(len(array), math.nan)
    if types.is_decimal(kind):
        return _array(array.cast(pa.float64()), name)
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _lists(array, name)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return _numbers(array)
    plain: Tensor = array.to_numpy(zero_copy_only=False)
    return plain


def _numbers(array: Any) -> Tensor:
    import pyarrow as pa
    from pyarrow import types

    if array.null_count and types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if array.null_count:
        kept = array.type if types.is_floating(array.type) else pa.float64()
        # not every integer fits a float64; one beside a missing value is read as nearly as it can be
        array = array.cast(kept, safe=False).fill_null(math.nan)
    numbers: Tensor = array.to_numpy(zero_copy_only=False)
    return numbers


def _lists(array: Any, name: str) -> Tensor:
    import pyarrow.compute as pc

    if array.null_count:
        raise InvalidData(f"column {name!r} lacks its list in {array.null_count} rows; drop these rows or fill them")
    lengths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(lengths) > 1:
        raise InvalidData(f"column {name!r} holds lists of {len(lengths)} different lengths; a tensor needs one length")
    values = _array(array.flatten(), name)
    size = lengths[0] if lengths else getattr(array.type, "list_size", 0)
    return values.reshape(len(array), size, *values.shape[1:])
