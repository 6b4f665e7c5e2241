"""Metrics of weighted rows, for many sets of weights at once. Each equals scikit-learn's with ``sample_weight``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask

CONFUSION_SCORES = ("accuracy_score", "balanced_accuracy_score", "f1_score", "precision_score", "recall_score")
ERROR_METRICS = ("r2_score", "mean_absolute_error", "median_absolute_error", "root_mean_squared_error")


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


class Ranking(NamedTuple):
    """One class's rows in the order of its score: enough to compute its AUC for any weights."""

    order: Classes
    positive: Classes
    """Where in the order the rows of this class are."""
    start: Classes
    stop: Classes
    """For each of them, the range in the order of rows with the same score."""


def rank(scores: Floats, positive: Mask) -> Ranking:
    """Order the rows of one class against the rest. ``positive`` is a mask."""
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    where = np.flatnonzero(positive[order])
    start = np.searchsorted(sorted_scores, sorted_scores[where], side="left")
    stop = np.searchsorted(sorted_scores, sorted_scores[where], side="right")
    return Ranking(order, where, start, stop)


def auc(weights: Floats, ranking: Ranking) -> Floats:
    """Area under the ROC curve of shape (sets,): how often a row of the class scores above another, ties counting half."""
    ordered = weights[:, ranking.order]
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(ordered, axis=1)], axis=1)
    chosen = ordered[:, ranking.positive]
    wins = (chosen * (below[:, ranking.start] + below[:, ranking.stop])).sum(axis=1) / 2
    positives = chosen.sum(axis=1)
    among_themselves = positives**2 / 2
    area: Floats = (wins - among_themselves) / (positives * (below[:, -1] - positives))
    return area


def auc_influence(scores: Floats, positive: Mask) -> tuple[float, Floats]:
    """The AUC of equally weighted rows, and by how much a share of weight moved to each row would change it.

    References
    ----------
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach", Biometrics 44(3), 1988.
    """
    ordered = np.sort(scores)
    ordered_positive = np.sort(scores[positive])
    rows, positives = len(ordered), len(ordered_positive)
    negatives = rows - positives
    middle = _middle(ordered, scores)  # how many rows score below, ties counting half
    middle_positive = _middle(ordered_positive, scores)
    won = np.where(positive, (middle - middle_positive) / negatives, 1 - middle_positive / positives)
    area = float(won[positive].mean())
    influence: Floats = (won - area) * np.where(positive, rows / positives, rows / negatives)
    return area, influence


def error_metrics(weights: Floats, truth: Floats, errors: Floats) -> dict[str, Floats]:
    """Regression metrics of shape (sets,). ``errors`` are predictions minus ``truth``."""
    absolute, centered = np.abs(errors), truth - truth.mean()
    total = weights.sum(axis=1)
    sums = weights @ np.stack([absolute, errors**2, centered, centered**2], axis=1) / total[:, None]
    variance = sums[:, 3] - sums[:, 2] ** 2
    unexplained = _ratio(sums[:, 1], variance)
    constant = variance <= 1e-14 * max(float((centered**2).max()), np.finfo(float).tiny)
    return {
        "r2_score": np.where(constant, np.where(sums[:, 1] == 0, 1.0, 0.0), 1 - unexplained),
        "mean_absolute_error": sums[:, 0],
        "median_absolute_error": weighted_median(weights, absolute),
        "root_mean_squared_error": np.sqrt(sums[:, 1]),
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


def _middle(ordered: Floats, values: Floats) -> Floats:
    middle: Floats = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return middle


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
