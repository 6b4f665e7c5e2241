"""Whether the data fit the models and the settings: asked first, and every mismatch said at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fairway.core.errors import FairwayError, InvalidConfig, InvalidData
from fairway.evaluation.groups import group_numbers
from fairway.evaluation.settings import EvaluationSettings, SliceSettings
from fairway.evaluation.tasks.base import Data
from fairway.evaluation.tasks.registry import find_task
from fairway.sources.mapping import listed

if TYPE_CHECKING:
    from fairway.model import Model
    from fairway.sources.tables import Table


def check_fit(
    models: Sequence[Model],
    table: Table,
    *,
    label: str,
    slices: Sequence[SliceSettings] = (),
    settings: EvaluationSettings | None = None,
) -> None:
    """Go through ``table`` once, before any inference.

    Raises
    ------
    InvalidData
        Listing all that does not fit: absent columns, text for numbers, missing values where a model takes none, labels that
        are missing or that the first model does not know, a group column that is absent or has holes, wrong slices.
    InvalidConfig
        If slices alone are wrong, or the task needs a setting that is not there.
    """
    settings = settings or EvaluationSettings()
    data, group = Data(table, label, settings), settings.group
    problems = _model_problems(models, table, label)
    task = find_task(models[0].manifest.task)
    try:
        task.check(models[0], data)
    except InvalidData as error:
        problems.append(str(error))
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


def _told(check: Callable[[], object], before: str = "") -> list[str]:
    try:
        check()
    except FairwayError as error:
        return [f"{before}{error}"]
    return []


def _listed(head: str, lines: Sequence[str]) -> str:
    return head + listed(lines)
