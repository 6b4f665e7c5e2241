"""What a check finds, and what it looks at."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from fairway.evaluation.estimates import Estimate
from fairway.evaluation.labels import missing_values

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Floats, Mask
    from fairway.sources.tables import Table

MOST_COLUMNS = 256
"""Columns of numbers that the costlier checks look at; the elements of an array count one by one."""
_CATEGORIES = 50
_SIDE = 8


class Severity(StrEnum):
    """How much a finding matters.

    ``problem``: the report's numbers cannot be trusted; ``warning``: look before you trust them; ``note``: worth knowing;
    ``fine``: looked for and not found; ``skipped``: not looked for, and why.
    """

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"
    FINE = "fine"
    SKIPPED = "skipped"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question about the data, and the answer.

    Attributes
    ----------
    name : str
    severity : Severity
    finding : str
        One sentence.
    advice : str
        What to do.
    rows : tuple of int
        Rows of the test data, from 0, as examples; at most ten.
    columns : tuple of str
        At most ten.
    value : Estimate or None
    p_value : float or None
    """

    name: str
    severity: Severity
    finding: str
    advice: str = ""
    rows: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    value: Estimate | None = None
    p_value: float | None = None


class Encoded(NamedTuple):
    """Columns as numbers: ``matrix`` of shape (rows, columns), the name of each, and whether it is numeric by nature."""

    matrix: Floats
    names: tuple[str, ...]
    numeric: tuple[bool, ...]


def without_reference(name: str, looked: Looked) -> Check:
    """A check that cannot be made."""
    reason = "there is no reference data" if looked.subject.reference is None else "the reference lacks columns"
    return Check(name, Severity.SKIPPED, f"Not looked for: {reason}.", "Name the training data: [data] reference.")


def examples(mask: Mask) -> tuple[int, ...]:
    """The first ten places of a mask."""
    return tuple(np.flatnonzero(mask)[:10].tolist())


def counted(number: int, noun: str, one: str, many: str) -> str:
    """The subject and verb of a finding about a number of things.

    Examples
    --------
    >>> counted(1, "column", "has", "have"), counted(2000, "column", "has", "have")
    ('1 column has', '2,000 columns have')
    """
    return f"1 {noun} {one}" if number == 1 else f"{number:,} {noun}s {many}"


def percent(share: float) -> str:
    """A share in words, with three digits."""
    return f"{100 * share:.3g} %"


class Looked(NamedTuple):
    """What checks look at.

    Attributes
    ----------
    subject : Subject
    columns : tuple of str
        Those that the model reads.
    places : int array
        Of the rows of ``test`` in the whole table.
    test : Table
        A sample of the test rows, in memory.
    reference : Table or None
        A sample of the reference rows, if there are any and they have all ``columns``.
    """

    subject: Subject
    columns: tuple[str, ...]
    places: Classes
    test: Table
    reference: Table | None


ROWS = 20_000
"""Rows of either side that all checks but the hashing look at."""


def look(subject: Subject) -> Looked:
    """Draw the samples."""
    columns = subject.table.needed(subject.model.inputs, label=subject.label)
    seed, reference = subject.settings.seed, subject.reference
    places = sampled(subject.table.rows, ROWS, seed)
    usable = reference is not None and set(columns) <= set(reference.columns)
    return Looked(
        subject,
        columns,
        places,
        subject.table.select(places),
        reference.select(sampled(reference.rows, ROWS, seed + 1)) if reference is not None and usable else None,
    )


def sampled(rows: int, most: int, seed: int) -> Classes:
    """Places of at most ``most`` rows, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng([seed, 51]).choice(rows, most, replace=False))


def encoded(tables: list[Table], columns: tuple[str, ...]) -> list[Encoded]:
    """The columns of several tables of few rows, as numbers that mean the same in each.

    Numbers stay; booleans are 0 and 1; a text of few kinds becomes its kind's number; a longer text its length and its number
    of words; an array its elements, an image the means of 8 by 8 patches. Missing values are NaN.
    """
    parts: list[list[Floats]] = [[] for _ in tables]
    names: list[str] = []
    numeric: list[bool] = []
    for name in columns:
        if len(names) >= MOST_COLUMNS:
            break
        arrays = [table.column(name) for table in tables]
        made, labels, number = _encoded_column(name, arrays)
        if made:
            names += labels
            numeric += [number] * len(labels)
            for part, one in zip(parts, made, strict=True):
                part.append(one)
    empty = [np.empty((table.rows, 0)) for table in tables]
    whole = [np.concatenate(part, axis=1) if part else none for part, none in zip(parts, empty, strict=True)]
    return [Encoded(one[:, :MOST_COLUMNS], tuple(names[:MOST_COLUMNS]), tuple(numeric[:MOST_COLUMNS])) for one in whole]


def _encoded_column(name: str, arrays: list[Tensor]) -> tuple[list[Floats], list[str], bool]:
    if all(array.dtype.kind in "biuf" for array in arrays):
        flat = [_pooled(array).reshape(len(array), -1).astype(np.float64) for array in arrays]
        width = min(one.shape[1] for one in flat)
        labels = [name] if width == 1 else [f"{name}[{place}]" for place in range(width)]
        return [one[:, :width] for one in flat], labels, True
    if any(array.ndim > 1 or array.dtype.kind not in "OSU" for array in arrays):
        return [], [], False
    gone = [missing_values(array) for array in arrays]
    kinds = dict.fromkeys(
        str(v) for array, m in zip(arrays, gone, strict=True) for v, x in zip(array, m, strict=True) if not x
    )
    if len(kinds) <= _CATEGORIES:
        place = {kind: number for number, kind in enumerate(sorted(kinds))}
        codes = [np.array([place.get(str(v), np.nan) for v in array])[:, None] for array in arrays]
        return codes, [name], False
    sizes = [np.array([[len(str(v)), len(str(v).split())] for v in array], dtype=np.float64) for array in arrays]
    return sizes, [f"length of {name}", f"words in {name}"], False


def _pooled(array: Tensor) -> Tensor:
    """An image (at least 16 by 16) as the means of 8 by 8 patches."""
    if array.ndim < 3:
        return array
    axes = [axis for axis in range(1, array.ndim) if array.shape[axis] >= 2 * _SIDE][:2]
    if len(axes) < 2:
        return array
    made = array.astype(np.float64)
    for axis in axes:
        edges = np.linspace(0, made.shape[axis], _SIDE + 1).astype(int)[:-1]
        made = np.add.reduceat(made, edges, axis=axis)
    other = tuple(axis for axis in range(1, array.ndim) if axis not in axes)
    pooled: Tensor = made.mean(axis=other)
    return pooled
