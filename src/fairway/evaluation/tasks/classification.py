"""Classification: one class per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairway.evaluation.labels import class_indices, label_column, label_forms
from fairway.evaluation.predictions import read_classes
from fairway.evaluation.tasks.base import Data, Task

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Scored
    from fairway.model import Model


class Classification(Task):
    """The label is a class; the model gives probabilities, logits or the class itself."""

    name = "classification"
    kinds = ("probabilities", "logits", "label")
    main = ("accuracy_score",)

    def read(self, data: Data) -> Tensor:
        """The label of every row, as it is written."""
        return label_column(data.table, data.label)

    def check(self, model: Model, data: Data) -> None:
        """Also that the model knows every class, if it says which it knows."""
        truth = self.read(data)
        if model.manifest.labels:
            class_indices(truth, model.manifest.labels, data.where)

    def score(self, truth: Tensor, answers: Sequence[Tensor], models: Sequence[Model], data: Data) -> list[Scored]:
        """All share the first model's classes.

        A class that only another model knows comes after them. One that another model does not know is a row that it gets
        wrong; one that the first does not know is an error in the data.
        """
        known = [_labels(model, part, truth) for model, part in zip(models, answers, strict=True)]
        labels = tuple(dict.fromkeys(name for own in known for name in own))
        classes = class_indices(truth, known[0], data.where)
        kinds = [model.manifest.prediction.kind for model in models if model.manifest.prediction is not None]
        return [
            read_classes(kind, part, classes, own, labels)
            for kind, part, own in zip(kinds, answers, known, strict=True)
        ]


def _labels(model: Model, raw: Tensor, column: Tensor) -> tuple[str, ...]:
    """The model's classes: declared, or those of its scores, or (where it answers labels alone) those that occur."""
    manifest = model.manifest
    if manifest.labels:
        return manifest.labels
    assert manifest.prediction is not None
    if manifest.prediction.kind != "label":
        return tuple(map(str, range(max(2, int(np.prod(raw.shape[1:]))))))
    flat = [*column.tolist(), *raw.ravel().tolist()]
    return tuple(sorted({label_forms(value)[0] for value in flat}))
