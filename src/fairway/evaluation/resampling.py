"""Bootstrap draws of every quality metric, of one model or of two on the same rows.

The rows get random weights with a Dirichlet distribution (Rubin's Bayesian bootstrap) instead of random counts: the same
spread, but no resample ever loses a class. Weights of rows that count alike are drawn as one Gamma variable, so what
depends on the confusion matrix alone costs as much as the matrix has cells, not as there are rows.

What the data never showed must not be taken for impossible. So pseudo-rows are added, worth half a row each in all: one
right and one wrong for a single classifier (for accuracy this is Jeffreys' interval), and for two models one of each
combination of right and wrong (as Agresti and Min do for accuracy).

Where a few rows make up most of a loss (a classifier that is seldom, but confidently wrong; squared errors with heavy tails),
no bootstrap of some hundred rows knows what the next such row costs: coverage of ``log_loss`` and
``root_mean_squared_error`` is then below nominal.

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
    models: Sequence[Classified], names: Sequence[str], resamples: int, seed: int, *, pseudo: bool = True
) -> list[Draws]:
    """Draws of classification metrics: for each model, arrays of shape (resamples,) by name, from the same weights.

    ``pseudo`` False leaves the pseudo-rows out of the AUC's draws.
    """
    found: list[Draws] = [{} for _ in models]
    if wanted := [name for name in names if name in weighted.CONFUSION_SCORES]:
        for draws, given in zip(found, _confusion_draws(models, resamples, seed), strict=True):
            draws.update({name: given[name] for name in wanted})
    if "roc_auc_score" in names:
        for draws, areas in zip(found, _auc_draws(models, resamples, seed, _MASS if pseudo else 0.0), strict=True):
            draws["roc_auc_score"] = areas
    if "log_loss" in names:
        for draws, losses in zip(found, _loss_draws(models, resamples, seed), strict=True):
            draws["log_loss"] = losses
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

    whole = _collect(_weights(len(models[0]), np.full(extra.shape[1], _MASS), resamples, seed), scores)
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


def _confusion_draws(models: Sequence[Classified], resamples: int, seed: int) -> list[Draws]:
    truth = models[0].truth
    occurring = [np.unique(np.concatenate([truth, model.predicted])) for model in models]
    rows = np.stack([truth, *(model.predicted for model in models)], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    pseudo, shares = _pseudo_rows(truth, models)
    cells = np.concatenate([cells, pseudo])
    shape = np.concatenate([counts.astype(np.float64), _MASS * shares])
    rng = np.random.default_rng([seed, 1])

    def chunks() -> Iterator[Floats]:
        for size in _chunk_sizes(resamples, len(shape)):
            yield rng.standard_gamma(shape, size=(size, len(shape)))

    def scores(weights: Floats) -> list[Draws]:
        return [
            weighted.confusion_scores(weights, cells[:, 0], cells[:, 1 + number], occurring=occurring[number])
            for number in range(len(models))
        ]

    return _collect(chunks(), scores)


def _auc_draws(models: Sequence[Classified], resamples: int, seed: int, mass: float) -> list[Floats]:
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

    return [draws["auc"] for draws in _collect(_weights(len(truth), mass * shares, resamples, seed), scores)]


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

    return [
        draws["auc"] for draws in _collect(_weights(len(truth), np.full(right.shape[1], mass), resamples, seed), scores)
    ]


def _loss_draws(models: Sequence[Classified], resamples: int, seed: int) -> list[Floats]:
    losses = np.stack([class_losses(model) for model in models])
    extra = _disagreements(len(models)) * float(losses.mean())
    longer = np.concatenate([losses, extra], axis=1)

    def scores(weights: Floats) -> list[Draws]:
        means = weights @ longer.T / weights.sum(axis=1, keepdims=True)
        return [{"loss": means[:, number]} for number in range(len(models))]

    return [
        draws["loss"]
        for draws in _collect(_weights(losses.shape[1], np.full(extra.shape[1], _MASS), resamples, seed), scores)
    ]


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


def _weights(rows: int, shape: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """Chunks of weights, unscaled: Exponential for rows, Gamma of the given shapes for pseudo-rows."""
    rng = np.random.default_rng([seed, 2])
    for size in _chunk_sizes(resamples, rows + len(shape)):
        yield np.concatenate(
            [rng.standard_exponential((size, rows)), rng.standard_gamma(shape, size=(size, len(shape)))], axis=1
        )


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
