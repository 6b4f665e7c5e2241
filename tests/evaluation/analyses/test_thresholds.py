"""Thresholds: those chosen are assessed where they were not chosen, and "surely better" means it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairway.core.errors import InvalidConfig
from fairway.evaluation.analyses.thresholds import ClassThresholds, Operating, analyse
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.predictions import Classified
from fairway.model import Model
from fairway.sources.tables import Table
from tests.evaluation.analyses.subjects import of_rows
from tests.evaluation.conftest import classified

COSTS = {"false_positive": 1, "false_negative": 5}


def one(found: tuple[ClassThresholds, ...] | None) -> ClassThresholds:
    assert found is not None
    [only] = found
    return only


def goal(found: ClassThresholds, name: str) -> Operating:
    return next(each for each in found.operating if each.goal == name)


def test_the_cheapest_threshold_is_that_of_the_costs() -> None:
    rng = np.random.default_rng(3)
    true = rng.random(20_000)
    truth = (rng.random(20_000) < true).astype(int)
    shown = np.stack([1 - true, true], axis=1)
    rows = Classified(truth, shown.argmax(axis=1), shown, ("no", "yes"))
    found = one(analyse(of_rows(rows, costs=COSTS)))
    best = goal(found, "cost")
    assert best.threshold == pytest.approx(1 / 6, abs=0.06)  # false_positive / (false_positive + false_negative)
    assert best.better
    assert best.cost is not None
    assert best.change is not None
    assert best.change.below(0)
    assert found.cost is not None
    assert found.cost.x[int(np.argmin(found.cost.y))] == pytest.approx(1 / 6, abs=0.06)


def test_choosing_does_not_flatter() -> None:
    """A threshold for useless scores gains nothing on other rows, and is rarely said to."""
    gains, surely = [], 0
    for seed in range(100):
        rng = np.random.default_rng([seed, 31])
        scores = rng.random(120)
        truth = (rng.random(120) < 0.4).astype(int)
        shown = np.stack([1 - scores, scores], axis=1)
        rows = Classified(truth, shown.argmax(axis=1), shown, ("no", "yes"))
        best = goal(
            one(analyse(of_rows(rows, costs={"false_positive": 1, "false_negative": 1}, resamples=100))), "cost"
        )
        assert best.cost is not None
        gains.append(best.cost.value)
        surely += best.cost.below(0.4)  # to take none costs 0.4 per row: nothing is truly cheaper
    assert np.mean(gains) >= 0.4
    assert surely / 100 <= 0.05


def test_the_bands_cover_the_true_curve() -> None:
    from scipy.stats import norm

    covered = []
    for seed in range(60):
        rng = np.random.default_rng([seed, 32])
        truth = rng.integers(0, 2, 300)
        scores = norm.cdf(rng.normal(size=300) + 1.2 * truth)
        shown = np.stack([1 - scores, scores], axis=1)
        rows = Classified(truth, shown.argmax(axis=1), shown, ("0", "1"))
        curve = one(analyse(of_rows(rows, resamples=200))).roc
        place = 8  # a false positive rate of 0.2
        assert curve.x[place] == pytest.approx(0.2)
        covered.append(curve.low[place] <= norm.sf(norm.isf(0.2) - 1.2) <= curve.high[place])
    assert np.mean(covered) >= 0.87


def test_areas_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rows = classified(4, 500, classes=2)
    assert rows.probabilities is not None
    found = one(analyse(of_rows(rows)))
    assert found.auc.value == pytest.approx(roc_auc_score(rows.truth, rows.probabilities[:, 1]))
    assert found.average_precision.value == pytest.approx(average_precision_score(rows.truth, rows.probabilities[:, 1]))
    assert found.positives == int(rows.truth.sum())


def test_what_was_never_wrong_is_not_certain() -> None:
    truth = np.repeat([0, 1], 20)
    shown = np.stack([1.0 - truth, truth * 1.0], axis=1)
    found = one(analyse(of_rows(Classified(truth, truth, shown, ("0", "1")))))
    assert found.average_precision.value == 1
    assert (found.average_precision.low or 1) < 0.99
    assert min(found.roc.low) < 0.99


def test_of_many_classes_each_is_taken_against_the_rest() -> None:
    found = analyse(of_rows(classified(4, 400, classes=4)))
    assert found is not None
    assert len(found) == 4
    assert [each.auc.value for each in found] == sorted(each.auc.value for each in found)
    assert one(analyse(of_rows(classified(4, 400, classes=4), positive="2", costs=COSTS))).cost is not None


def test_an_unknown_positive_class_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"evaluate\.positive is 'yes', which is no class; they are: 0, 1"):
        analyse(of_rows(classified(4, 400, classes=2), positive="yes"))


def test_groups_widen_the_bands() -> None:
    rows = classified(1, 100, classes=2)
    repeated = rows.select(np.repeat(np.arange(100), 6))
    loose = one(analyse(of_rows(repeated)))
    tight = one(analyse(of_rows(replace(repeated, groups=np.repeat(np.arange(100), 6)))))
    assert tight.roc.high[8] - tight.roc.low[8] > 1.5 * (loose.roc.high[8] - loose.roc.low[8])


def test_they_are_in_the_report(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", analyses=("thresholds",))
    assert "AUC" in report.as_text()
    page = report.as_html()
    assert "ROC curve" in page
    assert "Precision-recall curve" in page
    assert type(report).from_json(report.as_json()) == report
