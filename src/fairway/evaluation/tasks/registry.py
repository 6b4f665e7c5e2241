"""Every task by its name, in the order in which they are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.evaluation.tasks.base import Task
from fairway.evaluation.tasks.classification import Classification
from fairway.evaluation.tasks.detection import Detection
from fairway.evaluation.tasks.generation import Generation
from fairway.evaluation.tasks.multilabel import MultiLabel
from fairway.evaluation.tasks.ranking import Ranking
from fairway.evaluation.tasks.regression import Regression
from fairway.evaluation.tasks.segmentation import Segmentation
from fairway.evaluation.tasks.similarity import Similarity
from fairway.evaluation.tasks.tokens import TokenClassification
from fairway.sources.mapping import nearest

if TYPE_CHECKING:
    from fairway.model import Model

_KNOWN: tuple[Task, ...] = (
    Classification(),
    MultiLabel(),
    Regression(),
    Ranking(),
    TokenClassification(),
    Similarity(),
    Generation(),
    Segmentation(),
    Detection(),
)
TASKS: dict[str, Task] = {task.name: task for task in _KNOWN}


def find_task(name: str) -> Task:
    """The task of that name. Raises :class:`InvalidConfig` listing those that there are."""
    if name not in TASKS:
        raise InvalidConfig(f"no task {name!r}{nearest(name, list(TASKS))}; evaluation scores: {', '.join(TASKS)}")
    return TASKS[name]


def check_scorable(model: Model) -> None:
    """Raise unless the model's manifest says how its answers are to be scored."""
    manifest = model.manifest
    task = find_task(manifest.task)
    if manifest.prediction is None:
        raise InvalidBundle(
            f"{manifest.name} does not say which output answers its task; convert it again with a label, or declare it"
        )
    if manifest.prediction.kind not in task.kinds:
        raise InvalidBundle(
            f"{manifest.name} is a {manifest.task} model, but its prediction is declared as {manifest.prediction.kind!r}; "
            f"it needs {' or '.join(map(repr, task.kinds))}"
        )
