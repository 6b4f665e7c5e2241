"""The rows that the model gets most wrong: to look at, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fairway.sources.tables import plain_column

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject
    from fairway.sources.tables import Table

_SHOWN = 10
_COLUMNS = 6
_TEXT = 60


class ErrorExample(msgspec.Struct, frozen=True):
    """One row that the model gets wrong.

    ``row`` counts from 0. ``badness`` is what the rows are ordered by, higher being worse: of a classifier the negative log
    probability of the label, in nats; of a regressor the absolute error; each task says its own. ``values`` are some of the
    row's columns, shortened.
    """

    row: int
    label: str
    predicted: str
    badness: float
    values: dict[str, str]


def analyse(subject: Subject) -> tuple[ErrorExample, ...]:
    """The worst rows, worst first, at most ten; none that the model gets right."""
    rows = subject.rows
    badness = np.where(rows.right(), -1.0, rows.badness())
    worst = np.argsort(-badness, kind="stable")[:_SHOWN]
    worst = worst[badness[worst] >= 0]
    values = _values(subject, worst)
    return tuple(
        ErrorExample(int(row), *rows.said(int(row)), float(badness[row]), shown)
        for row, shown in zip(worst, values, strict=True)
    )


def _values(subject: Subject, rows: Any) -> list[dict[str, str]]:
    names = [name for name in subject.table.columns if name != subject.label][:_COLUMNS]
    chosen = subject.table.select(rows)
    columns = {name: _column(chosen, name) for name in names}
    return [{name: _short(column[place]) for name, column in columns.items()} for place in range(len(rows))]


def _column(table: Table, name: str) -> Any:
    values = plain_column(table, name)
    return table.arrow.column(name).to_pylist() if values is None else values


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return _short(", ".join(map(str, value)))
    array = np.asarray(value)
    if array.ndim:
        return f"{array.dtype} {list(array.shape)}"
    text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
