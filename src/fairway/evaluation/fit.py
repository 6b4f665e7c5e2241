"""Whether the data fit the models and the settings: asked first, and every mismatch said at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fairway.core.errors import FairwayError, InvalidConfig, InvalidData
from fairway.evaluation.groups import group_numbers
from fairway.evaluation.labels import class_indices, label_column, true_values
from fairway.evaluation.settings import SliceSettings
from fairway.sources.mapping import listed

if TYPE_CHECKING:
    from fairway.model import Model
    from fairway.sources.tables import Table


def check_fit(
    models: Sequence[Model], table: Table, *, label: str, slices: Sequence[SliceSettings] = (), group: str = ""
) -> None:
    """Go through ``table`` once, before any inference.

    Raises
    ------
    InvalidData
        Listing all that does not fit: absent columns, text for numbers, missing values where a model takes none, labels that
        are missing or that the first model does not know, a group column that is absent or has holes, wrong slices.
    InvalidConfig
        If slices alone are wrong.
    """
    problems = _model_problems(models, table, label)
    problems += _told(lambda: _check_label(models[0], table, label))
    if group:
        problems += _told(lambda: group_numbers(table, group))
    wrong = [line for each in slices for line in _told(partial(table.mask, each.where), f"slice {each.name!r}: ")]
    if problems:
        raise InvalidData(_listed(f"{table.origin}: the data does not fit the model:", [*problems, *wrong]))
    if wrong:
        raise InvalidConfig(_listed(f"{table.origin}: conditions that cannot be applied:", wrong))


def _model_problems(models: Sequence[Model], table: Table, label: str) -> list[str]:
    """Of all models; models that take the same are gone through once."""
    lines: list[str] = []
    for takes in dict.fromkeys(model.inputs for model in models):
        lines += table.problems(takes, label=label)
    return list(dict.fromkeys(lines))


def _check_label(model: Model, table: Table, label: str) -> None:
    column, where = label_column(table, label), f"label {label!r} in {table.origin}"
    if model.manifest.task == "regression":
        true_values(column, where)
    elif model.manifest.task == "classification" and model.manifest.labels:
        class_indices(column, model.manifest.labels, where)


def _told(check: Callable[[], object], before: str = "") -> list[str]:
    try:
        check()
    except FairwayError as error:
        return [f"{before}{error}"]
    return []


def _listed(head: str, lines: Sequence[str]) -> str:
    return head + listed(lines)
