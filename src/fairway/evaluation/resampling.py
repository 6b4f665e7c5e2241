"""Bootstrap draws of the quality metrics that need them, of one model or of two on the same rows.

What depends on few numbers costs few draws. Rows in the same cell of the confusion matrix have one Gamma variable together. A
median is decided by the rows near it: those are drawn one by one, all others together.

What the data never showed must not be taken for impossible. So pseudo-rows are added, worth half a row each in all: one
right and one wrong for a single classifier (for accuracy this is Jeffreys' interval), and for two models one of each
combination of right and wrong (as Agresti and Min do for accuracy). With groups, a pseudo-row is worth half a group of
average size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fairway.core.mapping import THREADS, Mapper
from fairway.evaluation import weighted
from fairway.evaluation.draws import CellWeights, Joined, Source, Sums, cells_by_group, drawn

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Classified, Floats, Regressed

Draws: TypeAlias = dict[str, "Floats"]

_MASS = 0.5
_WINDOW = 8.0
"""Standard errors to each side of a median within which rows have weights of their own: none beyond in 10^15 draws."""
_CONFUSION, _MEDIAN = 1, 2
"""Streams of random numbers."""


def draw_scores(
    models: Sequence[Classified],
    names: Sequence[str],
    resamples: int,
    seed: int,
    *,
    stratified: bool = False,
    mapper: Mapper = THREADS,
) -> list[Draws]:
    """Draws of ``CONFUSION_SCORES``: for each model, arrays of shape (resamples,) by name, from the same weights.

    ``stratified`` keeps each class's total weight.
    """
    truth = models[0].truth
    occurring = [np.unique(np.concatenate([truth, model.predicted])) for model in models]
    cells, place, counts = weighted.cells([truth, *(model.predicted for model in models)])
    pseudo, shares = _pseudo_rows(truth, models)
    extra = _mass(models[0]) * shares
    source = _cell_source(place, len(cells), extra, models[0].groups)
    cells = np.concatenate([cells, pseudo])
    shape = np.concatenate([counts.astype(np.float64), extra])

    def scores(weights: Floats) -> Floats:
        if stratified:
            weights = _keep_strata(weights, cells[:, 0], shape)
        of_models = [
            weighted.confusion_scores(weights, cells[:, 0], cells[:, 1 + number], occurring=occurring[number])
            for number in range(len(models))
        ]
        return np.stack([np.stack([own[name] for name in names], axis=1) for own in of_models], axis=1)

    found = drawn(source, scores, resamples, seed, _CONFUSION, mapper)
    return [{name: found[:, number, place] for place, name in enumerate(names)} for number in range(len(models))]


def draw_medians(models: Sequence[Regressed], resamples: int, seed: int, mapper: Mapper = THREADS) -> list[Floats]:
    """Draws of the median absolute error: for each model, shape (resamples,), from the same weights.

    Exact: rows further from the median than it ever moves count alike, whatever their errors.
    """
    errors = [np.abs(model.predicted - model.truth) for model in models]
    groups, rows = models[0].groups, len(models[0])
    code, single = np.zeros(rows, np.intp), np.zeros(rows, bool)
    for own in errors:
        low, high = _median_window(own, groups)
        near = (own >= low) & (own <= high)
        single |= near
        code = code * 2 + (own > high)
    cells, place = np.unique(code[~single], return_inverse=True)
    alone = int(single.sum())
    unit = np.empty(rows, np.intp)
    unit[single], unit[~single] = np.arange(alone), alone + place
    typical = math.sqrt(float(np.mean([(own**2).mean() for own in errors])))
    pseudo = np.eye(2) * typical if len(models) == 2 else np.empty((1, 0))
    values = []
    for number, own in enumerate(errors):
        beyond = (cells >> (len(models) - 1 - number)) & 1
        values.append(np.concatenate([own[single], np.where(beyond, np.inf, -np.inf), pseudo[number]]))
    shapes = np.full(pseudo.shape[1], _mass(models[0]))
    source = _cell_source(unit, alone + len(cells), shapes, groups)
    bounds = [(own[single].min(), own[single].max()) for own in errors]

    def medians(weights: Floats) -> Floats:
        found = [np.clip(weighted.weighted_median(weights, v), *b) for v, b in zip(values, bounds, strict=True)]
        return np.stack(found, axis=1)

    return list(drawn(source, medians, resamples, seed, _MEDIAN, mapper).T)


def class_losses(rows: Classified) -> Floats:
    """Negative log probability of each row's label, in nats, clipped as scikit-learn clips it."""
    assert rows.probabilities is not None
    return rows.badness()


def _median_window(errors: Floats, groups: Classes | None) -> tuple[float, float]:
    """Between which errors the median of a resample lies, practically always."""
    rows = len(errors)
    middle = np.partition(errors, (rows - 1) // 2)[(rows - 1) // 2]
    above = (errors > middle) - 0.5
    if groups is not None:
        above = np.bincount(groups, weights=above)
    # pseudo-rows weigh as one row or group at most
    reach = _WINDOW * (math.sqrt(float((above**2).sum())) + float(np.abs(above).max())) + 1
    low, high = int((rows - 1) / 2 - reach), math.ceil((rows - 1) / 2 + reach)
    if low <= 0 or high >= rows - 1:
        return -math.inf, math.inf
    ends = np.partition(errors, (low, high))[[low, high]]
    return float(ends[0]), float(ends[1])


def _pseudo_rows(truth: Classes, models: Sequence[Classified]) -> tuple[Classes, Floats]:
    """Rows of (truth, prediction of each model) and their shares: one row per combination, in the classes' proportion."""
    present, counts = np.unique(truth, return_counts=True)
    others = np.unique(np.concatenate([truth, *(model.predicted for model in models)]))
    following = others[(np.searchsorted(others, present) + 1) % len(others)]
    if len(others) == 1:  # nothing was ever taken for another class: any other will do
        following = np.where(present == 0, 1, 0)
    patterns = list(product((True, False), repeat=len(models)))
    rows = [[present, *(np.where(right, present, following) for right in pattern)] for pattern in patterns]
    shares = np.tile(counts / counts.sum(), len(patterns))
    return np.concatenate([np.stack(columns, axis=1) for columns in rows]), shares


def _cell_source(place: Classes, count: int, extra: Floats, groups: Classes | None) -> Source:
    """Weights of ``count`` cells, row by row in ``place``, and of pseudo-rows."""
    if groups is None:
        return CellWeights(np.concatenate([np.bincount(place, minlength=count).astype(np.float64), extra]))
    own = cells_by_group(groups, place, count)
    return Joined((Sums(own), CellWeights(extra, len(place) / own.shape[0])))


def _mass(rows: Classified | Regressed) -> float:
    """What the pseudo-rows of one kind are worth in all, in rows: half a row, or half a group."""
    return _MASS if rows.groups is None else _MASS * len(rows) / (int(rows.groups.max()) + 1)


def _keep_strata(weights: Floats, strata: Classes, shape: Floats) -> Floats:
    """The weights, scaled so that each stratum weighs in all what it does without resampling."""
    wanted = np.bincount(strata, weights=shape)
    now = weighted.sum_by(weights, strata, len(wanted))
    factors = np.divide(wanted, now, out=np.zeros_like(now), where=now > 0)
    kept: Floats = weights * factors[:, strata]
    return kept
