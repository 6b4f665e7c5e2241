"""Which probability should count as "yes": ROC, precision-recall and cost curves, and thresholds.

Bands come from a Bayesian bootstrap in which each class has half a row more that is ranked as wrong as can be: what the rows
never showed is not impossible. A threshold is assessed on rows that it was not chosen on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.evaluation.estimates import (
    Estimate,
    area_terms,
    block_count,
    cell_draws,
    jackknife,
    mean_estimate,
    quantile_estimates,
    share_estimate,
    split_units,
)
from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import skewed_interval
from fairway.evaluation.predictions import Classified

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Floats, Mask
    from fairway.evaluation.settings import CostSettings, EvaluationSettings

_CELLS = 256
_POINTS = 41
_CLASSES = 10
_FEWEST = 10
"""Rows inside and outside a class below which there is no curve."""
WANTED = 0.9
"""The precision and the recall that thresholds are shown for."""


class Curve(msgspec.Struct, frozen=True):
    """Points of a curve with a pointwise band: of the points ``x``, ``y`` lies in ``low`` to ``high``."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Operating(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way to choose the threshold, and what it gives.

    ``precision``, ``recall``, ``f1`` and ``cost`` (per row) are of each half of the rows with the threshold that the other half
    chose: choosing has not flattered them. ``threshold`` itself is chosen on all rows; ``None`` for the model's own choice.
    ``change`` is the gain in F1, or the change in cost where ``goal`` is ``cost``, against the model's own choice.

    ``goal`` is ``default``, ``f1``, ``precision`` (the highest recall with a precision of 0.9), ``recall`` (the reverse) or
    ``cost``.
    """

    goal: str
    threshold: float | None
    precision: Estimate
    recall: Estimate
    f1: Estimate
    cost: Estimate | None = None
    change: Estimate | None = None

    @property
    def better(self) -> bool:
        """Whether it surely improves on the model's own choice, in what it aims at."""
        if self.change is None:
            return False
        return self.change.below(0) if self.goal == "cost" else self.change.above(0)


class ClassThresholds(msgspec.Struct, frozen=True, omit_defaults=True):
    """One class against the rest.

    Attributes
    ----------
    label : str
    positives : int
        Its rows.
    auc, average_precision : Estimate
    roc : Curve
        Recall by false positive rate.
    precision_recall : Curve
        Precision by recall.
    cost : Curve or None
        Cost per row by threshold, where costs are set.
    operating : tuple of Operating
    """

    label: str
    positives: int
    auc: Estimate
    average_precision: Estimate
    roc: Curve
    precision_recall: Curve
    operating: tuple[Operating, ...]
    cost: Curve | None = None


def analyse(subject: Subject) -> tuple[ClassThresholds, ...] | None:
    """The positive class; of more than two classes, each against the rest, at most the ten that are ranked worst.

    Raises
    ------
    InvalidConfig
        If ``positive`` is no class.
    """
    rows, settings = subject.rows, subject.settings
    if not isinstance(rows, Classified) or rows.probabilities is None:
        return None
    chosen = positive_classes(rows, settings)
    counts = np.bincount(rows.truth, minlength=len(rows.labels))
    usable = [c for c in chosen if min(counts[c], len(rows) - counts[c]) >= _FEWEST]
    if len(usable) > _CLASSES:
        areas = {c: area_terms(rows.probabilities[:, c], rows.truth == c)[0] for c in usable}
        usable = sorted(usable, key=areas.__getitem__)[:_CLASSES]
    costs = settings.costs if len(chosen) == 1 else None
    found = [_of_class(rows, c, settings, costs, several=len(chosen) > 1) for c in usable]
    return tuple(sorted(found, key=lambda each: each.auc.value)) or None


def positive_classes(rows: Classified, settings: EvaluationSettings) -> list[int]:
    """The class that is set to be positive; the second of two; all of more."""
    if not settings.positive:
        return [1] if len(rows.labels) == 2 else list(range(len(rows.labels)))
    if settings.positive not in rows.labels:
        raise InvalidConfig(
            f"evaluate.positive is {settings.positive!r}, which is no class; they are: {', '.join(rows.labels[:20])}"
        )
    return [rows.labels.index(settings.positive)]


class _Cells(NamedTuple):
    """Rows by score and truth: ``counts`` of shape (cells, 2), of rising score, and the least score of each cell."""

    place: Classes
    counts: Floats
    starts: Floats


def _of_class(
    rows: Classified, chosen: int, settings: EvaluationSettings, costs: CostSettings | None, *, several: bool
) -> ClassThresholds:
    assert rows.probabilities is not None
    scores, positive = rows.probabilities[:, chosen], rows.truth == chosen
    cells = _cells(scores, positive)
    size = len(cells.counts)
    drawn = cell_draws(2 * cells.place + positive, 2 * size, settings.resamples, settings.seed, rows.groups)
    draws = drawn.reshape(-1, size, 2)
    doubted = _doubted(draws, len(rows), rows.groups, settings.seed)
    precision = require("sklearn.metrics", extra="evaluate").average_precision_score(positive, scores)
    averages = _average_precision(doubted)
    return ClassThresholds(
        label=rows.labels[chosen],
        positives=int(positive.sum()),
        auc=_auc(scores, positive, rows.groups, settings.confidence),
        average_precision=quantile_estimates(np.array([precision]), averages[:, None], settings.confidence)[0],
        roc=_roc(cells.counts, doubted, settings.confidence),
        precision_recall=_precision_recall(cells.counts, doubted, settings.confidence),
        operating=tuple(_operating(rows, chosen, cells, settings, costs, brief=several)),
        cost=None if costs is None else _cost_curve(cells, draws, costs, settings.confidence),
    )


def _cells(scores: Floats, positive: Mask) -> _Cells:
    starts = np.unique(scores)
    if len(starts) > _CELLS:
        starts = np.unique(np.quantile(scores, np.linspace(0, 1, _CELLS + 1)[:-1], method="lower"))
    place = np.searchsorted(starts, scores, side="right") - 1
    counts = np.bincount(2 * place + positive, minlength=2 * len(starts)).reshape(-1, 2)
    return _Cells(place, counts.astype(np.float64), starts)


def _doubted(draws: Floats, rows: int, groups: Classes | None, seed: int) -> Floats:
    """The draws, with half a row (or half a group) of each class ranked as wrong as can be: one more cell at each end."""
    mass = 0.5 if groups is None else 0.5 * rows / (int(groups.max()) + 1)
    wrong = np.random.default_rng([seed, 9]).standard_gamma(0.5, size=(len(draws), 2)) * (mass / 0.5)
    ends = np.zeros((2, len(draws), 1, 2))
    ends[0, :, 0, 1], ends[1, :, 0, 0] = wrong.T
    return np.concatenate([ends[0], draws, ends[1]], axis=1)


def _taken(counts: Floats) -> Floats:
    """Weight of the rows at or above each cell: shape (..., cells, 2)."""
    whole: Floats = np.cumsum(counts[..., ::-1, :], axis=-2)[..., ::-1, :]
    return whole


def _auc(scores: Floats, positive: Mask, groups: Classes | None, confidence: float) -> Estimate:
    area, slopes = area_terms(scores, positive)
    ends = skewed_interval(area, spread(slopes, groups), confidence)
    return Estimate(area) if ends is None else Estimate(area, max(0.0, ends[0]), min(1.0, ends[1]))


def _average_precision(draws: Floats) -> Floats:
    taken = _taken(draws)
    total = taken[:, :1, 1]
    precision = _ratio(taken[..., 1], taken.sum(axis=-1))
    summed: Floats = (_ratio(draws[..., 1], np.broadcast_to(total, draws.shape[:2])) * precision).sum(axis=1)
    return summed


def _roc(counts: Floats, draws: Floats, confidence: float) -> Curve:
    grid = np.linspace(0, 1, _POINTS)

    def line(one: Floats) -> Floats:
        taken = np.concatenate([_taken(one), np.zeros((1, 2))])[::-1]
        totals = np.maximum(taken[-1], np.finfo(float).tiny)
        return np.interp(grid, taken[:, 0] / totals[0], taken[:, 1] / totals[1])

    return _curve(grid, line(counts), np.stack([line(one) for one in draws]), confidence)


def _precision_recall(counts: Floats, draws: Floats, confidence: float) -> Curve:
    grid = np.linspace(0, 1, _POINTS)[1:]
    return _curve(grid, _precision_at(counts[None], grid)[0], _precision_at(draws, grid), confidence)


def _precision_at(counts: Floats, grid: Floats) -> Floats:
    """The precision at the highest threshold that reaches each recall."""
    taken = _taken(counts)
    recall = _ratio(taken[..., 1], np.broadcast_to(taken[:, :1, 1], taken.shape[:2]))
    precision = _ratio(taken[..., 1], taken.sum(axis=-1))
    last = recall.shape[1] - 1 - (recall[:, ::-1, None] >= grid - 1e-9).argmax(axis=1)
    found: Floats = np.take_along_axis(precision, last, axis=1)
    return found


def _cost_curve(cells: _Cells, draws: Floats, costs: CostSettings, confidence: float) -> Curve:
    kept = np.unique(np.linspace(0, len(cells.starts) - 1, min(len(cells.starts), 101)).round().astype(int))
    values, drawn = _costs(cells.counts, costs)[kept], _costs(draws, costs)[:, kept]
    return _curve(cells.starts[kept], values, drawn, confidence)


def _costs(counts: Floats, costs: CostSettings) -> Floats:
    """Cost per row of every cell's start as the threshold."""
    taken = _taken(counts)
    total = taken[..., :1, :]
    missed = total[..., 1] - taken[..., 1]
    spent: Floats = costs.false_positive * taken[..., 0] + costs.false_negative * missed
    return spent / total.sum(axis=-1)


def _curve(x: Floats, y: Floats, drawn: Floats, confidence: float) -> Curve:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    lines = (x, y, np.minimum(low, y), np.maximum(high, y))
    return Curve(*(tuple(np.round(line, 6).tolist()) for line in lines))


def _operating(
    rows: Classified,
    chosen: int,
    cells: _Cells,
    settings: EvaluationSettings,
    costs: CostSettings | None,
    *,
    brief: bool,
) -> list[Operating]:
    half = split_units(len(rows), rows.groups, 2, settings.seed)
    positive = rows.truth == chosen
    own = rows.predicted == chosen
    counts = [cells.counts, *(_counted(cells, positive, half == number) for number in (0, 1))]
    goals = ["f1"] if brief else ["f1", "precision", "recall", *(["cost"] if costs else [])]
    found = [_assess("default", None, own, own, rows, positive, settings, costs)]
    for goal in goals:
        whole, first, second = (_best(goal, each, costs) for each in counts)
        if whole is None or first is None or second is None:
            continue
        least = np.where(half == 0, second, first)  # each half by what the other one chose
        decided = cells.place >= least
        found.append(_assess(goal, float(cells.starts[whole]), decided, own, rows, positive, settings, costs))
    return found


def _counted(cells: _Cells, positive: Mask, inside: Mask) -> Floats:
    size = len(cells.starts)
    counted = np.bincount(2 * cells.place[inside] + positive[inside], minlength=2 * size).reshape(-1, 2)
    return counted.astype(np.float64)


def _best(goal: str, counts: Floats, costs: CostSettings | None) -> int | None:
    """The cell whose start is the best threshold; ``None`` where none reaches the goal."""
    taken = _taken(counts)
    total = max(taken[0, 1], np.finfo(float).tiny)
    precision, recall = _ratio(taken[:, 1], taken.sum(axis=1)), taken[:, 1] / total
    if goal == "f1":
        return int((2 * taken[:, 1] / (taken.sum(axis=1) + total)).argmax())
    if goal == "cost":
        assert costs is not None
        return int(_costs(counts, costs).argmin())
    kept, wanted = (precision, recall) if goal == "precision" else (recall, precision)
    reached = kept >= WANTED
    return int(np.where(reached, wanted, -1.0).argmax()) if reached.any() else None


def _assess(
    goal: str,
    threshold: float | None,
    decided: Mask,
    own: Mask,
    rows: Classified,
    positive: Mask,
    settings: EvaluationSettings,
    costs: CostSettings | None,
) -> Operating:
    def groups(mask: Mask) -> Classes | None:
        return None if rows.groups is None else np.unique(rows.groups[mask], return_inverse=True)[1]

    precision = share_estimate(positive[decided], groups(decided), settings.confidence)
    recall = share_estimate(decided[positive], groups(positive), settings.confidence)
    f1, gain = _f1(decided, own, positive, rows.groups, settings)
    cost = change = None
    if costs is not None:
        spent, before = (_spent(each, positive, costs) for each in (decided, own))
        cost = mean_estimate(spent, rows.groups, settings.confidence)
        change = mean_estimate(spent - before, rows.groups, settings.confidence)
    return Operating(
        goal,
        threshold,
        precision,
        recall,
        f1,
        cost,
        None if goal == "default" else change if goal == "cost" else gain if goal == "f1" else None,
    )


def _spent(decided: Mask, positive: Mask, costs: CostSettings) -> Floats:
    return costs.false_positive * (decided & ~positive) + costs.false_negative * (~decided & positive)


def _f1(
    decided: Mask, own: Mask, positive: Mask, groups: Classes | None, settings: EvaluationSettings
) -> tuple[Estimate, Estimate | None]:
    blocks = block_count(len(positive), groups)
    both = np.stack([decided & positive, decided, own & positive, own, positive], axis=1).astype(np.float64)

    def score(total: Floats) -> Floats:
        hit, said, own_hit, own_said, real = total
        mine = 2 * hit / (said + real) if said + real else 0.0
        theirs = 2 * own_hit / (own_said + real) if own_said + real else 0.0
        return np.array([mine, mine - theirs])

    if blocks < 5:
        return Estimate(float(score(both.sum(axis=0))[0])), None
    place = split_units(len(positive), groups, blocks, settings.seed)
    sums = np.stack([np.bincount(place, weights=column, minlength=blocks) for column in both.T], axis=1)
    f1, gain = jackknife(sums, score, settings.confidence)
    assert f1.low is not None
    assert f1.high is not None
    return Estimate(f1.value, max(0.0, f1.low), min(1.0, f1.high)), gain


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
