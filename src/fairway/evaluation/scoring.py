"""Run models over a table and set their answers beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairway.core.mapping import THREADS, Mapper
from fairway.evaluation.predictions import Progress, Scored
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.tasks.base import Data
from fairway.evaluation.tasks.registry import find_task

if TYPE_CHECKING:
    from fairway.model import Model
    from fairway.sources.tables import Table


def score_models(
    models: Sequence[Model],
    table: Table,
    *,
    label: str,
    settings: EvaluationSettings | None = None,
    progress: Progress | None = None,
    mapper: Mapper = THREADS,
) -> list[Scored]:
    """Score every row of ``table`` by each of ``models``, which are of one task.

    Raises
    ------
    InvalidData
        If the table does not fit a model's inputs, or its labels are missing or unknown to the first model.
    InvalidConfig
        If the task needs a setting that is not there.
    InvalidBundle, InferenceFailed
        If the answers cannot be scored.
    """
    task = find_task(models[0].manifest.task)
    data = Data(table, label, settings or EvaluationSettings(), progress, mapper)
    truth = task.read(data)
    return task.score(truth, [task.ask(model, data) for model in models], models, data)
