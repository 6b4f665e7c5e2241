"""Regression: one number per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.labels import label_column, true_values
from fairway.evaluation.predictions import read_values
from fairway.evaluation.tasks.base import Data, Task

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Floats, Scored
    from fairway.model import Model


class Regression(Task):
    """The label is a number, and so is the answer."""

    name = "regression"
    kinds = ("value",)
    main = ("mean_absolute_error",)

    def read(self, data: Data) -> Floats:
        """The true numbers."""
        return true_values(label_column(data.table, data.label), data.where)

    def score(
        self,
        truth: Floats,
        answers: Sequence[Tensor],
        models: Sequence[Model],  # noqa: ARG002
        data: Data,  # noqa: ARG002
    ) -> list[Scored]:
        """Beside the answers of each model."""
        return [read_values(part, truth) for part in answers]
