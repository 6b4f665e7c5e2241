"""How metrics differ between groups of people: values by fairlearn, intervals that hold for all pairs of groups at once."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.estimates import Estimate, cell_draws

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask

_NORMAL = 10_000
FEWEST = 30
"""Rows of a group below which it is called too small to tell."""


class Rates(NamedTuple):
    """One metric in every group that defines it, as a share (or mean) over some of the rows.

    ``hits`` are what is averaged, ``over`` the rows that it is averaged over.
    """

    metric: str
    hits: Floats
    over: Mask


def classified_rates(positive: Mask | None, said: Mask | None, right: Mask) -> list[Rates]:
    """Accuracy; where there is a positive class, also selection, true and false positive rates."""
    everything = np.ones(len(right), dtype=bool)
    found = [Rates("accuracy", right.astype(np.float64), everything)]
    if positive is not None and said is not None:
        given = said.astype(np.float64)
        found += [
            Rates("selection rate", given, everything),
            Rates("true positive rate", given, positive),
            Rates("false positive rate", given, ~positive),
        ]
    return found


def regressed_rates(errors: Floats) -> list[Rates]:
    """The mean error and the mean absolute error."""
    everything = np.ones(len(errors), dtype=bool)
    return [Rates("mean error", errors, everything), Rates("mean absolute error", np.abs(errors), everything)]


def by_group(rates: Rates, members: Classes) -> dict[int, float]:
    """The metric in every group that has rows for it, by fairlearn's ``MetricFrame``."""
    frame = require("fairlearn.metrics", extra="fairness").MetricFrame

    def mean(truth: Any, predicted: Any) -> float:
        del truth
        return float(np.mean(predicted))

    hits, groups = rates.hits[rates.over], members[rates.over]
    if not len(hits):
        return {}
    made = frame(metrics=mean, y_true=hits, y_pred=hits, sensitive_features=groups)
    return {int(group): float(value) for group, value in made.by_group.items()}


def group_draws(rates: Rates, members: Classes, size: int, resamples: int, seed: int, groups: Classes | None) -> Floats:
    """Bayesian bootstrap of the metric in every group; shape (resamples, size), NaN in groups without rows for it.

    A share has half a row more of each kind in every group (Jeffreys), so that one of 0 or 1 is not taken for certain.
    """
    hits, own = rates.hits[rates.over], members[rates.over]
    clusters = None if groups is None else np.unique(groups[rates.over], return_inverse=True)[1]
    seed = seed + zlib.crc32(rates.metric.encode())  # of other rows, so the noise must not be the same
    counts = np.bincount(own, minlength=size)
    if not len(hits):
        return np.full((resamples, size), np.nan)
    values = np.unique(hits)
    if len(values) <= 2 and set(values.tolist()) <= {0.0, 1.0}:
        drawn = cell_draws(2 * own + (hits > 0), 2 * size, resamples, seed, clusters).reshape(resamples, size, 2)
        drawn = drawn + np.random.default_rng([seed, 10]).standard_gamma(0.5, size=drawn.shape)
        shares = drawn[..., 1] / drawn.sum(axis=-1)
        # a posterior is narrower than what a sample of so few rows varies by
        middle, wider = shares.mean(axis=0), np.sqrt((counts + 2) / np.maximum(counts - 1, 1))
        shares = np.clip(middle + (shares - middle) * wider, 1e-9, 1 - 1e-9)
    else:
        shares = _mean_draws(hits, own, size, resamples, seed, clusters)
    drawn_shares: Floats = np.where(counts > 0, shares, np.nan)
    return drawn_shares


def largest_difference(values: dict[int, float], draws: list[Floats], confidence: float) -> Estimate:
    """The largest difference between two groups, in any of several metrics, with an interval that the maximum cannot fool.

    Parameters
    ----------
    values : dict
        Unused groups are absent; only tells which groups there are.
    draws : list of float arrays of shape (resamples, groups)
        One per metric.

    Notes
    -----
    The largest of several noisy differences is too large, and a bootstrap of it never reaches 0. So all pairs (of all metrics)
    get intervals that hold at once, by the quantile of the largest of their studentized deviations; the largest
    true difference is then at least the largest lower end and at most the largest upper one.

    References
    ----------
    J. P. Romano, M. Wolf, "Exact and approximate stepdown methods for multiple hypothesis testing", JASA 100(469), 2005
    (the largest studentized deviation).
    """
    pairs = np.concatenate([_pairs(each, sorted(values)) for each in draws], axis=1)
    if pairs.shape[1] == 0:
        return Estimate(0.0)
    center, low, high = _simultaneous(pairs, confidence)
    sizes_low = np.maximum(np.maximum(low, -high), 0.0)
    sizes_high = np.maximum(np.abs(low), np.abs(high))
    return Estimate(float(np.abs(center).max()), float(sizes_low.max()), float(sizes_high.max()))


def least_ratio(values: dict[int, float], draws: Floats, confidence: float) -> Estimate:
    """The least ratio between two groups' rates, at most 1, with an interval as that of the largest difference."""
    found = largest_difference(values, [np.log(draws)], confidence)
    if found.low is None or found.high is None:
        return Estimate(1.0)
    return Estimate(float(np.exp(-found.value)), float(np.exp(-found.high)), float(np.exp(-found.low)))


def _mean_draws(values: Floats, own: Classes, size: int, resamples: int, seed: int, clusters: Classes | None) -> Floats:
    """Means of unequal values: a normal draw per group, or, where clusters may span groups, weights of the clusters."""
    if clusters is None:
        counts = np.maximum(np.bincount(own, minlength=size), 1)
        means = np.bincount(own, weights=values, minlength=size) / counts
        squares = np.bincount(own, weights=(values - means[own]) ** 2, minlength=size)
        errors = np.sqrt(squares / np.maximum(counts - 1, 1) / counts)
        errors = np.where(counts > 1, errors, np.sqrt(values.var() + 1e-300))
        normal: Floats = means + errors * np.random.default_rng([seed, 11]).standard_normal((resamples, size))
        return normal
    from scipy.sparse import csr_array

    units = int(clusters.max()) + 1
    sums = csr_array((values, (clusters, own)), shape=(units, size)).toarray()
    held = csr_array((np.ones(len(own)), (clusters, own)), shape=(units, size)).toarray()
    weights = np.random.default_rng([seed, 11]).standard_exponential((resamples, units))
    means_drawn: Floats = (weights @ sums) / np.maximum(weights @ held, np.finfo(float).tiny)
    return means_drawn


def _pairs(draws: Floats, known: list[int]) -> Floats:
    first, second = np.triu_indices(len(known), 1)
    chosen = draws[:, known]
    pairs: Floats = chosen[:, first] - chosen[:, second]
    return pairs


def _simultaneous(draws: Floats, confidence: float) -> tuple[Floats, Floats, Floats]:
    """Centers and ends that hold for all columns at once.

    The draws give the columns' covariance; the largest deviation is simulated from normal numbers, of which there can be more.
    """
    center = draws.mean(axis=0)
    covariance = np.atleast_2d(np.cov(draws, rowvar=False))
    deviation = np.maximum(np.sqrt(covariance.diagonal()), 1e-12)
    values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    normal = np.random.default_rng(12).standard_normal((_NORMAL, len(values)))
    largest = np.abs((normal * np.sqrt(np.maximum(values, 0))) @ vectors.T).max(axis=1)
    reach = float(np.quantile(largest, confidence)) * deviation
    return center, center - reach, center + reach
