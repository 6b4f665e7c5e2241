"""Bootstrap draws of every quality metric, of one model or of two on the same rows.

The rows get random weights with a Dirichlet distribution (Rubin's Bayesian bootstrap) instead of random counts: the same
spread, but no resample ever loses a class. Weights of rows that count alike are drawn as one Gamma variable, so what
depends on the confusion matrix alone costs as much as the matrix has cells, not as there are rows.

What the data never showed must not be taken for impossible. So pseudo-rows are added, worth half a row each in all: one
right and one wrong for a single classifier (for accuracy this is Jeffreys' interval), and for two models one of each
combination of right and wrong (as Agresti and Min do for accuracy).

Rows of one group get one weight together, so that a resample has or lacks the whole group; a pseudo-row is then worth half a
group of average size.

References
----------
D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9(1), 1981.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fairway.evaluation import weighted

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Classified, Floats, Regressed

Draws: TypeAlias = dict[str, "Floats"]

_MASS = 0.5
_CHUNK_ELEMENTS = 2_000_000
"""Weights held at once: 16 MB, and a few times that while they are used."""
_EXACT_AUC_ELEMENTS = 200_000
"""Rows times classes up to which AUC is computed anew per resample; beyond, its linear form is as good and far faster."""


def draw_classification(
    models: Sequence[Classified],
    names: Sequence[str],
    resamples: int,
    seed: int,
    *,
    pseudo: bool = True,
    stratified: bool = False,
) -> list[Draws]:
    """Draws of classification metrics: for each model, arrays of shape (resamples,) by name, from the same weights.

    ``pseudo`` False leaves the pseudo-rows out of the AUC's draws. ``stratified`` keeps each class's total weight.
    """
    found: list[Draws] = [{} for _ in models]
    if wanted := [name for name in names if name in weighted.CONFUSION_SCORES]:
        for draws, given in zip(found, _confusion_draws(models, resamples, seed, stratified), strict=True):
            draws.update({name: given[name] for name in wanted})
    if "roc_auc_score" in names:
        mass = _mass(models[0]) if pseudo else 0.0
        for draws, areas in zip(found, _auc_draws(models, resamples, seed, mass, stratified), strict=True):
            draws["roc_auc_score"] = areas
    return found


def draw_regression(models: Sequence[Regressed], names: Sequence[str], resamples: int, seed: int) -> list[Draws]:
    """Draws of regression metrics: for each model, arrays of shape (resamples,) by name, from the same weights."""
    truth = models[0].truth
    errors = np.stack([model.predicted - model.truth for model in models])
    typical = float(np.sqrt((errors**2).mean()))
    extra = _disagreements(len(models)) * typical
    errors = np.concatenate([errors, extra], axis=1)
    truth = np.concatenate([truth, np.full(extra.shape[1], truth.mean())])

    def scores(weights: Floats) -> list[Draws]:
        return [weighted.error_metrics(weights, truth, own) for own in errors]

    mass = np.full(extra.shape[1], _mass(models[0]))
    whole = _collect(_weights(len(models[0]), mass, resamples, seed, models[0].groups), scores)
    return [{name: draws[name] for name in names} for draws in whole]


def class_losses(rows: Classified) -> Floats:
    """Negative log probability of each row's label, in nats, clipped as scikit-learn clips it."""
    assert rows.probabilities is not None
    chosen = rows.probabilities[np.arange(len(rows)), rows.truth]
    losses: Floats = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))
    return losses


def ranked_classes(truth: Classes, classes: int) -> list[int]:
    """The classes whose AUC is defined: with rows inside and outside; of two classes, the second."""
    counts = np.bincount(truth, minlength=classes)
    defined = [c for c in range(classes) if 0 < counts[c] < len(truth)]
    return [c for c in defined if c == 1] if classes == 2 else defined


def _confusion_draws(models: Sequence[Classified], resamples: int, seed: int, stratified: bool) -> list[Draws]:
    truth, groups = models[0].truth, models[0].groups
    occurring = [np.unique(np.concatenate([truth, model.predicted])) for model in models]
    rows = np.stack([truth, *(model.predicted for model in models)], axis=1)
    cells, place, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    pseudo, shares = _pseudo_rows(truth, models)
    cells = np.concatenate([cells, pseudo])
    extra = _mass(models[0]) * shares
    shape = np.concatenate([counts.astype(np.float64), extra])
    rng = np.random.default_rng([seed, 1])

    def chunks() -> Iterator[Floats]:
        if groups is not None:
            for weights in _weights(len(truth), extra, resamples, seed, groups):
                yield weighted.sum_by(weights, np.concatenate([place.ravel(), _after(counts, extra)]), len(shape))
            return
        for size in _chunk_sizes(resamples, len(shape)):
            yield rng.standard_gamma(shape, size=(size, len(shape)))

    def scores(weights: Floats) -> list[Draws]:
        return [
            weighted.confusion_scores(weights, cells[:, 0], cells[:, 1 + number], occurring=occurring[number])
            for number in range(len(models))
        ]

    kept = _keep_strata(chunks(), cells[:, 0], shape) if stratified else chunks()
    return _collect(kept, scores)


def _auc_draws(models: Sequence[Classified], resamples: int, seed: int, mass: float, stratified: bool) -> list[Floats]:
    truth, classes = models[0].truth, len(models[0].labels)
    ranked = ranked_classes(truth, classes)
    if len(truth) * len(ranked) > _EXACT_AUC_ELEMENTS:
        return _linear_auc_draws(models, ranked, resamples, seed, mass)
    pseudo, shares = _pseudo_rows(truth, models)
    longer = np.concatenate([truth, pseudo[:, 0]])
    rankings = []
    for number, model in enumerate(models):
        assert model.probabilities is not None
        guessed = pseudo[:, 1 + number]
        rankings.append(
            [
                # a pseudo-row's scores lie beyond all others: only their order counts
                weighted.rank(
                    np.concatenate([model.probabilities[:, c], np.where(guessed == c, 2.0, -1.0)]), longer == c
                )
                for c in ranked
            ]
        )

    def scores(weights: Floats) -> list[Draws]:
        return [{"auc": np.mean([weighted.auc(weights, one) for one in own], axis=0)} for own in rankings]

    weights = _weights(len(truth), mass * shares, resamples, seed, models[0].groups)
    if stratified:
        weights = _keep_strata(weights, longer, np.concatenate([np.ones(len(truth)), mass * shares]))
    return [draws["auc"] for draws in _collect(weights, scores)]


def _linear_auc_draws(
    models: Sequence[Classified], ranked: Sequence[int], resamples: int, seed: int, mass: float
) -> list[Floats]:
    truth = models[0].truth
    areas, influences = [], []
    for model in models:
        assert model.probabilities is not None
        parts = [weighted.auc_influence(model.probabilities[:, c], truth == c) for c in ranked]
        areas.append(float(np.mean([area for area, _ in parts])))
        influences.append(np.mean([influence for _, influence in parts], axis=0))
    right = np.array(list(product((1.0, 0.0), repeat=len(models)))).T  # whether each pseudo-row is ranked right
    slopes = np.stack(influences)
    slopes = np.concatenate([slopes, right - np.array(areas)[:, None]], axis=1)

    def scores(weights: Floats) -> list[Draws]:
        moved = weights @ slopes.T / weights.sum(axis=1, keepdims=True)
        return [{"auc": np.clip(area + moved[:, number], 0.0, 1.0)} for number, area in enumerate(areas)]

    weights = _weights(len(truth), np.full(right.shape[1], mass), resamples, seed, models[0].groups)
    return [draws["auc"] for draws in _collect(weights, scores)]


def _disagreements(models: int) -> Floats:
    """For two models, a row that only one gets right and its mirror image, in units of the typical error; else none."""
    return np.eye(2) if models == 2 else np.empty((models, 0))


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


def _weights(rows: int, shape: Floats, resamples: int, seed: int, groups: Classes | None = None) -> Iterator[Floats]:
    """Chunks of weights, unscaled: Exponential for rows or their groups, Gamma of the given shapes for pseudo-rows."""
    rng = np.random.default_rng([seed, 2])
    units = rows if groups is None else int(groups.max()) + 1
    scale = rows / units  # half a group of pseudo-rows varies as half a group does
    for size in _chunk_sizes(resamples, rows + len(shape)):
        real = rng.standard_exponential((size, units))
        extra = scale * rng.standard_gamma(shape / scale, size=(size, len(shape)))
        yield np.concatenate([real if groups is None else real[:, groups], extra], axis=1)


def _mass(rows: Classified | Regressed) -> float:
    """What the pseudo-rows of one kind are worth in all, in rows: half a row, or half a group."""
    return _MASS if rows.groups is None else _MASS * len(rows) / (int(rows.groups.max()) + 1)


def _after(counts: Classes, extra: Floats) -> Classes:
    """The places of pseudo-rows, after the cells of real ones."""
    return np.arange(len(counts), len(counts) + len(extra))


def _keep_strata(chunks: Iterator[Floats], strata: Classes, shape: Floats) -> Iterator[Floats]:
    """The weights, scaled so that each stratum weighs in all what it does without resampling."""
    wanted = np.bincount(strata, weights=shape)
    for weights in chunks:
        drawn = weighted.sum_by(weights, strata, len(wanted))
        factors = np.divide(wanted, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        yield weights * factors[:, strata]


def _chunk_sizes(resamples: int, columns: int) -> Iterator[int]:
    step = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _collect(chunks: Iterator[Floats], scores: Callable[[Floats], list[Draws]]) -> list[Draws]:
    parts = [scores(weights) for weights in chunks]
    return [
        {name: np.concatenate([part[number][name] for part in parts]) for name in parts[0][number]}
        for number in range(len(parts[0]))
    ]
