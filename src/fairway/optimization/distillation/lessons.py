"""What a student learns from: rows, the teacher's answers to them, and labels where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.tensors import Tensor, Tensors
from fairway.evaluation.labels import class_indices, label_column, true_values
from fairway.model import Model
from fairway.optimization.distillation.settings import DistillationSettings
from fairway.sources.tables import Table

_TEACHER_ROWS = 64
_FEWEST_ROWS = 10


class Lesson(msgspec.Struct, frozen=True, eq=False):
    """Some rows with the answers to them.

    Attributes
    ----------
    feed : mapping of name to array
        The graph's own inputs.
    answers : array
        The teacher's predictions.
    labels : array or None
        Indices of classes, or true values.
    """

    feed: Tensors
    answers: Tensor
    labels: Tensor | None

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.answers)

    def part(self, rows: Any) -> Lesson:
        """The rows of indices or of a slice."""
        feed = {name: array[rows] for name, array in self.feed.items()}
        return Lesson(feed, self.answers[rows], None if self.labels is None else self.labels[rows])

    def batches(self, size: int) -> Iterator[Lesson]:
        """All rows, in order."""
        for start in range(0, self.rows, size):
            yield self.part(slice(start, start + size))

    def digest(self) -> str:
        """Hex digits that tell these rows and answers from others."""
        found = hashlib.sha256()
        labels = () if self.labels is None else (self.labels,)
        for array in (*(self.feed[name] for name in sorted(self.feed)), self.answers, *labels):
            found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def make_lesson(
    teacher: Model,
    table: Table,
    label: str,
    settings: DistillationSettings,
    progress: Callable[[str, int, int], None],
) -> Lesson:
    """Ask ``teacher`` about rows of ``table``.

    Raises
    ------
    InvalidData
        If the table does not fit the teacher, has too few rows, or its labels are not the teacher's.
    """
    table = table.sample(settings.rows, settings.seed)
    if table.rows < _FEWEST_ROWS:
        raise InvalidData(
            f"{table.origin} has {table.rows} rows; a student needs at least {_FEWEST_ROWS} to learn from"
        )
    labels = _labels(teacher, table, label) if label and settings.soft_share < 1 else None
    feed = teacher.prepare(table.feed(teacher.inputs, label=label or None))
    assert teacher.manifest.prediction is not None
    output, found = teacher.manifest.prediction.output, list[Tensor]()
    usual = _TEACHER_ROWS if teacher.manifest.engine.batching else 1  # a row's answer must not depend on others
    size = next((s.shape[0] for s in teacher.raw_inputs if s.shape and s.shape[0] > 0), usual)
    for start in range(0, table.rows, size):
        progress("asking the teacher", start, table.rows)
        rows = np.arange(start, start + size).clip(max=table.rows - 1)
        answer = teacher.infer({name: array[rows] for name, array in feed.items()}, raw=True)[output]
        found.append(answer[: table.rows - start])
    return Lesson(feed, np.concatenate(found), labels)


def _labels(teacher: Model, table: Table, label: str) -> Tensor | None:
    where = f"label {label!r} in {table.origin}"
    if teacher.manifest.task == "classification":
        return class_indices(label_column(table, label), teacher.manifest.labels, where).astype(np.int64)
    if teacher.manifest.task == "regression":
        return true_values(label_column(table, label), where).astype(np.float32)
    return None
