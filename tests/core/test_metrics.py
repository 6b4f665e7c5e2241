"""Measurements: nothing that is not a number gets in, and JSON keeps what there is."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import InvalidConfig
from fairway.core.metrics import METRICS, Measurement, difference, metric

FLOATS = st.floats(-1e300, 1e300)
MEASUREMENTS = st.builds(
    Measurement,
    metric=st.sampled_from(sorted(METRICS)),
    value=st.floats(),
    low=st.floats(),
    high=st.floats(),
    confidence=st.floats(0, 1),
    n=st.integers(0, 2**40),
    slice=st.text(),
    versus=st.text(),
    method=st.text(),
    at_rps=st.none() | st.floats(0.1, 1e6),
    error=st.text(),
)


@given(MEASUREMENTS)
def test_a_measurement_survives_json(found: Measurement) -> None:
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measurement) == found


@given(MEASUREMENTS)
def test_a_value_is_finite_and_an_end_is_no_nan(found: Measurement) -> None:
    assert math.isfinite(found.value)
    assert not math.isnan(found.low)
    assert not math.isnan(found.high)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_an_error(value: float) -> None:
    assert "log_loss came out as" in Measurement("log_loss", value, 0.0, 1.0).error


def test_numpy_numbers_become_plain_ones() -> None:
    found = Measurement("log_loss", np.float64(1.5), np.float64(1), np.float64(2))
    assert {type(found.value), type(found.low), type(found.high)} == {float}
    assert Measurement.exact("size_mb", np.float64(1.5)).confidence == 1


def test_only_scores_and_throughput_are_better_high() -> None:
    up = {name for name, known in METRICS.items() if known.higher_is_better}
    assert up == {name for name in METRICS if name.endswith("_score")} | {"throughput_rps"}


def test_a_misspelled_metric_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidConfig, match="did you mean 'log_loss'"):
        metric("logloss")


ENDS = st.tuples(FLOATS, FLOATS, FLOATS).map(sorted)


@given(ENDS, ENDS)
def test_a_difference_turns_around_with_its_sides(ours: list[float], theirs: list[float]) -> None:
    a = Measurement("log_loss", ours[1] / 1e10, ours[0] / 1e10, ours[2] / 1e10)
    b = Measurement("log_loss", theirs[1] / 1e10, theirs[0] / 1e10, theirs[2] / 1e10)
    one, two = difference(a, b, "b"), difference(b, a, "a")
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))
    assert one.low <= one.value <= one.high


def test_the_interval_of_a_difference_covers_as_stated() -> None:
    """Two independent proportions, each with its exact interval: MOVER keeps at least 95 % of 95 %."""
    from fairway.evaluation.intervals import proportion_interval

    rng = np.random.default_rng(0)
    hits = rng.binomial(300, [0.9, 0.8], size=(2000, 2))
    covered = 0
    for pair in hits.tolist():
        ours, theirs = (Measurement("accuracy_score", k / 300, *proportion_interval(k, 300, 0.95)) for k in pair)
        found = difference(ours, theirs, "b")
        covered += found.low <= 0.1 <= found.high
    assert 0.94 <= covered / len(hits) <= 0.99
