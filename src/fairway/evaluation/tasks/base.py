"""What a task is to evaluation: how its truth is read, what a model is asked, and what the answers are scored by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.errors import InferenceFailed, InvalidBundle, InvalidData
from fairway.core.mapping import THREADS, Mapper
from fairway.core.tensors import Tensor, TensorSpec, is_float
from fairway.evaluation.answering import answers
from fairway.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Progress, Scored
    from fairway.model import Model
    from fairway.sources.tables import Table

_READ_ROWS = 8192


@dataclass(frozen=True)
class Data:
    """The rows to score, and how.

    Attributes
    ----------
    table : Table
    label : str
        The column of the truth; for some tasks a glob pattern of several.
    settings : EvaluationSettings
    progress : callable of (what, done, total), optional
    mapper : Mapper
        Where models are run.
    """

    table: Table
    label: str
    settings: EvaluationSettings
    progress: Progress | None = None
    mapper: Mapper = THREADS

    @property
    def where(self) -> str:
        """The label, for messages."""
        return f"label {self.label!r} in {self.table.origin}"

    def values(self, column: str) -> list[Any]:
        """A column as Python values: lists and structs as they are, ``None`` where missing."""
        if column not in self.table.columns:
            self.table.datatype(column)  # says which columns there are
        parts = (batch.arrow.column(column).to_pylist() for batch in self.table.batches(_READ_ROWS, [column]))
        return [value for part in parts for value in part]

    def truth(self, column: str | None = None) -> list[Any]:
        """The label of every row; :class:`InvalidData` if one is missing or there are no rows."""
        self.check_rows()
        name = self.label if column is None else column
        found = self.values(name)
        missing = [row for row, value in enumerate(found) if value is None]
        if missing:
            raise InvalidData(
                f"{name!r} in {self.table.origin} is missing in {len(missing):,} of {len(found):,} rows, first in row "
                f"{missing[0]}; fill them in or leave these rows out"
            )
        return found

    def check_rows(self) -> None:
        """Raise :class:`InvalidData` if there is nothing to score."""
        if self.table.rows == 0:
            raise InvalidData(f"{self.table.origin} has no rows: there is nothing to score")


class Task(ABC):
    """One task. All of its methods are pure but :meth:`ask`, which runs a model.

    Attributes
    ----------
    name : str
        As in ``[model] task``.
    kinds : tuple of str
        The kinds of prediction that answer it.
    main : tuple of str
        The metric that is measured in every slice: the first that a model has.
    """

    name: str
    kinds: tuple[str, ...]
    main: tuple[str, ...]

    @abstractmethod
    def read(self, data: Data) -> Any:
        """The truth. Raises :class:`InvalidData`."""

    def check(self, model: Model, data: Data) -> None:  # noqa: ARG002
        """Raise :class:`InvalidData` if the truth cannot be read or, as far as that can be told, is unknown to ``model``."""
        self.read(data)

    def ask(self, model: Model, data: Data) -> Any:
        """What the model answers to all rows: by default the output that its prediction names."""
        name = prediction_of(model)
        return whole(model, data, name)

    @abstractmethod
    def score(self, truth: Any, answers: Sequence[Any], models: Sequence[Model], data: Data) -> list[Scored]:
        """The answers of each model beside the truth."""


def prediction_of(model: Model) -> str:
    """The output that answers the task."""
    prediction = model.manifest.prediction
    assert prediction is not None  # check_scorable has passed
    return prediction.output


def answered(
    model: Model, data: Data, outputs: Sequence[str], *, specs: Sequence[TensorSpec] | None = None
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Ask for all rows in batches: how many rows each has, and the named outputs, one row per row each.

    Of the inputs only some batches are ever held. ``specs`` are the model's inputs, or the same with other columns.
    """
    manifest, table = model.manifest, data.table
    given = model.inputs if specs is None else specs
    fixed = max((spec.shape[0] for spec in given if spec.shape), default=1)
    single = not manifest.engine.batching or fixed > 0
    size = max(fixed, 1) if single else data.settings.batch_size
    feeds = (
        {name: _filled_up(array, size) for name, array in feed.items()} if fixed > count else feed
        for count, feed in table.feeds(given, size, label=data.label)
    )
    done = 0
    for answer in answers(model, feeds, outputs, data.mapper):
        count = min(size, table.rows - done)
        for name, part in answer.items():
            if part.shape[:1] != (max(count, fixed),):
                raise InferenceFailed(
                    f"{manifest.name} answers {list(part.shape)} in {name!r} for {count} rows; one row per row is needed"
                )
        done += count
        yield count, {name: part[:count] for name, part in answer.items()}
        if data.progress is not None:
            data.progress(f"scoring {manifest.name}", done, table.rows)


def whole(model: Model, data: Data, output: str, *, specs: Sequence[TensorSpec] | None = None) -> Tensor:
    """One output for all rows."""
    found: Tensor | None = None
    done = 0
    for count, given in answered(model, data, [output], specs=specs):
        part = given[output]
        if found is None:
            found = np.empty((data.table.rows, *part.shape[1:]), part.dtype)
        if part.shape[1:] != found.shape[1:]:
            raise InvalidBundle(
                f"{model.manifest.name} answers {list(part.shape)} in {output!r} after {list(found.shape)}: one shape is needed"
            )
        found[done : done + count] = part
        done += count
    assert found is not None  # a table without rows has been refused
    check_finite(found, f"{model.manifest.name}'s {output!r}")
    return found


def reduced(
    model: Model, data: Data, outputs: Sequence[str], reduce: Callable[[dict[str, Tensor]], Sequence[Any]]
) -> list[Any]:
    """What ``reduce`` keeps of every batch's outputs, one item per row: for answers too large or too ragged to hold."""
    kept: list[Any] = []
    for _, given in answered(model, data, outputs):
        for name, array in given.items():
            check_finite(array, f"{model.manifest.name}'s {name!r}", len(kept))
        kept += reduce(given)
    return kept


def check_finite(array: Tensor, what: str, offset: int = 0) -> None:
    """Raise :class:`InferenceFailed` if a number is NaN or infinite."""
    if not is_float(array):
        return
    bad = np.asarray(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if bad.any():
        raise InferenceFailed(
            f"{what} is not finite in {int(bad.sum()):,} of {len(bad):,} rows, first in row {offset + int(bad.argmax())}"
        )


def _filled_up(array: Tensor, size: int) -> Tensor:
    """The last rows of a model that takes exactly ``size`` at a time: the last one again and again."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
