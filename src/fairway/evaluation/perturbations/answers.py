"""What a model says of inputs that were changed, set beside the truth that did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.errors import InferenceFailed
from fairway.core.tensors import Tensor, is_float
from fairway.evaluation.predictions import Classified, Regressed, read_classes, read_values

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Scored
    from fairway.model import Model


def answer(model: Model, feed: Mapping[str, Tensor], batch_size: int) -> Tensor:
    """The output that answers the task, of every row. Raises :class:`InferenceFailed` if it is not finite or fails."""
    prediction = model.manifest.prediction
    assert prediction is not None
    fixed = max((spec.shape[0] for spec in model.inputs if spec.shape), default=1)
    size = max(fixed, 1) if fixed > 0 or not model.manifest.engine.batching else batch_size
    rows = len(next(iter(feed.values())))
    parts = []
    for start in range(0, rows, size):
        places = np.minimum(np.arange(start, start + size), rows - 1)  # a fixed batch is filled up with its last row
        places = places if fixed > 0 else places[: rows - start]
        try:
            given = model.infer({name: array[places] for name, array in feed.items()})
        except Exception as error:  # whatever the engine raises, it is about inputs that this model does not take
            raise InferenceFailed(f"{model.manifest.name} fails: {error}") from error
        parts.append(np.asarray(given[prediction.output])[: rows - start])
    whole = np.concatenate(parts)
    if is_float(whole) and not np.isfinite(whole).all():
        raise InferenceFailed(f"{model.manifest.name} answers with numbers that are not finite")
    return whole


def scored(model: Model, feed: Mapping[str, Tensor], like: Scored, batch_size: int) -> Scored:
    """The answers to ``feed`` beside the truth of ``like``, which are the same rows in the same order.

    Raises
    ------
    InferenceFailed
        If the model cannot answer.
    """
    raw = answer(model, feed, batch_size)
    if isinstance(like, Regressed):
        found: Scored = read_values(raw, like.truth)
    else:
        prediction = model.manifest.prediction
        assert prediction is not None
        assert isinstance(like, Classified)  # the analysis leaves other tasks out
        scores = raw.reshape(len(raw), -1).shape[1]
        own = model.manifest.labels or like.labels[: max(2, scores) if prediction.kind != "label" else None]
        found = read_classes(prediction.kind, raw, like.truth, own, like.labels)
    return found if like.groups is None else replace(found, groups=like.groups)


def is_scored(rows: object) -> bool:
    """Whether :func:`scored` knows rows of this kind."""
    return isinstance(rows, Classified | Regressed)
