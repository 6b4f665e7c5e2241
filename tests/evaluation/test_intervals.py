"""Intervals cover as often as they say, and never claim to be certain. Rates are confirmed by seeded simulations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from fairway.core.mapping import IN_ORDER
from fairway.evaluation.difference import measure_difference
from fairway.evaluation.intervals import (
    EXACT,
    draws_interval,
    matched_interval,
    proportion_interval,
    proportion_method,
)
from fairway.evaluation.measure import measure
from fairway.evaluation.metrics import quality_metrics, value
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.settings import EvaluationSettings
from tests.evaluation.conftest import classified, regressed

FAST = EvaluationSettings(resamples=400)
CLASSIFICATION, REGRESSION = quality_metrics("classification"), quality_metrics("regression")


def _coverage(trials: int, shares: np.ndarray) -> np.ndarray:
    """How often the interval of a proportion is wholly below, holds, and is wholly above each of the true shares.

    Not simulated: summed over every possible outcome.
    """
    ends = np.array([proportion_interval(hits, trials, 0.95) for hits in range(trials + 1)])
    chances = binom.pmf(np.arange(trials + 1), trials, shares[:, None])
    below, above = (chances * (ends[:, 1] < shares[:, None])).sum(1), (chances * (ends[:, 0] > shares[:, None])).sum(1)
    return np.stack([below, 1 - below - above, above])


@pytest.mark.parametrize("trials", [30, 100, 300, 1000])
def test_the_interval_of_a_proportion_covers_as_stated_where_ten_of_each_kind_are_expected(trials: int) -> None:
    below, covered, above = _coverage(trials, np.linspace(10 / trials, 1 - 10 / trials, 400))
    assert 0.93 <= covered.min() <= covered.max() <= 0.97
    assert max(below.max(), above.max()) <= 0.04


@pytest.mark.parametrize("trials", [30, 100, 300, 1000])
def test_nearer_to_0_or_1_it_is_cautious(trials: int) -> None:
    below, covered, above = _coverage(trials, np.linspace(0.1 / trials, 10 / trials, 400))
    assert covered.min() >= 0.935
    assert max(below.max(), above.max()) <= 0.04


def test_near_1_nothing_is_flattered() -> None:
    """A gate of 0.99 is passed by models that do not reach it no more often than is stated, as few rows as there are."""
    for trials in (300, 368, 450):
        assert _coverage(trials, np.linspace(0.985, 0.9999, 400))[2].max() <= 0.025
    assert proportion_method(364, 368) == EXACT != proportion_method(363, 368)


def test_the_matched_interval_is_that_of_its_formula() -> None:
    """b* = gained + 1/2, c* = lost + 1/2, n* = n + 2."""
    low, high = matched_interval(20, 8, 100, 0.95)
    center, error = (20.5 - 8.5) / 102, math.sqrt(29 - 12**2 / 102) / 102
    assert (low, high) == pytest.approx((center - 1.959964 * error, center + 1.959964 * error), abs=1e-6)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(100, 1000))
def test_the_matched_interval_turns_around_with_the_models(gained: int, lost: int, pairs: int) -> None:
    one, two = matched_interval(gained, lost, pairs, 0.95), matched_interval(lost, gained, pairs, 0.95)
    assert one == pytest.approx((-two[1], -two[0]))
    assert one[0] < one[1]


def test_draws_that_are_all_equal_bound_nothing() -> None:
    assert draws_interval(np.full(1000, 0.5), 0.95) is None


def test_percentiles_beyond_the_outermost_draw_bound_nothing() -> None:
    draws = np.random.default_rng(0).normal(size=1000)
    assert draws_interval(draws, 0.95, rows=4) is None
    assert draws_interval(draws, 0.95, rows=20) is not None


# coverage: 500 rounds, so a true 95 % shows as 93 to 97 % (two standard errors), and the true value of each metric is that of
# a very large sample

ROUNDS = 500


def imbalanced(seed: int, rows: int) -> Classified:
    """Two classes, one row in ten of the second."""
    rng = np.random.default_rng([seed, 41])
    truth = (rng.random(rows) < 0.1).astype(int)
    right = 1 / (1 + np.exp(1 - rng.normal(size=rows) - np.where(truth == 1, 1, -1)))
    probabilities = np.stack([1 - right, right], axis=1)
    return Classified(truth, probabilities.argmax(axis=1), probabilities, ("no", "yes"))


def skewed(seed: int, rows: int) -> Regressed:
    """Errors of a Gamma distribution: their squares are very skewed."""
    rng = np.random.default_rng([seed, 42])
    truth = rng.normal(size=rows)
    return Regressed(truth, truth + 0.3 * (rng.gamma(2, 1, size=rows) - 2))


@pytest.mark.parametrize(
    ("sample", "rows"),
    [
        (partial(classified, classes=3, separation=1.5), 100),
        (partial(classified, classes=3, separation=2.5), 300),
        (imbalanced, 200),
        (regressed, 100),
        (skewed, 300),
    ],
    ids=["three classes", "good classifier", "one in ten", "normal errors", "skewed errors"],
)
def test_intervals_of_every_metric_cover(sample: Callable[[int, int], Classified | Regressed], rows: int) -> None:
    large = sample(10**6, 500_000)
    names = CLASSIFICATION if isinstance(large, Classified) else REGRESSION
    truths, covered = {name: value(name, large) for name in names}, dict.fromkeys(names, 0)
    for seed in range(ROUNDS):
        chosen = EvaluationSettings(resamples=500, seed=seed)
        for found in measure(sample(seed, rows), names, chosen, mapper=IN_ORDER):
            covered[found.metric] += found.low <= truths[found.metric] <= found.high
    rates = {name: count / ROUNDS for name, count in covered.items()}
    assert not {name: rate for name, rate in rates.items() if not 0.93 <= rate <= 0.97}


def test_of_an_auc_near_1_the_interval_is_cautious() -> None:
    """Its lower end allows for rows out of place that the sample happened not to show, as nearly all samples do."""
    truth, covered, below = value("roc_auc_score", classified(10**6, 500_000, 2, 2.2)), 0, 0
    for seed in range(ROUNDS):
        (found,) = measure(classified(seed, 100, 2, 2.2), ["roc_auc_score"], FAST)
        covered += found.low <= truth <= found.high
        below += found.high < truth
    assert 0.95 <= covered / ROUNDS <= 0.99
    assert below / ROUNDS <= 0.025 + 2.33 * math.sqrt(0.025 * 0.975 / ROUNDS)


def _models(seed: int, rows: int) -> tuple[Classified, Classified]:
    """Two models, equally good, that err on different rows of the same truth."""
    ours = classified(seed, rows)
    theirs = classified(seed + 10**5, rows)
    assert ours.probabilities is not None
    assert theirs.probabilities is not None
    shift = (ours.truth - theirs.truth) % 3  # relabel the other's rows so that both have one truth
    columns = (np.arange(3) - shift[:, None]) % 3
    probabilities = np.take_along_axis(theirs.probabilities, columns, axis=1)
    return ours, Classified(ours.truth, probabilities.argmax(axis=1), probabilities, ours.labels)


def test_equal_classifiers_are_seldom_called_different() -> None:
    names = ("accuracy_score", "f1_score", "log_loss")
    wrong = dict.fromkeys(names, 0)
    for seed in range(ROUNDS):
        for found in measure_difference(*_models(seed, 200), names, FAST, versus="c"):
            wrong[found.metric] += not found.low <= 0 <= found.high
    for name, count in wrong.items():
        assert count <= binom.ppf(0.99, ROUNDS, 0.05), name  # a true 5 % shows as more in one simulation of a hundred
        assert count / ROUNDS >= 0.02, f"{name}: an interval that is never wrong is too wide to be of use"


def test_equal_regressors_are_seldom_called_different() -> None:
    wrong = 0
    for seed in range(ROUNDS):
        ours, noise = regressed(seed, 200), regressed(seed + 10**5, 200)
        theirs = Regressed(ours.truth, ours.truth + noise.predicted - noise.truth)
        (found,) = measure_difference(ours, theirs, ["mean_absolute_error"], FAST, versus="c")
        wrong += not found.low <= 0 <= found.high
    assert 0.02 * ROUNDS <= wrong <= binom.ppf(0.99, ROUNDS, 0.05)


# certainty is never claimed


def test_a_flawless_classifier_is_not_certain() -> None:
    truth = np.arange(60) % 3
    flawless = Classified(truth, truth, np.eye(3)[truth], ("a", "b", "c"))
    for found in measure(flawless, CLASSIFICATION, FAST):
        assert found.low < found.high, found.metric
        assert found.low <= found.value <= found.high, found.metric
        if found.metric != "log_loss":
            assert 0.85 < found.low < 0.999, found.metric


def test_models_that_never_differ_are_not_taken_for_equal_with_certainty() -> None:
    rows = classified(0, 450)
    for found in measure_difference(rows, rows, CLASSIFICATION, FAST, versus="c"):
        assert found.value == 0
        assert -0.02 < found.low < 0 < found.high < 0.02, found
    values = regressed(0, 450)
    for found in measure_difference(values, values, REGRESSION, FAST, versus="c"):
        assert found.value == 0
        assert found.low < 0 < found.high, found


def test_one_class_alone_is_no_crash_and_no_certainty() -> None:
    rows = Classified(np.zeros(20, int), np.zeros(20, int), np.tile([0.9, 0.1], (20, 1)), ("a", "b"))
    for found in measure(rows, CLASSIFICATION, FAST):
        assert found.low < found.high
        assert not found.error


def test_a_flawless_regressor_says_that_nothing_bounds_its_error() -> None:
    rows = Regressed(np.arange(30.0), np.arange(30.0))
    for found in measure(rows, REGRESSION, FAST):
        assert found.low < found.high
        assert "do not show" in found.method
    assert measure(rows, ["mean_absolute_error"], FAST)[0].high == math.inf


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_hardly_any_rows_give_wide_intervals_and_no_crash(count: int) -> None:
    few: list[Classified | Regressed] = [
        classified(0, 50).select(np.arange(50) < count),
        regressed(0, 50).select(np.arange(50) < count),
    ]
    for rows, names in zip(few, (CLASSIFICATION, REGRESSION), strict=True):
        for found in measure(rows, names, FAST):
            assert found.high - found.low > 0.3, found
            assert found.n == count


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(2, 5), st.floats(0, 8))
def test_an_interval_holds_its_value(seed: int, rows: int, classes: int, separation: float) -> None:
    data = classified(seed, rows, classes, separation)
    for found in measure(data, CLASSIFICATION, EvaluationSettings(resamples=100)):
        if found.known:
            assert found.low <= found.value <= found.high
            assert found.low >= -1e-9
            if found.metric != "log_loss":
                assert found.high <= 1 + 1e-9


def test_the_same_seed_gives_the_same_interval_and_another_gives_another() -> None:
    rows = classified(0, 100)
    one, two, other = (measure(rows, CLASSIFICATION, EvaluationSettings(seed=seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_model_without_probabilities_cannot_be_ranked() -> None:
    rows = classified(0, 50)
    labels_only = Classified(rows.truth, rows.predicted, None, rows.labels)
    found = {m.metric: m for m in measure(labels_only, CLASSIFICATION, FAST)}
    assert "needs probabilities" in found["log_loss"].error
    assert found["f1_score"].known
