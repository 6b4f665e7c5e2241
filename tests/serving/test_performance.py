"""Measurements of performance: right intervals, honest failures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.gate import Limit, Outcome, judge
from fairway.serving.performance import measure_performance
from fairway.serving.quantiles import quantile_interval, rate_interval

NAMES = {
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps", "error_rate", "memory_mb", "load_ms", "size_mb",
}  # fmt: skip


@pytest.mark.parametrize(("q", "n"), [(0.5, 50), (0.95, 200), (0.99, 800)])
def test_quantile_intervals_hold_the_true_quantile_as_often_as_they_say(q: float, n: int) -> None:
    rng = np.random.default_rng(7)
    truth = -math.log(1 - q)  # of the standard exponential
    trials = 2_000
    hits = 0
    for _ in range(trials):
        _, low, high = quantile_interval(np.sort(rng.exponential(size=n)), q, 0.95)
        hits += low <= truth <= high
    assert hits / trials >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
def test_rate_intervals_hold_the_true_rate_as_often_as_they_say(rate: float) -> None:
    rng = np.random.default_rng(7)
    bounds = {hits: rate_interval(hits, 60, 0.95)[1:] for hits in range(61)}
    drawn = rng.binomial(60, rate, 4_000)
    covered = np.mean([bounds[int(hits)][0] <= rate <= bounds[int(hits)][1] for hits in drawn])
    assert covered >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 4_000)


def test_rate_intervals_are_those_of_clopper_and_pearson() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for hits, n in ((0, 10), (3, 10), (10, 10), (7, 5_000)):
        exact = scipy_stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
        assert rate_interval(hits, n, 0.95)[1:] == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_99th_percentile_needs_368_requests_for_an_upper_end() -> None:
    assert quantile_interval(np.arange(367.0), 0.99, 0.95)[2] == math.inf
    assert quantile_interval(np.arange(368.0), 0.99, 0.95)[2] < math.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 0.99), st.floats(0.5, 0.999))
def test_a_quantile_lies_in_its_interval(values: list[float], q: float, confidence: float) -> None:
    value, low, high = quantile_interval(np.sort(np.array(values)), q, confidence)
    assert low <= value <= high


def test_nothing_seen_says_nothing() -> None:
    assert quantile_interval(np.array([]), 0.5, 0.95)[1:] == (0.0, math.inf)
    assert rate_interval(0, 0, 0.95)[1:] == (0.0, 1.0)


@pytest.mark.parametrize("rps", [200.0, None])
def test_a_bundle_is_measured_in_a_process_of_its_own(bundles: tuple[Bundle, ...], rps: float | None) -> None:
    measured = {m.metric: m for m in measure_performance(bundles[0], rps=rps, seconds=0.5)}
    assert set(measured) == NAMES
    assert not any(m.error for m in measured.values())
    assert all(m.low <= m.value <= m.high for m in measured.values())
    assert measured["latency_p50_ms"].value <= measured["latency_p99_ms"].value
    assert measured["error_rate"].value == 0
    assert measured["size_mb"].value == bundles[0].size_bytes / 1e6
    assert 10 < measured["memory_mb"].value < 1000
    assert measured["latency_p50_ms"].at_rps == rps
    if rps is not None:
        assert measured["latency_p50_ms"].n == 100
        assert measured["latency_p99_ms"].high == math.inf
        assert judge({"latency_p99_ms": Limit(max=1e6)}, measured.values()).outcome is Outcome.INCONCLUSIVE


def test_what_cannot_be_measured_says_why(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    manifest = bundles[0].manifest
    broken = write_bundle(tmp_path / "broken", manifest, {"model.onnx": b"not a graph"})
    measured = {m.metric: m for m in measure_performance(broken, rps=50, seconds=0.1)}
    assert set(measured) == NAMES
    assert "model.onnx" in measured["latency_p99_ms"].error
    assert measured["size_mb"].error == ""
    assert judge({"latency_p99_ms": Limit(max=1e6)}, measured.values()).outcome is Outcome.ERROR
