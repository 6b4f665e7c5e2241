"""Metrics are scikit-learn's; the fast form that the bootstrap uses gives the same numbers for any weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Limit
from fairway.evaluation import roc, weighted
from fairway.evaluation.metrics import check_metrics, quality_metrics, value
from fairway.evaluation.predictions import Classified, Floats
from fairway.evaluation.resampling import class_losses
from tests.evaluation.conftest import classified, regressed

SEEDS = st.integers(0, 2**32)


def _weights(seed: int, rows: int) -> Floats:
    return np.random.default_rng([seed, 3]).standard_exponential((2, rows))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(2, 6))
def test_confusion_scores_of_weighted_rows_are_those_of_scikit_learn(seed: int, rows: int, classes: int) -> None:
    data, weights = classified(seed, rows, classes, 1.0), _weights(seed, rows)
    occurring = np.unique(np.concatenate([data.truth, data.predicted]))
    ours = weighted.confusion_scores(weights, data.truth, data.predicted, occurring=occurring)
    macro = {"average": "macro", "zero_division": 0}
    for row, w in enumerate(weights):
        pair = (data.truth, data.predicted)
        assert ours["accuracy_score"][row] == pytest.approx(sk.accuracy_score(*pair, sample_weight=w))
        assert ours["f1_score"][row] == pytest.approx(sk.f1_score(*pair, sample_weight=w, **macro))
        assert ours["precision_score"][row] == pytest.approx(sk.precision_score(*pair, sample_weight=w, **macro))
        assert ours["recall_score"][row] == pytest.approx(sk.recall_score(*pair, sample_weight=w, **macro))
        present = np.unique(data.truth)
        balanced = sk.recall_score(*pair, sample_weight=w, labels=present, **macro)
        assert ours["balanced_accuracy_score"][row] == pytest.approx(balanced)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 60), st.integers(1, 20))
def test_both_sides_placements_average_to_scikit_learns_auc_ties_included(seed: int, rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, levels, rows).astype(float), rng.random(rows) < 0.5
    positive[:2] = True, False
    placed = roc.placements(scores, positive)
    area = pytest.approx(sk.roc_auc_score(positive, scores))
    assert (placed[positive].mean(), placed[~positive].mean()) == (area, area)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_influence_of_auc_is_its_derivative(classes: int) -> None:
    data = classified(0, 500, classes)
    assert data.probabilities is not None
    nudge = 1e-5 * np.random.default_rng(0).normal(size=500)
    ranked = [(data.truth == c, data.probabilities[:, c]) for c in roc.ranked_classes(data.truth, classes)]
    moved = np.mean([sk.roc_auc_score(*each, sample_weight=1 + nudge) - sk.roc_auc_score(*each) for each in ranked])
    shares = (1 + nudge) / (1 + nudge).sum()
    assert moved == pytest.approx(float(shares @ roc.areas(data).influence), rel=0.02)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(1, 6))
def test_the_weighted_median_is_the_least_value_that_half_of_the_weight_does_not_exceed(
    seed: int, rows: int, levels: int
) -> None:
    values, weights = np.random.default_rng(seed).integers(0, levels, rows).astype(float), _weights(seed, rows)
    for found, w in zip(weighted.weighted_median(weights, values), weights, strict=True):
        assert w[values <= found].sum() >= w.sum() / 2 - 1e-12
        assert w[values < found].sum() < w.sum() / 2


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(1, 3), st.sampled_from([3, 500]))
def test_cells_are_the_combinations_that_occur(seed: int, rows: int, columns: int, classes: int) -> None:
    whole = np.random.default_rng(seed).integers(0, classes, (columns, rows))
    found, place, counts = weighted.cells(list(whole))
    expected = np.unique(whole.T, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_array_equal(found[place], whole.T)


def test_losses_are_those_whose_mean_is_scikit_learns_log_loss() -> None:
    data = classified(3, 50)
    assert float(class_losses(data).mean()) == pytest.approx(value("log_loss", data))


@pytest.mark.parametrize("classes", [2, 4])
def test_auc_is_scikit_learns_where_every_class_occurs(classes: int) -> None:
    data = classified(1, 200, classes)
    assert data.probabilities is not None
    scores = data.probabilities[:, 1] if classes == 2 else data.probabilities
    theirs = sk.roc_auc_score(data.truth, scores, multi_class="ovr")
    assert value("roc_auc_score", data) == pytest.approx(theirs)


def test_a_predicted_class_without_rows_needs_no_warning() -> None:
    data = Classified(np.array([0, 0]), np.array([0, 1]), None, ("a", "b", "c"))
    assert value("balanced_accuracy_score", data) == 0.5


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_metric_of_a_task_is_computed(task: str) -> None:
    data = classified(0, 50) if task == "classification" else regressed(0, 50)
    assert all(math.isfinite(value(name, data)) for name in quality_metrics(task))


def test_a_metric_of_another_task_is_refused() -> None:
    check_metrics({"accuracy_score": Limit(min=0.5), "memory_mb": Limit(max=1)}, "classification")
    with pytest.raises(
        InvalidConfig, match="r2_score is a metric of regression; for classification there are: accuracy"
    ):
        check_metrics({"r2_score": Limit(min=0.5)}, "classification")
