"""Calibration: errors are found, chance is not taken for one, and scaling is recommended where it surely helps."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from fairway.evaluation.analyses.calibration import analyse
from fairway.evaluation.evaluate import evaluate
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.reliability import brier, calibration_error, mass_edges, width_edges
from fairway.evaluation.scaling import apply_temperature, fit_temperature
from fairway.model import Model
from fairway.sources.tables import Table
from tests.evaluation.analyses.subjects import of_rows
from tests.evaluation.conftest import classified, regressed

Floats = NDArray[np.float64]


def believed(rows: int, seed: int, temperature: float, *, classes: int = 2) -> Classified:
    """Labels drawn from true probabilities, of which the model shows ``softmax(log(p) / temperature)``."""
    rng = np.random.default_rng([seed, 21])
    true = rng.dirichlet(np.full(classes, 0.7), rows)
    truth = (rng.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1)
    shown = apply_temperature(true, temperature)
    return Classified(truth, shown.argmax(axis=1), shown, tuple(map(str, range(classes))))


def true_error(temperature: float) -> float:
    """The calibration error in bins of equal width, from many rows."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet([0.7, 0.7], 300_000)
    shown = apply_temperature(true, temperature)[:, 1]
    place = np.searchsorted(width_edges(), shown, side="right")
    return float(np.abs(np.bincount(place, weights=shown - true[:, 1])).sum() / len(true))


@pytest.mark.parametrize("temperature", [1.0, 0.8, 0.4])
def test_the_interval_of_the_calibration_error_covers_what_it_says(temperature: float) -> None:
    wanted, covered, wide = true_error(temperature), 0, 0.0
    rounds = 300
    for seed in range(rounds):
        rows = believed(400, seed, temperature)
        assert rows.probabilities is not None
        found = calibration_error(rows.probabilities[:, 1], rows.truth == 1, width_edges(), None, 0.95, seed).error
        assert found.low is not None
        assert found.high is not None
        covered += found.low - 1e-9 <= wanted <= found.high
        wide += found.high - found.low
    assert covered >= binom.ppf(0.01, rounds, 0.95)  # as rarely as one simulation in a hundred shows a true 95 %
    assert wide / rounds < 0.15


def test_the_calibration_error_is_not_too_large_on_average() -> None:
    wanted = true_error(0.6)
    found, plain = [], []
    for seed in range(150):
        rows = believed(400, seed, 0.6)
        assert rows.probabilities is not None
        own, hit = rows.probabilities[:, 1], rows.truth == 1
        found.append(calibration_error(own, hit, width_edges(), None, 0.95, seed).error.value)
        gaps = np.bincount(np.searchsorted(width_edges(), own, side="right"), weights=own - hit)
        plain.append(np.abs(gaps).sum() / 400)
    assert abs(np.mean(found) - wanted) < 0.5 * abs(np.mean(plain) - wanted)


@pytest.mark.parametrize("clustered", [False, True])
def test_chance_is_not_taken_for_miscalibration(clustered: bool) -> None:
    alarms = 0
    for seed in range(150):
        rows = believed(400, seed, 1.0)
        groups = None
        if clustered:  # every row four times: as much as a hundred rows, and no more
            rows = rows.select(np.repeat(np.arange(100), 4))
            groups = np.repeat(np.arange(100), 4)
        assert rows.probabilities is not None
        scores = rows.probabilities[:, 1]
        found = calibration_error(scores, rows.truth == 1, mass_edges(scores), groups, 0.95, seed)
        alarms += found.p_value <= 0.05
    assert alarms / 150 <= 0.09


def test_the_parts_of_the_brier_score_make_it_up() -> None:
    rows = believed(5000, 1, 0.5)
    assert rows.probabilities is not None
    found = brier(rows.probabilities, rows.truth, None, 0.95, 0)
    assert found is not None
    whole = found.miscalibration.value - found.resolution.value + found.uncertainty.value
    assert found.score.value == pytest.approx(whole, abs=0.003)  # what varies within bins is in no part
    from sklearn.metrics import brier_score_loss

    assert found.score.value == pytest.approx(brier_score_loss(rows.truth, rows.probabilities[:, 1]))
    three = believed(2000, 1, 0.5, classes=3)
    assert three.probabilities is not None
    many = brier(three.probabilities, three.truth, None, 0.95, 0)
    assert many is not None
    assert many.score.value == pytest.approx(brier_score_loss(three.truth, three.probabilities))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_temperature_is_found_and_recommended_where_it_was_wrong(classes: int) -> None:
    found = analyse(of_rows(believed(2000, 3, 0.5, classes=classes)))
    assert found is not None
    assert found.recommended == "temperature"
    assert found.temperature is not None
    assert found.temperature.low is not None
    assert found.temperature.high is not None
    assert found.temperature.low < 2.0 < found.temperature.high
    [scaled, _] = found.scalings
    assert scaled.log_loss.below(0)
    assert scaled.accuracy.value == 0
    assert scaled.error.value < found.diagrams[1].error.value / 2


def test_scaling_is_rarely_recommended_where_nothing_is_wrong() -> None:
    recommended = [analyse(of_rows(believed(200, seed, 1.0), resamples=100)) for seed in range(15)]
    assert sum(each is not None and each.recommended != "" for each in recommended) <= 2


def test_a_temperature_does_not_change_the_order() -> None:
    rows = believed(500, 2, 0.3, classes=4)
    assert rows.probabilities is not None
    fitted = fit_temperature(rows.probabilities, rows.truth)
    assert (apply_temperature(rows.probabilities, fitted).argmax(axis=1) == rows.probabilities.argmax(axis=1)).all()


def test_bands_of_a_regression_show_where_errors_grow() -> None:
    even = analyse(of_rows(regressed(1, 2000)))
    rng = np.random.default_rng(5)
    predicted = rng.uniform(0, 10, 2000)
    growing = analyse(of_rows(Regressed(predicted + rng.normal(size=2000) * predicted, predicted)))
    assert even is not None
    assert growing is not None
    assert even.coverage is not None
    assert growing.heteroscedastic is not None
    assert growing.heteroscedastic < 0.001
    assert growing.biased is not None
    assert growing.biased > 0.01
    assert [fifth.coverage.below(0.9) for fifth in growing.fifths][::4] == [False, True]
    assert even.coverage.low is not None
    assert even.coverage.low < 0.9 < (even.coverage.high or 0)


def test_rows_of_one_group_are_not_counted_twice() -> None:
    rows = classified(1, 300)
    alone = analyse(of_rows(rows))
    repeated = rows.select(np.repeat(np.arange(300), 5))
    grouped = analyse(of_rows(replace(repeated, groups=np.repeat(np.arange(300), 5))))
    assert alone is not None
    assert grouped is not None
    one, five = (each.diagrams[0].error for each in (alone, grouped))
    assert (one.high or 0) - (one.low or 0) == pytest.approx((five.high or 0) - (five.low or 0), rel=0.25)


def test_it_is_in_the_report(model: Model, table: Table) -> None:
    report = evaluate(model, table, label="digit", analyses=("calibration",))
    assert "calibration error, predicted class:" in report.as_text()
    page = report.as_html()
    assert "Would scaling help?" in page
    assert page.count("Reliability diagram") == 1  # the simple one gives way
    assert type(report).from_json(report.as_json()) == report


def test_labels_alone_cannot_be_calibrated() -> None:
    rows = replace(classified(1, 200), probabilities=None)
    assert analyse(of_rows(rows)) is None
    few = analyse(of_rows(classified(1, 30)))
    assert few is not None
    assert few.scalings == ()
    assert "too few" in few.note
    assert msgspec.json.decode(msgspec.json.encode(few), type=type(few)) == few
