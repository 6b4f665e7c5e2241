"""Run models over a table and set their answers beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.errors import InferenceFailed
from fairway.core.mapping import THREADS, Mapper
from fairway.core.tensors import Tensor
from fairway.evaluation.answering import answers
from fairway.evaluation.labels import class_indices, label_column, label_forms, true_values
from fairway.evaluation.predictions import Progress, Scored, read_classes, read_values

if TYPE_CHECKING:
    from fairway.model import Model
    from fairway.sources.tables import Table


def score_models(
    models: Sequence[Model],
    table: Table,
    *,
    label: str,
    batch_size: int,
    progress: Progress | None = None,
    mapper: Mapper = THREADS,
) -> list[Scored]:
    """Score every row of ``table`` by each of ``models``, which are of one task; all share the first one's classes.

    A class that only another model knows comes after them. One that another model does not know is a row that it gets
    wrong; one that the first does not know is an error in the data.

    Raises
    ------
    InvalidData
        If the table does not fit a model's inputs, or its labels are missing or unknown to the first model.
    InvalidBundle, InferenceFailed
        If the answers cannot be scored.
    """
    column = label_column(table, label)
    where = f"label {label!r} in {table.origin}"
    raw = [
        _answer(model, table, label=label, batch_size=batch_size, progress=progress, mapper=mapper) for model in models
    ]
    if models[0].manifest.task == "regression":
        truth = true_values(column, where)
        return [read_values(part, truth) for part in raw]
    known = [_labels(model, part, column) for model, part in zip(models, raw, strict=True)]
    labels = tuple(dict.fromkeys(name for own in known for name in own))
    classes = class_indices(column, known[0], where)
    kinds = [model.manifest.prediction.kind for model in models if model.manifest.prediction is not None]
    return [read_classes(kind, part, classes, own, labels) for kind, part, own in zip(kinds, raw, known, strict=True)]


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


def _answer(
    model: Model, table: Table, *, label: str, batch_size: int, progress: Progress | None, mapper: Mapper
) -> Tensor:
    """What the model answers for every row; of the inputs only some batches are ever held."""
    manifest = model.manifest
    prediction = manifest.prediction
    assert prediction is not None  # check_scorable has passed
    fixed = max((spec.shape[0] for spec in model.inputs if spec.shape), default=1)
    single = not manifest.engine.batching or fixed > 0
    size = max(fixed, 1) if single else batch_size
    feeds = (
        {name: _filled_up(array, size) for name, array in feed.items()} if fixed > count else feed
        for count, feed in table.feeds(model.inputs, size, label=label)
    )
    whole: Tensor | None = None
    done = 0
    for part in answers(model, feeds, prediction.output, mapper):
        count = min(size, table.rows - done)
        if part.shape[:1] != (max(count, fixed),):
            raise InferenceFailed(
                f"{manifest.name} answers {list(part.shape)} in {prediction.output!r} for {count} rows; "
                "one row per row is needed"
            )
        if whole is None:
            whole = np.empty((table.rows, *part.shape[1:]), part.dtype)
        whole[done : done + count] = part[:count]
        done += count
        if progress is not None:
            progress(f"scoring {manifest.name}", done, table.rows)
    assert whole is not None  # a table without rows has been refused
    _check_finite(whole, f"{manifest.name}'s {prediction.output!r}")
    return whole


def _filled_up(array: Tensor, size: int) -> Tensor:
    """The last rows of a model that takes exactly ``size`` at a time: the last one again and again."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _check_finite(array: Tensor, what: str) -> None:
    if array.dtype.kind != "f":
        return
    bad = np.asarray(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if bad.any():
        raise InferenceFailed(
            f"{what} is not finite in {int(bad.sum()):,} of {len(bad):,} rows, first in row {int(bad.argmax())}"
        )
