"""From a table's label column to class indices or true values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.tensors import Tensor

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats
    from fairway.sources.tables import Table

_SHOWN = 10


def label_column(table: Table, label: str) -> Tensor:
    """The label of every row. Raises :class:`InvalidData` if there are no rows, no such column, or a label is missing."""
    if table.rows == 0:
        raise InvalidData(f"{table.origin} has no rows: there is nothing to score")
    column = table.column(label)
    if column.ndim > 1:
        raise InvalidData(f"label {label!r} in {table.origin} has {column.shape[1:]} values per row; one is needed")
    missing = missing_values(column)
    if missing.any():
        raise InvalidData(
            f"label {label!r} in {table.origin} is missing in {int(missing.sum()):,} of {len(column):,} rows, first in "
            f"row {int(missing.argmax())}; fill them in or leave these rows out"
        )
    return column


def class_indices(values: Tensor, labels: Sequence[str], where: str) -> Classes:
    """Which of ``labels`` each value is: ``3``, ``3.0``, ``"3"`` and ``b"3"`` are the label ``"3"``.

    Raises
    ------
    InvalidData
        Listing the values that are no label.

    Examples
    --------
    >>> class_indices(np.array([1.0, 0.0]), ("0", "1"), "the data").tolist()
    [1, 0]
    """
    index = {label: position for position, label in enumerate(labels)}
    originals: list[Any]
    if values.dtype == object:
        everything = values.tolist()
        originals = list(dict.fromkeys(everything))
        place = {value: position for position, value in enumerate(originals)}
        inverse = np.array([place[value] for value in everything], dtype=np.intp)
    else:
        distinct, inverse = np.unique(values, return_inverse=True)
        originals = distinct.tolist()
    found = [next((index[form] for form in label_forms(value) if form in index), -1) for value in originals]
    if unknown := [label_forms(v)[0] for v, position in zip(originals, found, strict=True) if position < 0]:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise InvalidData(
            f"{where}: {', '.join(map(repr, unknown[:_SHOWN]))}{more} is no class of the model; "
            f"it knows {', '.join(map(repr, labels[:_SHOWN]))}{' …' if len(labels) > _SHOWN else ''}"
        )
    return np.asarray(found, dtype=np.intp)[inverse.reshape(-1)]


def label_forms(value: Any) -> tuple[str, ...]:
    """The ways in which a label may be written in a manifest, the plainest first."""
    if isinstance(value, bytes):
        return (value.decode("utf-8", "replace"),)
    if isinstance(value, bool):
        return (str(value), str(value).lower(), str(int(value)))
    if isinstance(value, int):
        return (str(value), f"{value}.0")
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)), str(value))
    return (str(value),)


def true_values(column: Tensor, where: str) -> Floats:
    """A numeric label. Raises :class:`InvalidData` if it is text or infinite."""
    if column.dtype.kind not in "fiub":
        raise InvalidData(f"{where} holds {column.dtype.name} values; regression needs numbers")
    values: Floats = column.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidData(f"{where} is infinite in row {int((~np.isfinite(values)).argmax())}")
    return values


def missing_values(column: Tensor) -> Any:
    """A mask of the rows without a value: NaN or ``None``."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype == object:
        return np.array(
            [value is None or (isinstance(value, float) and math.isnan(value)) for value in column], dtype=bool
        )
    return np.zeros(len(column), dtype=bool)
