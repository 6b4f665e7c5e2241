"""ROC, precision-recall and cost curves with bands, from counts of rows by score."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask
    from fairway.evaluation.settings import CostSettings

_CELLS = 256
_POINTS = 41


class Curve(msgspec.Struct, frozen=True):
    """Points of a curve with a pointwise band: of the points ``x``, ``y`` lies in ``low`` to ``high``."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Cells(NamedTuple):
    """Rows by score and truth: ``counts`` of shape (cells, 2), of rising score, and the least score of each cell."""

    place: Classes
    counts: Floats
    starts: Floats


def cells_of(scores: Floats, positive: Mask) -> Cells:
    """Rows counted by score: each score is a cell of its own, or each of 256 quantiles if there are more."""
    starts = np.unique(scores)
    if len(starts) > _CELLS:
        starts = np.unique(np.quantile(scores, np.linspace(0, 1, _CELLS + 1)[:-1], method="lower"))
    place = np.searchsorted(starts, scores, side="right") - 1
    counts = np.bincount(2 * place + positive, minlength=2 * len(starts)).reshape(-1, 2)
    return Cells(place, counts.astype(np.float64), starts)


def doubted(draws: Floats, rows: int, groups: Classes | None, seed: int) -> Floats:
    """The draws, with half a row (or half a group) of each class ranked as wrong as can be: one more cell at each end."""
    mass = 0.5 if groups is None else 0.5 * rows / (int(groups.max()) + 1)
    wrong = np.random.default_rng([seed, 9]).standard_gamma(0.5, size=(len(draws), 2)) * (mass / 0.5)
    ends = np.zeros((2, len(draws), 1, 2))
    ends[0, :, 0, 1], ends[1, :, 0, 0] = wrong.T
    return np.concatenate([ends[0], draws, ends[1]], axis=1)


def taken(counts: Floats) -> Floats:
    """Weight of the rows at or above each cell: shape (..., cells, 2)."""
    whole: Floats = np.cumsum(counts[..., ::-1, :], axis=-2)[..., ::-1, :]
    return whole


def average_precision(draws: Floats) -> Floats:
    """The average precision of every draw, of shape (draws,)."""
    above = taken(draws)
    total = above[:, :1, 1]
    precision = ratio(above[..., 1], above.sum(axis=-1))
    summed: Floats = (ratio(draws[..., 1], np.broadcast_to(total, draws.shape[:2])) * precision).sum(axis=1)
    return summed


def roc_curve(counts: Floats, draws: Floats, confidence: float) -> Curve:
    """Recall by false positive rate; counts of shape (cells, 2), draws of shape (draws, cells, 2)."""
    grid = np.linspace(0, 1, _POINTS)

    def line(one: Floats) -> Floats:
        above = np.concatenate([taken(one), np.zeros((1, 2))])[::-1]
        totals = np.maximum(above[-1], np.finfo(float).tiny)
        recall: Floats = np.interp(grid, above[:, 0] / totals[0], above[:, 1] / totals[1])
        return recall

    return _curve(grid, line(counts), np.stack([line(one) for one in draws]), confidence)


def precision_recall_curve(counts: Floats, draws: Floats, confidence: float) -> Curve:
    """Precision by recall, shapes as in :func:`roc_curve`."""
    grid = np.linspace(0, 1, _POINTS)[1:]
    return _curve(grid, _precision_at(counts[None], grid)[0], _precision_at(draws, grid), confidence)


def _precision_at(counts: Floats, grid: Floats) -> Floats:
    """The precision at the highest threshold that reaches each recall."""
    above = taken(counts)
    recall = ratio(above[..., 1], np.broadcast_to(above[:, :1, 1], above.shape[:2]))
    precision = ratio(above[..., 1], above.sum(axis=-1))
    last = recall.shape[1] - 1 - (recall[:, ::-1, None] >= grid - 1e-9).argmax(axis=1)
    found: Floats = np.take_along_axis(precision, last, axis=1)
    return found


def cost_curve(cells: Cells, draws: Floats, costs: CostSettings, confidence: float) -> Curve:
    """Cost per row by threshold, at about a hundred of them."""
    kept = np.unique(np.linspace(0, len(cells.starts) - 1, min(len(cells.starts), 101)).round().astype(int))
    values, drawn = costs_at(cells.counts, costs)[kept], costs_at(draws, costs)[:, kept]
    return _curve(cells.starts[kept], values, drawn, confidence)


def costs_at(counts: Floats, costs: CostSettings) -> Floats:
    """Cost per row of every cell's start as the threshold."""
    above = taken(counts)
    total = above[..., :1, :]
    missed = total[..., 1] - above[..., 1]
    spent: Floats = costs.false_positive * above[..., 0] + costs.false_negative * missed
    per_row: Floats = spent / total.sum(axis=-1)
    return per_row


def _curve(x: Floats, y: Floats, drawn: Floats, confidence: float) -> Curve:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    lines = (x, y, np.minimum(low, y), np.maximum(high, y))
    return Curve(*(tuple(np.round(line, 6).tolist()) for line in lines))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, 0 where nothing is divided by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
