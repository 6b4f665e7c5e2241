"""Which rows belong together: the column ``[evaluate] group``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.evaluation.labels import missing_values
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.tallied import Tallied

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Scored
    from fairway.sources.tables import Table


def check_sampling(settings: EvaluationSettings, task: str) -> None:
    """Raise :class:`InvalidConfig` where ``group`` and ``stratified`` make no sense."""
    if settings.stratified and settings.group:
        raise InvalidConfig(
            "evaluate: 'stratified' and 'group' exclude each other: a group may hold rows of several classes, so their numbers "
            "are not fixed; keep one of them"
        )
    if settings.stratified and task != "classification":
        raise InvalidConfig(
            f"evaluate: 'stratified' keeps the rows per class, and {task} has not one class per row; drop it"
        )


def group_numbers(table: Table, column: str, what: str = "group") -> Classes:
    """The group of each row, numbered from 0; ``what`` is what errors call it.

    Raises
    ------
    InvalidData
        If there is no such column, it holds lists, or a value is missing.
    """
    values = table.column(column)
    if values.ndim > 1:
        raise InvalidData(f"{what} {column!r} in {table.origin} has {values.shape[1:]} values per row; one is needed")
    missing = missing_values(values)
    if missing.any():
        raise InvalidData(
            f"{what} {column!r} in {table.origin} is missing in {int(missing.sum()):,} of {len(values):,} rows, first in "
            f"row {int(missing.argmax())}; a row without others of its {what} needs a name of its own"
        )
    if values.dtype != object:
        return np.unique(values, return_inverse=True)[1].reshape(-1)
    everything = values.tolist()
    place = {value: number for number, value in enumerate(dict.fromkeys(everything))}
    return np.array([place[value] for value in everything], dtype=np.intp)


def grouped(rows: Scored, groups: Classes | None) -> Scored:
    """The same rows, knowing their groups."""
    if groups is None:
        return rows
    return rows.grouped(groups) if isinstance(rows, Tallied) else replace(rows, groups=groups)
