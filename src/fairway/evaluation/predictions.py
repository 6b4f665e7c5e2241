"""From what a model answers to what can be scored: classes, probabilities, values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InferenceFailed, InvalidBundle
from fairway.core.tensors import Tensor
from fairway.evaluation.labels import class_indices
from fairway.evaluation.tallied import Tallied

Floats: TypeAlias = NDArray[np.float64]
Classes: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Classified:
    """Rows of a classifier's answers beside the truth, classes as indices into ``labels``.

    Attributes
    ----------
    truth, predicted : int array of shape (rows,)
    probabilities : float array of shape (rows, classes), or None
        ``None`` where the model gives the class alone. Each row sums to 1.
    labels : tuple of str
    groups : int array of shape (rows,), or None
        Which group each row belongs to, from 0, none left out. ``None``: rows are independent.
    memo : dict
        What was computed from these rows and is needed again.
    """

    truth: Classes
    predicted: Classes
    probabilities: Floats | None
    labels: tuple[str, ...]
    groups: Classes | None = None
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, mask: Mask) -> Classified:
        """The rows of a mask."""
        chosen = None if self.probabilities is None else self.probabilities[mask]
        return replace(
            self,
            truth=self.truth[mask],
            predicted=self.predicted[mask],
            probabilities=chosen,
            groups=_selected(self.groups, mask),
        )

    def badness(self) -> Floats:
        """How wrong each row is, of shape (rows,), never below 0, higher is worse.

        The negative log probability of the label, in nats, where there are probabilities; else 1 for a wrong class, 0 for the
        right one. Every kind of :data:`Scored` rows has this method; only the unit differs.
        """
        if self.probabilities is None:
            wrong: Floats = (self.truth != self.predicted).astype(np.float64)
            return wrong
        chosen = self.probabilities[np.arange(len(self)), self.truth]
        losses: Floats = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))  # clipped as scikit-learn clips it
        return losses

    def right(self) -> Mask:
        """The rows with nothing wrong."""
        same: Mask = self.truth == self.predicted
        return same

    def said(self, row: int) -> tuple[str, str]:
        """The truth and the answer of one row, to show."""
        return self.labels[self.truth[row]], self.labels[self.predicted[row]]


@dataclass(frozen=True)
class Regressed:
    """Rows of predicted numbers beside the true ones; ``groups`` and ``memo`` as in :class:`Classified`."""

    truth: Floats
    predicted: Floats
    groups: Classes | None = None
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, mask: Mask) -> Regressed:
        """The rows of a mask."""
        return Regressed(self.truth[mask], self.predicted[mask], _selected(self.groups, mask))

    def badness(self) -> Floats:
        """How wrong each row is: the absolute error, of shape (rows,), in the label's unit."""
        away: Floats = np.abs(self.predicted - self.truth)
        return away

    def right(self) -> Mask:
        """The rows with nothing wrong."""
        same: Mask = self.predicted == self.truth
        return same

    def said(self, row: int) -> tuple[str, str]:
        """The truth and the answer of one row, to show."""
        return f"{self.truth[row]:.6g}", f"{self.predicted[row]:.6g}"


Scored: TypeAlias = Classified | Regressed | Tallied


def read_classes(kind: str, raw: Tensor, truth: Classes, own: Sequence[str], labels: tuple[str, ...]) -> Classified:
    """Predicted classes from an output of kind ``probabilities``, ``logits`` or ``label``.

    Parameters
    ----------
    kind : str
    raw : array of shape (rows, classes), or (rows,) or (rows, 1) for ``label``
    truth : int array of shape (rows,)
        Indices into ``labels``.
    own : sequence of str
        The classes that this model scores, in its order.
    labels : tuple of str
        All classes, those of ``own`` among them.

    Raises
    ------
    InvalidBundle
        If the shape does not fit.
    InvalidData
        If a predicted label is no class.
    InferenceFailed
        If probabilities are none.
    """
    if kind == "label":
        return Classified(truth, class_indices(_single(raw), labels, "the model's answers"), None, labels)
    scores = _probabilities(kind, raw, len(own))
    probabilities = np.zeros((len(raw), len(labels)))
    probabilities[:, [labels.index(name) for name in own]] = scores
    return Classified(truth, probabilities.argmax(axis=1), probabilities, labels)


def read_values(raw: Tensor, truth: Floats) -> Regressed:
    """Predicted numbers from an output of kind ``value``. Raises :class:`InvalidBundle` if there is not one per row."""
    return Regressed(truth, _single(raw).astype(np.float64))


def _selected(groups: Classes | None, mask: Mask) -> Classes | None:
    """Numbered anew, since a group may have no row here."""
    if groups is None:
        return None
    numbers: Classes = np.unique(groups[mask], return_inverse=True)[1]
    return numbers


def _single(raw: Tensor) -> Tensor:
    flat = raw.reshape(len(raw), -1)
    if flat.shape[1] != 1:
        raise InvalidBundle(f"the model answers shape {list(raw.shape)}; its prediction needs one value per row")
    return flat[:, 0]


def _probabilities(kind: str, raw: Tensor, classes: int) -> Floats:
    scores: Floats = raw.reshape(len(raw), -1).astype(np.float64)
    if scores.shape[1] == 1 and classes == 2:  # one score, for the second class
        scores = np.hstack([np.zeros_like(scores) if kind == "logits" else 1 - scores, scores])
    if scores.shape[1] != classes:
        raise InvalidBundle(f"the model gives {scores.shape[1]} scores per row for {classes} labels")
    if kind == "logits":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    sums = scores.sum(axis=1, keepdims=True)
    if kind == "probabilities" and ((scores < -0.001).any() or ((sums < 0.5) | (sums > 1.5)).any()):
        raise InferenceFailed(
            f"the model answers rows that are no probabilities (least {scores.min():.3g}, sums {sums.min():.3g} to "
            f"{sums.max():.3g}); declare its prediction as 'logits' if that is what they are"
        )
    positive = np.clip(scores, 0, None)
    normal: Floats = positive / positive.sum(axis=1, keepdims=True)  # int8 graphs miss 1 by a little
    return normal
