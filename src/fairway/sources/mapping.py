"""Data columns to model inputs. All that does not fit is listed at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from fairway.core.tensors import Datatype, Tensor, TensorSpec

Plan: TypeAlias = Mapping[str, tuple[str, ...]]
"""The columns that fill each input, by the input's name."""

ElementShape: TypeAlias = Callable[[str], tuple[int, ...] | None]
"""The shape of a column's elements; ``None`` where it is the input that decides (an encoded image)."""

_LISTED = 40
_SHOWN = 100


@dataclass
class Problems:
    """What does not fit, gathered over any number of batches: how often, and from which row on, by what it is."""

    found: dict[str, tuple[int, int]] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, what: str, wrong: Tensor | None = None, offset: int = 0) -> None:
        """A problem; where some rows have it, ``wrong`` of shape ``[rows, ...]`` marks them, the first being row ``offset``.

        In ``what``, ``{count}`` stands for how many, and ``{first}`` for the first of these rows.
        """
        count, first = self.found.get(what, (0, -1))
        if wrong is not None:
            here = offset + int(wrong.reshape(len(wrong), -1).any(axis=1).argmax())
            count, first = count + int(wrong.sum()), here if first < 0 else first
        self.found[what] = (count, first)

    def add_shape(self, name: str, array: Tensor) -> None:
        """A column's lists must have one length in all batches, as they must within each."""
        known = self._shapes.setdefault(name, array.shape[1:])
        if known != array.shape[1:]:
            self.add(f"column {name!r} holds lists of different lengths; a tensor needs one length")

    def lines(self) -> list[str]:
        """One line per problem."""
        return [
            what.replace("{count}", f"{count:,}").replace("{first}", str(first))
            for what, (count, first) in self.found.items()
        ]

    def __str__(self) -> str:
        """All of them, as an error says them."""
        return "the data does not fit the model:" + listed(self.lines())


def listed(lines: Sequence[str]) -> str:
    """One line each, and how many more there are."""
    more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
    return "".join(f"\n- {line}" for line in [*lines[:_SHOWN], *more])


def plan_columns(
    specs: Sequence[TensorSpec],
    names: Sequence[str],
    scalars: Sequence[str],
    element_shape: ElementShape,
    problems: Problems,
) -> Plan:
    """Which columns fill which input.

    An input is filled by, in this order: the columns that its spec names; the column of its own name, if the sizes agree;
    all of ``scalars``, if it is the only input and takes as many floats per row; the only image, if it is the only input that
    takes more than one number.

    Parameters
    ----------
    specs : sequence of TensorSpec
        The model's inputs.
    names : sequence of str
        All columns.
    scalars : sequence of str
        The numeric columns with one number per row that may be features, in order.
    element_shape : callable
        Of a named column.
    problems : Problems
        Gets the inputs that nothing fills; the plan lacks them, or has those of their columns that are there.
    """
    plan: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        chosen = _choose(spec, names, scalars if len(specs) == 1 else (), element_shape)
        if isinstance(chosen, str):
            problems.add(f"input {chosen}")
            if present := tuple(name for name in spec.columns if name in names):
                plan[spec.name] = present
        else:
            plan[spec.name] = chosen
    return plan


def fill(spec: TensorSpec, arrays: Mapping[str, Tensor], problems: Problems, offset: int = 0) -> Tensor | None:
    """One input from its columns, or ``None`` where they do not fit.

    Parameters
    ----------
    spec : TensorSpec
    arrays : mapping of column name to array of shape ``[rows, ...]``
    problems : Problems
        Gets what does not fit.
    offset : int
        The data's row that is the first here.
    """
    cast = _bytes if spec.datatype is Datatype.BYTES else _numbers
    made: list[Tensor] = []
    for name, array in arrays.items():
        got = cast(array, spec)
        if isinstance(got, _Misfit):
            problems.add(f"column {name!r} {got.what} (input {spec.name!r}, {spec.datatype})", got.wrong, offset)
        else:
            made.append(got)
    if len(made) < len(arrays) or set(arrays) < set(spec.columns):
        return None
    joined = made[0] if len(made) == 1 else np.concatenate([each.reshape(len(each), -1) for each in made], axis=1)
    if not _fits(spec, joined.shape[1:]):
        columns = f"{len(made)} columns" if len(made) > 1 else f"column {next(iter(arrays))!r}"
        given = f"{math.prod(joined.shape[1:])} numbers per row of {columns}"
        problems.add(f"input {spec.name!r} takes {list(spec.shape)}, and the {given} do not fill it")
        return None
    trailing = spec.shape[1:]
    return np.ascontiguousarray(joined.reshape(len(joined), *trailing) if -1 not in trailing else joined)


def nearest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known name, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _choose(
    spec: TensorSpec, names: Sequence[str], scalars: Sequence[str], element_shape: ElementShape
) -> tuple[str, ...] | str:
    """The columns that fill ``spec``, or why there are none."""
    missing = [name for name in spec.columns if name not in names]
    if spec.columns and not missing:
        return spec.columns
    if spec.name in names and _fits(spec, element_shape(spec.name)):
        return (spec.name,)
    width = math.prod(spec.shape[1:])
    if not spec.columns and spec.datatype.is_float and width == len(scalars):
        return tuple(scalars)
    if missing:
        listed = ", ".join(f"{name!r}{nearest(name, names)}" for name in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        return f"{spec.name!r} needs the columns {listed}{more}, which are not there"
    images = [name for name in names if element_shape(name) is None]
    if len(images) == 1 and len(spec.shape) > 1 and spec.datatype is not Datatype.BYTES:
        return (images[0],)
    takes = f"{spec.datatype} {list(spec.shape)}"
    return (
        f"{spec.name!r} ({takes}) has no column of that name{nearest(spec.name, names)} and size, and the "
        f"{len(scalars)} numeric feature columns do not fill it. Name those that it takes, as in "
        f"features = ['pixel_*'] under [data]; the columns are: {', '.join(names[:_LISTED])}"
    )


def _fits(spec: TensorSpec, shape: tuple[int, ...] | None) -> bool:
    if shape is None:
        return True
    fixed = [size for size in spec.shape[1:] if size != -1]
    if len(fixed) == len(spec.shape[1:]):
        return math.prod(shape) == math.prod(fixed)
    return len(shape) + 1 == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape[1:], shape, strict=True)
    )


@dataclass(frozen=True)
class _Misfit:
    what: str
    wrong: Tensor | None = None


def _bytes(array: Tensor, _: TensorSpec) -> Tensor | _Misfit:
    flat = array.ravel()
    if array.dtype.kind not in "OSU" or not all(isinstance(item, str | bytes | None) for item in flat):
        return _Misfit(f"is {array.dtype}, not text")
    missing = np.array([item is None for item in flat], dtype=np.bool_).reshape(array.shape)
    if missing.any():
        return _Misfit("has {count} missing texts, first in row {first}; fill or drop them", missing)
    encoded = np.empty(len(flat), dtype=object)
    encoded[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
    return encoded.reshape(array.shape)


def _numbers(array: Tensor, spec: TensorSpec) -> Tensor | _Misfit:
    if array.dtype.kind not in "biuf":
        return _Misfit("holds text, not numbers" if array.dtype.kind in "OSU" else f"is {array.dtype}, not numbers")
    if spec.datatype.is_float:
        return _floats(array, spec)
    if array.dtype.kind == "f":
        broken = array != np.floor(array)  # NaN is not equal to itself
        if broken.any():
            return _Misfit("holds {count} fractions or missing values, first in row {first}, not whole numbers", broken)
    wrong = _out_of_range(array, spec.datatype)
    if wrong.any():
        return _Misfit("holds {count} numbers out of range, first in row {first}", wrong)
    return array.astype(spec.datatype.dtype)


def _out_of_range(array: Tensor, datatype: Datatype) -> Tensor:
    limits = (0, 1) if datatype is Datatype.BOOL else (np.iinfo(datatype.dtype).min, np.iinfo(datatype.dtype).max)
    low, high = map(int, limits)
    if array.dtype.kind == "b" or not array.size or (low <= int(array.min()) and int(array.max()) <= high):
        return np.zeros(array.shape, dtype=np.bool_)
    # Python's integers: NumPy would compare int64 and uint64 as floats
    return np.array([not low <= int(value) <= high for value in array.ravel().tolist()], dtype=np.bool_).reshape(
        array.shape
    )


def _floats(array: Tensor, spec: TensorSpec) -> Tensor | _Misfit:
    with np.errstate(over="ignore"):
        cast: Tensor = array.astype(spec.datatype.dtype)
    if spec.allow_nan:
        return cast
    finite = np.isfinite(cast)
    if not finite.all():
        return _Misfit("has {count} missing or infinite numbers, first in row {first}; impute or drop them", ~finite)
    return cast
