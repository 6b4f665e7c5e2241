"""Embeddings: how well the likeness of two vectors agrees with how alike people find their texts (or images)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairway.evaluation.labels import label_column, true_values
from fairway.evaluation.ordered import Correlation, shares
from fairway.evaluation.tallied import Tallied
from fairway.evaluation.tasks.base import Data, Task
from fairway.evaluation.tasks.pairs import cosines

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Floats, Scored
    from fairway.model import Model


class Similarity(Task):
    """The label is a number that says how alike two sides of a row are; the model gives a vector to its own input's column
    and to that of ``[evaluate] pair``, and their cosine is its answer.
    """

    name = "embedding"
    kinds = ("embedding",)
    main = ("spearman_correlation_score",)

    def read(self, data: Data) -> Floats:
        """How alike the sides are."""
        return true_values(label_column(data.table, data.label), data.where)

    def ask(self, model: Model, data: Data) -> Floats:
        """The cosines."""
        return cosines(model, data)

    def score(
        self,
        truth: Floats,
        answers: Sequence[Floats],
        models: Sequence[Model],  # noqa: ARG002
        data: Data,  # noqa: ARG002
    ) -> list[Scored]:
        """Beside the answers of each model."""
        return [tally(truth, part) for part in answers]


def tally(truth: Floats, predicted: Floats) -> Tallied:
    """Rows of pairs; a row's loss is how far its rank is from that of its label, in shares of the rows."""
    return Tallied(
        task=Similarity.name,
        blocks={"one": np.ones((len(truth), 1), bool)},
        forms={
            "spearman_correlation_score": Correlation(truth, predicted, ranks=True),
            "pearson_correlation_score": Correlation(truth, predicted),
        },
        loss=np.abs(shares(truth) - shares(predicted)),
        truth=truth,
        predicted=predicted,
    )
