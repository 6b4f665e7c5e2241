"""What every kind of source is told, and what it gives back to be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

from fairway.core.errors import InvalidConfig, InvalidSource
from fairway.core.manifest import EngineSpec, Prediction, Processing
from fairway.core.tensors import Tensors, TensorSpec
from fairway.sources.columns import is_words
from fairway.sources.labels import as_label
from fairway.sources.settings import Task
from fairway.sources.tables import Table

GRAPH = "model.onnx"


@dataclass(frozen=True)
class Context:
    """What a conversion may look at.

    Attributes
    ----------
    task : str
    reference : Table or None
        Real rows.
    label : str or None
        The column to predict.
    features : tuple of str
        The columns of ``reference`` that the model takes; empty without a reference.
    labels : tuple of str
        Class names, if the user gave them.
    folder : Path
        An empty folder for the bundle's files.
    """

    task: Task
    reference: Table | None
    label: str | None
    features: tuple[str, ...]
    labels: tuple[str, ...]
    folder: Path

    def class_names(self, classes: int) -> tuple[str, ...]:
        """Names for ``classes`` scores: as the user gave them, else the reference's labels if their number agrees.

        Names that the data declare (a Hugging Face class label) have their order there. Labels that are indices name
        themselves; others are taken in sorted order, as scikit-learn's ``LabelEncoder`` does.
        """
        if self.labels:
            if len(self.labels) != classes:
                raise InvalidConfig(
                    f"model.labels has {len(self.labels)} names, but the model scores {classes} classes"
                )
            return self.labels
        numbers = tuple(map(str, range(classes)))
        if self.reference is None or not self.label or self.task not in ("classification", "multi-label"):
            return numbers
        if self.task == "multi-label":
            return self._label_names(classes) or numbers
        if self.label not in self.reference.columns:
            return numbers
        if len(declared := self.reference.class_names(self.label)) == classes:
            return declared
        given = self.reference.column(self.label)
        if given.ndim > 1:
            return numbers
        values = {value for value in given.tolist() if value is not None and value == value}  # noqa: PLR0124 (NaN is not)
        present = {as_label(value) for value in values}
        if present <= set(numbers) or len(present) != classes:
            return numbers
        return tuple(as_label(value) for value in sorted(values))

    def _label_names(self, labels: int) -> tuple[str, ...]:
        """Of columns of 0 and 1, what the pattern's star stands for; else the texts that occur, in sorted order."""
        assert self.reference is not None
        assert self.label is not None
        head, star, tail = self.label.partition("*")
        columns = [name for name in self.reference.columns if star and fnmatchcase(name, self.label)]
        found = [name[len(head) : len(name) - len(tail)] if "*" not in tail else name for name in columns]
        if (
            not columns
            and self.label in self.reference.columns
            and is_words(self.reference.schema.field(self.label).type)
        ):
            lists = self.reference.batches(_READ_ROWS, [self.label])
            found = sorted({item for part in lists for row in part.arrow.column(0).to_pylist() for item in row or ()})
        return tuple(found) if len(found) == labels else ()


_READ_ROWS = 8192

Original: TypeAlias = Callable[[Tensors, Table | None], Tensors]
"""The original model: its answers by output name, from model inputs or, better, from the table rows behind them."""


@dataclass(frozen=True)
class Candidate:
    """A converted model, not yet checked. Its files lie in ``folder`` under their names in the bundle."""

    folder: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    original: Original
    prediction: Prediction | None = None
    labels: tuple[str, ...] = ()
    processing: Processing = field(default_factory=Processing)
    engine: EngineSpec = field(default_factory=EngineSpec)
    takes_missing: bool = False
    """Whether the original documents an answer for missing numbers."""

    @property
    def files(self) -> dict[str, Path]:
        """The bundle's files by name."""
        return {p.relative_to(self.folder).as_posix(): p for p in sorted(self.folder.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Source:
    """A loaded checkpoint or a live model.

    Attributes
    ----------
    kind : str
        ``sklearn``, ``onnx``, ``torch``, ``huggingface`` or ``keras``.
    model : object
        What :attr:`kind` converts.
    name : str
        As lineage names it: the path relative to the project, ``module:callable``, or the object's class.
    digest : str
        ``sha256:…`` of the files it was read from; empty for a live object.
    examples : tuple
        Example inputs of a torch module, if its maker gave some.
    """

    kind: str
    model: Any
    name: str
    digest: str = ""
    examples: tuple[Any, ...] = ()


def refuse_task(kind: str, task: str, known: tuple[str, ...]) -> InvalidSource:
    """The error for a model that does not do ``task``."""
    return InvalidSource(f"{kind} does {' or '.join(known)}, not {task}; set task in [model] accordingly")
