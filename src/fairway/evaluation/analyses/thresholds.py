"""Which probability should count as "yes": ROC, precision-recall and cost curves, and thresholds.

Bands come from a Bayesian bootstrap in which each class has half a row more that is ranked as wrong as can be: what the rows
never showed is not impossible. A threshold is assessed on rows that it was not chosen on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.evaluation.curves import (
    Cells,
    Curve,
    average_precision,
    cells_of,
    cost_curve,
    costs_at,
    doubted,
    precision_recall_curve,
    ratio,
    roc_curve,
    taken,
)
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

_CLASSES = 10
_FEWEST = 10
"""Rows inside and outside a class below which there is no curve."""
WANTED = 0.9
"""The precision and the recall that thresholds are shown for."""


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


def _of_class(
    rows: Classified, chosen: int, settings: EvaluationSettings, costs: CostSettings | None, *, several: bool
) -> ClassThresholds:
    assert rows.probabilities is not None
    scores, positive = rows.probabilities[:, chosen], rows.truth == chosen
    cells = cells_of(scores, positive)
    size = len(cells.counts)
    drawn = cell_draws(2 * cells.place + positive, 2 * size, settings.resamples, settings.seed, rows.groups)
    draws = drawn.reshape(-1, size, 2)
    uncertain = doubted(draws, len(rows), rows.groups, settings.seed)
    precision = require("sklearn.metrics", extra="evaluate").average_precision_score(positive, scores)
    averages = average_precision(uncertain)
    return ClassThresholds(
        label=rows.labels[chosen],
        positives=int(positive.sum()),
        auc=_auc(scores, positive, rows.groups, settings.confidence),
        average_precision=quantile_estimates(np.array([precision]), averages[:, None], settings.confidence)[0],
        roc=roc_curve(cells.counts, uncertain, settings.confidence),
        precision_recall=precision_recall_curve(cells.counts, uncertain, settings.confidence),
        operating=tuple(_operating(rows, chosen, cells, settings, costs, brief=several)),
        cost=None if costs is None else cost_curve(cells, draws, costs, settings.confidence),
    )


def _auc(scores: Floats, positive: Mask, groups: Classes | None, confidence: float) -> Estimate:
    area, slopes = area_terms(scores, positive)
    ends = skewed_interval(area, spread(slopes, groups), confidence)
    return Estimate(area) if ends is None else Estimate(area, max(0.0, ends[0]), min(1.0, ends[1]))


def _operating(
    rows: Classified,
    chosen: int,
    cells: Cells,
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


def _counted(cells: Cells, positive: Mask, inside: Mask) -> Floats:
    size = len(cells.starts)
    counted = np.bincount(2 * cells.place[inside] + positive[inside], minlength=2 * size).reshape(-1, 2)
    return counted.astype(np.float64)


def _best(goal: str, counts: Floats, costs: CostSettings | None) -> int | None:
    """The cell whose start is the best threshold; ``None`` where none reaches the goal."""
    above = taken(counts)
    total = max(above[0, 1], np.finfo(float).tiny)
    precision, recall = ratio(above[:, 1], above.sum(axis=1)), above[:, 1] / total
    if goal == "f1":
        return int((2 * above[:, 1] / (above.sum(axis=1) + total)).argmax())
    if goal == "cost":
        assert costs is not None
        return int(costs_at(counts, costs).argmin())
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
    sums = np.zeros((blocks, both.shape[1]))
    np.add.at(sums, place, both)
    f1, gain = jackknife(sums, score, settings.confidence)
    assert f1.low is not None
    assert f1.high is not None
    return Estimate(f1.value, max(0.0, f1.low), min(1.0, f1.high)), gain
