"""Metrics of weighted rows, for many sets of weights at once. Each equals scikit-learn's with ``sample_weight``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats

_DENSE_CELLS = 2**16
CONFUSION_SCORES = ("accuracy_score", "balanced_accuracy_score", "f1_score", "precision_score", "recall_score")


def cells(columns: Sequence[Classes]) -> tuple[Classes, Classes, Classes]:
    """The combinations that occur, of shape (cells, columns) and in order; which one each row is; the rows of each."""
    size = max(int(column.max(initial=0)) for column in columns) + 1
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        code = code * size + column
    whole = size ** len(columns)
    if whole <= max(_DENSE_CELLS, len(code)):
        counts = np.bincount(code, minlength=whole)
        found = np.flatnonzero(counts)
        number = np.zeros(whole, np.intp)
        number[found] = np.arange(len(found))
        place, counts = number[code], counts[found]
    else:
        found, place, counts = np.unique(code, return_inverse=True, return_counts=True)
    return np.stack(np.unravel_index(found, (size,) * len(columns)), axis=1), place, counts


def confusion_scores(weights: Floats, truth: Classes, predicted: Classes, *, occurring: Classes) -> dict[str, Floats]:
    """Scores that depend on the confusion matrix alone.

    Parameters
    ----------
    weights : float array of shape (sets, cells)
    truth, predicted : int array of shape (cells,)
        The class pair of each cell.
    occurring : int array
        The classes that means are taken over: those of any row's truth or prediction.
    """
    size = int(max(truth.max(), predicted.max(), occurring.max())) + 1
    hits = np.where(truth == predicted, weights, 0.0)
    hit, true, guessed = (
        sum_by(part, index, size)[:, occurring]
        for part, index in ((hits, truth), (weights, truth), (weights, predicted))
    )
    real = true.sum(axis=0) > 0
    recall, precision = _ratio(hit, true), _ratio(hit, guessed)
    return {
        "accuracy_score": hits.sum(axis=1) / weights.sum(axis=1),
        "balanced_accuracy_score": recall[:, real].mean(axis=1),
        "f1_score": _ratio(2 * hit, true + guessed).mean(axis=1),
        "precision_score": precision.mean(axis=1),
        "recall_score": recall.mean(axis=1),
    }


def weighted_median(weights: Floats, values: Floats) -> Floats:
    """The least value that half of the weight does not exceed, of shape (sets,)."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[:, order], axis=1)
    place = (cumulative >= cumulative[:, -1:] / 2).argmax(axis=1)
    median: Floats = values[order][place]
    return median


def sum_by(weights: Floats, index: Classes, size: int) -> Floats:
    """Sums over the columns with the same index: shape (sets, size)."""
    order = np.argsort(index, kind="stable")
    present, starts = np.unique(index[order], return_index=True)
    sums = np.zeros((len(weights), size))
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
