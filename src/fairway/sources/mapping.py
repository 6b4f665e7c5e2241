"""Data columns to model inputs. All that does not fit is listed at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.tensors import Datatype, Tensor, TensorSpec

Column = Callable[[str], Tensor]


def map_columns(
    specs: Sequence[TensorSpec], names: Sequence[str], scalars: Sequence[str], column: Column
) -> dict[str, Tensor]:
    """Fill every input from a table's columns.

    An input is filled by, in this order: the columns that its spec names; the column of its own name, if the sizes agree;
    all of ``scalars``, if it is the only input and takes as many floats per row.

    Parameters
    ----------
    specs : sequence of TensorSpec
        The model's inputs.
    names : sequence of str
        All columns.
    scalars : sequence of str
        The numeric columns with one number per row that may be features, in order.
    column : callable
        Gives the array of a named column.

    Raises
    ------
    InvalidData
        With one line per problem.
    """
    feed: dict[str, Tensor] = {}
    problems: list[str] = []
    for spec in specs:
        chosen = _choose(spec, names, scalars if len(specs) == 1 else (), column)
        if isinstance(chosen, str):
            problems.append(chosen)
            continue
        arrays, wrong = _cast_all(spec, {name: column(name) for name in chosen})
        problems += wrong
        if not wrong:
            feed[spec.name] = _arrange(spec, arrays)
    if problems:
        raise InvalidData("the data does not fit the model:\n" + "\n".join(f"- {problem}" for problem in problems))
    return feed


def nearest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _choose(spec: TensorSpec, names: Sequence[str], scalars: Sequence[str], column: Column) -> tuple[str, ...] | str:
    """The columns that fill ``spec``, or why there are none."""
    missing = [name for name in spec.columns if name not in names]
    if spec.columns and not missing:
        return spec.columns
    if spec.name in names and _fits(spec, column(spec.name)):
        return (spec.name,)
    width = math.prod(spec.shape[1:])
    if not spec.columns and spec.datatype.is_float and width == len(scalars):
        return tuple(scalars)
    if missing:
        listed = ", ".join(f"{name!r}{nearest(name, names)}" for name in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        return f"input {spec.name!r} needs the columns {listed}{more}, which are not there"
    takes = f"{spec.datatype} {list(spec.shape)}"
    return (
        f"input {spec.name!r} ({takes}) has no column of that name{nearest(spec.name, names)} and size, and the "
        f"{len(scalars)} numeric feature columns do not fill it. Name those that it takes, as in "
        f"features = ['pixel_*'] under [data]; the columns are: {', '.join(names[:_LISTED])}"
    )


_LISTED = 40


def _fits(spec: TensorSpec, array: Tensor) -> bool:
    fixed = [size for size in spec.shape[1:] if size != -1]
    size = math.prod(array.shape[1:])
    if len(fixed) == len(spec.shape[1:]):
        return size == math.prod(fixed)
    return array.ndim == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape[1:], array.shape[1:], strict=True)
    )


def _arrange(spec: TensorSpec, arrays: list[Tensor]) -> Tensor:
    joined = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    trailing = spec.shape[1:]
    return np.ascontiguousarray(joined.reshape(len(joined), *trailing) if -1 not in trailing else joined)


def _cast_all(spec: TensorSpec, arrays: Mapping[str, Tensor]) -> tuple[list[Tensor], list[str]]:
    made: list[Tensor] = []
    problems: list[str] = []
    for name, array in arrays.items():
        cast = _bytes(array) if spec.datatype is Datatype.BYTES else _numbers(array, spec)
        if isinstance(cast, str):
            problems.append(f"column {name!r} {cast} (input {spec.name!r}, {spec.datatype})")
        else:
            made.append(cast)
    if not problems and len(made) > 1 and math.prod(spec.shape[1:]) not in (len(made), -1):
        problems.append(f"input {spec.name!r} takes {list(spec.shape)}, but {len(made)} columns are named for it")
    return made, problems


def _bytes(array: Tensor) -> Tensor | str:
    flat = array.ravel()
    if array.dtype.kind not in "OSU" or not all(isinstance(item, str | bytes | None) for item in flat):
        return f"is {array.dtype}, not text"
    if missing := sum(item is None for item in flat):
        return f"has {missing} missing texts; fill or drop them"
    encoded = np.empty(len(flat), dtype=object)
    encoded[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
    return encoded.reshape(array.shape)


def _numbers(array: Tensor, spec: TensorSpec) -> Tensor | str:
    if array.dtype.kind not in "biuf":
        return "holds text, not numbers" if array.dtype.kind in "OSU" else f"is {array.dtype}, not numbers"
    if spec.datatype.is_float:
        return _floats(array, spec)
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):  # NaN is not equal to itself
        return "holds fractions or missing values, not whole numbers"
    if len(array) and not _in_range(array, spec.datatype):
        return "holds numbers out of range"
    return array.astype(spec.datatype.dtype)


def _in_range(array: Tensor, datatype: Datatype) -> bool:
    if array.dtype.kind == "b":
        return True
    low, high = (0, 1) if datatype is Datatype.BOOL else (np.iinfo(datatype.dtype).min, np.iinfo(datatype.dtype).max)
    return bool(low <= int(array.min()) and int(array.max()) <= high)


def _floats(array: Tensor, spec: TensorSpec) -> Tensor | str:
    with np.errstate(over="ignore"):
        cast: Tensor = array.astype(spec.datatype.dtype)
    if spec.allow_nan:
        return cast
    finite = np.isfinite(cast)
    if not finite.all():
        first = int(np.argwhere(~finite)[0][0])
        return f"has {int((~finite).sum())} missing or infinite numbers, first in row {first}; impute or drop them"
    return cast
