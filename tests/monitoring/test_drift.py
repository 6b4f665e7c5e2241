"""Drift is called when the world moved, and hardly ever when it did not: confirmed by simulation."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.core.manifest import Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.monitoring.baseline import Baseline
from fairway.monitoring.drift import drift
from fairway.monitoring.features import plan
from fairway.monitoring.report import DriftOutcome, DriftReport
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.sketches import FeatureSketches
from fairway.registry.records import Window
from fairway.rollout.traffic import Traffic
from tests.conftest import Digits
from tests.monitoring.conftest import Watched

SETTINGS = MonitorSettings()
NO_TRAFFIC = Traffic().encode()


def baseline_of(x: NDArray[Any], settings: MonitorSettings = SETTINGS) -> Baseline:
    """A baseline of one input ``x``, as if the model had no outputs."""
    spec = TensorSpec("x", Datatype.of(x.dtype), (-1, *x.shape[1:]), allow_nan=True)
    manifest = Manifest("m", "classification", (spec,), (), {})
    features = tuple(plan(manifest, {"x": x}, {}, len(x), settings))
    sketches = FeatureSketches(features)
    sketches.update({"x": x}, {}, len(x))
    return Baseline(features, sketches)


def window_of(baseline: Baseline, number: int, x: NDArray[Any], replica: str = "a") -> Window:
    sketches = FeatureSketches(baseline.features)
    sketches.update({"x": x}, {}, len(x))
    return Window("m", 1, replica, 60.0 * number, 60.0 * number + 60, NO_TRAFFIC, sketches.encode())


def caught_at(report: DriftReport) -> tuple[int, int]:
    """Number of the first look with drift, and the row count at its end."""
    first = next(look for look in report.looks if look.drifted)
    return first.number, first.first_row + first.rows


def test_held_out_digits_have_not_drifted_from_the_training_rows(watched: Watched, digits: Digits) -> None:
    report = drift(watched.baseline, [watched.window(0, digits.x_test)], SETTINGS)
    assert report.outcome is DriftOutcome.NO_DRIFT
    assert len(report.looks) == 1
    assert report.rows == report.counted == 450


def test_ink_at_half_strength_is_caught_in_the_first_window_after_it(watched: Watched, digits: Digits) -> None:
    rng = np.random.default_rng(0)
    draw = digits.x_train[rng.integers(0, len(digits.x_train), (8, 400))]
    windows = [watched.window(at, x if at < 5 else x * np.float32(0.5)) for at, x in enumerate(draw)]
    report = drift(watched.baseline, windows, SETTINGS)
    assert report.outcome is DriftOutcome.DRIFT
    assert caught_at(report) == (6, 2400)
    assert [bool(look.drifted) for look in report.looks] == [False] * 5 + [True] * 3
    assert "predicted class" in {f.feature for f in report.findings}
    assert any(f.drifted and f.feature == "confidence" for f in report.findings)


def test_half_a_deviation_in_one_feature_of_64_is_caught_at_row_1500_and_named() -> None:
    rng = np.random.default_rng(1)
    baseline = baseline_of(rng.normal(size=(1347, 64)))
    windows = []
    for number in range(10):
        x = rng.normal(size=(300, 64))
        x[:, 17] += 0.5 * (number >= 4)
        windows.append(window_of(baseline, number, x))
    report = drift(baseline, windows, SETTINGS)
    assert caught_at(report) == (5, 1500)
    assert {name for look in report.looks for name in look.drifted} == {"x[17]"}


def skewed(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Mostly zeros, heavy tails, few values, nearly constant, missing values, and plain ones."""
    x = np.empty((rows, 12))
    x[:, 0] = rng.normal(size=rows)
    x[:, 1] = rng.lognormal(0, 2, rows)
    x[:, 2] = rng.standard_cauchy(rows)
    for column, zeros in ((3, 0.5), (4, 0.9), (5, 0.99), (6, 0.999)):
        x[:, column] = np.where(rng.random(rows) < zeros, 0, rng.integers(1, 17, rows))
    x[:, 7] = rng.poisson(3, rows)
    x[:, 8] = rng.geometric(0.02, rows)
    x[:, 9] = 1.0
    x[:, 10] = np.where(rng.random(rows) < 0.05, np.nan, rng.exponential(size=rows))
    x[:, 11] = rng.beta(0.2, 0.2, rows)
    return x


def false_alarms(trials: int, alpha: float, draw: Any, *, baseline_rows: int, rows: int, windows: int) -> int:
    """Trials of ``windows`` windows without a change in which drift was called, however small the effect."""
    eager = MonitorSettings(alpha=alpha, min_effect=0, min_share=0, min_rows=rows)
    alarms = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        baseline = baseline_of(draw(rng, baseline_rows), eager)
        made = [window_of(baseline, number, draw(rng, rows)) for number in range(windows)]
        alarms += drift(baseline, made, eager).drifted
    return alarms


@pytest.mark.parametrize(("baseline_rows", "rows"), [(200, 100), (1000, 300), (300, 2000)])
def test_without_a_change_the_chance_of_any_alarm_stays_below_alpha(baseline_rows: int, rows: int) -> None:
    # With alpha 0.5 there is something to count; 60 trials at exactly alpha exceed 41 alarms with chance 0.1 %.
    alarms = false_alarms(60, 0.5, skewed, baseline_rows=baseline_rows, rows=rows, windows=12)
    assert alarms <= 41


def test_digits_split_at_random_raise_alarms_no_more_often_than_alpha(digits: Digits) -> None:
    # Real pixels, most of them zero: baseline and windows are parts of one shuffled population.
    everything = np.concatenate([digits.x_train, digits.x_test])
    eager = MonitorSettings(alpha=0.5, min_effect=0, min_share=0, min_rows=100)
    alarms = 0
    for trial in range(20):
        x = everything[np.random.default_rng(trial).permutation(len(everything))]
        baseline = baseline_of(x[:900], eager)
        parts = np.split(x[900:1700], 8)
        alarms += drift(baseline, [window_of(baseline, at, part) for at, part in enumerate(parts)], eager).drifted
    assert alarms <= 16  # 20 trials at exactly alpha exceed that with chance 0.1 %


def test_too_few_rows_is_inconclusive_and_says_how_many_it_needs(watched: Watched, digits: Digits) -> None:
    report = drift(watched.baseline, [watched.window(0, digits.x_test[:299])], SETTINGS)
    assert report.outcome is DriftOutcome.INCONCLUSIVE
    assert (report.looks, report.pending) == ((), 299)
    assert "300" in report.reason


@pytest.mark.parametrize("with_baseline", [True, False])
def test_no_data_is_never_no_drift(watched: Watched, with_baseline: bool) -> None:
    report = drift(watched.baseline if with_baseline else None, [], SETTINGS)
    assert report.outcome is DriftOutcome.INCONCLUSIVE
    assert report.error_rate is None
    assert report.as_text().startswith("INCONCLUSIVE")


def test_small_windows_are_merged_until_there_are_enough_rows(watched: Watched, digits: Digits) -> None:
    windows = [watched.window(at, digits.x_test[at * 50 : at * 50 + 50]) for at in range(9)]
    report = drift(watched.baseline, windows, SETTINGS)
    assert [(look.first_row, look.rows) for look in report.looks] == [(0, 300)]
    assert report.pending == 150


def test_the_order_in_which_windows_arrive_does_not_matter(watched: Watched, digits: Digits) -> None:
    windows = [
        watched.window(at, digits.x_test[at * 75 : at * 75 + 75], replica=replica)
        for at in range(6)
        for replica in ("a", "b")
    ]
    assert drift(watched.baseline, windows[::-1], SETTINGS) == drift(watched.baseline, windows, SETTINGS)


def test_replicas_of_one_period_are_judged_together(watched: Watched, digits: Digits) -> None:
    halves = [watched.window(0, digits.x_test[at::2], replica=str(at)) for at in range(2)]
    whole = drift(watched.baseline, [watched.window(0, digits.x_test)], SETTINGS)
    merged = drift(watched.baseline, halves, SETTINGS)
    assert [f.p_value for f in merged.findings] == pytest.approx([f.p_value for f in whole.findings])
    assert len(merged.looks) == 1


def test_missing_values_are_found_even_if_the_others_are_as_before() -> None:
    rng = np.random.default_rng(2)
    baseline = baseline_of(rng.normal(size=(1000, 3)))
    x = rng.normal(size=(500, 3))
    x[rng.random(500) < 0.05, 1] = np.nan
    report = drift(baseline, [window_of(baseline, 0, x)], SETTINGS)
    assert [(f.feature, f.check) for f in report.findings if f.drifted] == [("x[1]", "missing")]


def test_values_out_of_the_baselines_range_are_found_even_in_a_constant_feature() -> None:
    rng = np.random.default_rng(3)
    baseline = baseline_of(np.column_stack([rng.normal(size=1000), np.zeros(1000)]))
    x = np.column_stack([rng.normal(size=500), np.where(rng.random(500) < 0.03, 9.0, 0.0)])
    report = drift(baseline, [window_of(baseline, 0, x)], SETTINGS)
    assert [(f.feature, f.check) for f in report.findings if f.drifted] == [("x[1]", "out of range")]


def test_a_change_too_small_to_matter_is_not_drift_however_sure() -> None:
    rng = np.random.default_rng(4)
    baseline = baseline_of(rng.normal(size=(50_000, 1)))
    x = rng.normal(size=(50_000, 1)) + 0.1
    report = drift(baseline, [window_of(baseline, 0, x)], SETTINGS)
    found = report.findings[0]
    assert found.p_value < 1e-12
    assert 0 < found.effect < SETTINGS.min_effect
    assert report.outcome is DriftOutcome.NO_DRIFT


def test_damaged_windows_and_those_of_another_baseline_are_told_and_left_out(watched: Watched, digits: Digits) -> None:
    good = watched.window(0, digits.x_test)
    other = baseline_of(digits.x_train[:50])
    foreign = msgspec.structs.replace(good, started_at=60.0, features=window_of(other, 1, digits.x_test).features)
    damaged = msgspec.structs.replace(good, started_at=120.0, features=good.features[:-3], traffic=b"nonsense")
    report = drift(watched.baseline, [good, foreign, damaged], SETTINGS)
    assert report.counted == 450
    assert len(report.unreadable) == 3
    assert drift(watched.baseline, [foreign, damaged], SETTINGS).outcome is DriftOutcome.INCONCLUSIVE


def test_versions_are_judged_apart(watched: Watched, digits: Digits) -> None:
    window = watched.window(0, digits.x_test)
    with pytest.raises(ValueError, match="one version"):
        drift(watched.baseline, [window, msgspec.structs.replace(window, version=2)], SETTINGS)


def test_the_report_has_the_error_rate(watched: Watched, digits: Digits) -> None:
    report = drift(watched.baseline, [watched.window(0, digits.x_test, errors=50)], SETTINGS)
    assert (report.requests, report.errors, report.error_rate) == (500, 50, 0.1)
    assert "10.00% unanswered" in report.as_text()
