"""Measurements of performance: right intervals, honest failures."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.gate import Limit, Outcome, judge
from fairway.core.latency import BINS, LatencyProfile
from fairway.core.tensors import Tensors
from fairway.serving.cache import ResponseCache
from fairway.serving.energy import Rapl
from fairway.serving.performance import _energy, measure_performance
from fairway.serving.probe import Plan, Span, observe
from fairway.serving.quantiles import quantile_interval, rate_interval
from fairway.serving.settings import ModelServeSettings, ServeSettings

NAMES = {
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps", "error_rate", "memory_mb", "load_ms",
    "first_request_ms", "size_mb",
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
    found = measure_performance(bundles[0], rps=rps, seconds=0.5)
    measured = {m.metric: m for m in found.measurements}
    assert found.latency is not None
    assert found.latency.requests == measured["latency_p50_ms"].n
    assert set(measured) == NAMES
    assert not any(m.error for m in measured.values())
    assert all(m.low <= m.value <= m.high for m in measured.values())
    once = {"memory_mb", "load_ms", "first_request_ms"}
    assert {m.metric for m in measured.values() if not m.known} == once, "one reading has no interval"
    assert all(measured[name].has_value for name in once)
    assert judge({"memory_mb": Limit(max=1e6)}, measured.values()).outcome is Outcome.INCONCLUSIVE
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
    found = measure_performance(broken, rps=50, seconds=0.1, saturate_s=0.1)
    measured = {m.metric: m for m in found.measurements}
    assert set(measured) == {*NAMES, "energy_mj_per_request"}
    assert found.latency is None
    assert "model.onnx" in measured["latency_p99_ms"].error
    assert measured["size_mb"].error == ""
    assert judge({"latency_p99_ms": Limit(max=1e6)}, measured.values()).outcome is Outcome.ERROR


def test_fresh_processes_and_full_load_give_everything_an_interval(bundles: tuple[Bundle, ...]) -> None:
    found = measure_performance(bundles[0], rps=400, seconds=1, processes=2, saturate_s=0.2, core_watts=10)
    measured = {(m.metric, m.at_rps): m for m in found.measurements}
    assert len(measured) == len(found.measurements)
    assert {m.metric for m in found.measurements if m.confidence == 1} == {"size_mb"}
    assert all(m.low <= m.value <= m.high for m in found.measurements)
    most, offered = measured["throughput_rps", None], measured["throughput_rps", 400]
    assert offered.high < most.low  # a small model takes thousands
    assert measured["latency_p99_ms", 400].n == 400
    assert measured["load_ms", None].n == 2
    energy = measured["energy_mj_per_request", None]
    assert energy.n == most.n
    cores = os.cpu_count() or 1
    assert Rapl.find() is not None or 0 < energy.value / 1e3 * most.value <= 10 * cores * 1.05  # watts, by the model
    assert judge({"throughput_rps": Limit(min=500)}, found.measurements).outcome is Outcome.PASSED


def counters(root: Path, **values: tuple[str, int]) -> None:
    for number, (name, energy) in enumerate(values.values()):
        folder = root / f"intel-rapl:{number}"
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("1000000\n")
        (folder / "energy_uj").write_text(f"{energy}\n")


def test_energy_is_that_of_packages_and_memory_and_survives_a_counter_that_wraps_around(tmp_path: Path) -> None:
    counters(tmp_path, a=("package-0", 900_000), b=("dram", 10), c=("psys", 5), d=("core", 7))
    meter = Rapl.find(tmp_path)
    assert meter is not None
    counters(tmp_path, a=("package-0", 100_000), b=("dram", 20_010), c=("psys", 999_999), d=("core", 999_999))
    assert meter.joules() == pytest.approx(0.22)
    assert meter.joules() == pytest.approx(0.22)


def test_counters_that_may_not_be_read_are_no_counters(tmp_path: Path) -> None:
    assert Rapl.find(tmp_path) is None
    counters(tmp_path, a=("package-0", 1))
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert Rapl.find(tmp_path) is None


def test_counted_energy_is_no_estimate_and_modeled_energy_says_that_it_is() -> None:
    spans = [Span(0.1, 100, 0.08, 1.0 + 0.01 * i) for i in range(10)]
    counted = _energy(spans, 0.95, 12)
    assert counted.value == pytest.approx(10.45)
    assert "RAPL" in counted.method
    modeled = _energy([msgspec.structs.replace(span, joules=None) for span in spans], 0.95, 12)
    assert modeled.value == pytest.approx(9.6)
    assert "approximate: an estimate" in modeled.method


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=200), st.integers(0, 5))
def test_a_profile_holds_every_request_and_tells_each_share_to_its_bin(values: list[float], failures: int) -> None:
    profile = LatencyProfile.of(values, at_rps=10, failures=failures)
    assert sum(profile.counts) == len(values)
    assert profile.requests == len(values) + failures
    assert len(profile.edges_ms) == len(profile.counts) + 1 <= BINS + 1
    for edge, share in list(zip(profile.edges_ms, profile.shares(), strict=True))[1:-1]:
        assert share * profile.requests == pytest.approx(sum(max(v, 1e-6) < edge for v in values))
    assert msgspec.json.decode(msgspec.json.encode(profile), type=LatencyProfile) == profile


def test_workers_share_the_load_and_count_as_one_server(bundles: tuple[Bundle, ...]) -> None:
    serving = ServeSettings(threads=1, models={bundles[0].manifest.name: ModelServeSettings(max_batch=8)})
    found = measure_performance(bundles[0], rps=200, seconds=1, workers=2, serving=serving, saturate_s=0.2)
    measured = {(m.metric, m.at_rps): m for m in found.measurements}
    assert not any(m.error for m in found.measurements)
    assert measured["latency_p50_ms", 200].n == 200
    assert measured["error_rate", 200].value == 0
    assert measured["throughput_rps", 200].value == pytest.approx(200, rel=0.1)
    assert measured["throughput_rps", None].value > 400
    assert measured["memory_mb", 200].value < 1000


def test_where_one_worker_cannot_begin_none_does(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    broken = write_bundle(tmp_path / "broken", bundles[0].manifest, {"model.onnx": b"not a graph"})
    found = measure_performance(broken, rps=50, seconds=0.1, workers=3)
    assert "model.onnx" in {m.metric: m for m in found.measurements}["latency_p99_ms"].error


def test_a_measurement_may_be_kept_to_few_cores(bundles: tuple[Bundle, ...]) -> None:
    found = measure_performance(bundles[0], rps=None, seconds=0.3, workers=2, cores=1)
    assert {m.metric: m for m in found.measurements}["throughput_rps"].value > 0


# --- answers that are kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equal", [0.0, 0.4, 0.9])
def test_as_many_requests_ask_for_what_was_asked_before_as_are_said_to_repeat(
    equal: float, bundles: tuple[Bundle, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most are found in the cache; where the machine is busy, some while the first one still runs."""
    asked, repeats, found = set[bytes](), list[bool](), list[bool]()

    class Watched(ResponseCache):
        def get(self, key: bytes) -> Tensors | None:
            answer = super().get(key)
            repeats.append(key in asked)
            asked.add(key)
            found.append(answer is not None)
            return answer

    monkeypatch.setattr("fairway.serving.served.ResponseCache", Watched)
    name = bundles[0].manifest.name
    serving = ServeSettings(models={name: ModelServeSettings(cache_bytes=10**8)})
    plan = Plan(seconds=1.0, rps=2000.0, rows=1, concurrency=1, seed=0, serving=serving, equal=equal)
    observed = uvloop.run(observe(bundles[0].path, plan))
    assert not observed.failures
    assert np.mean(repeats) == pytest.approx(equal, abs=0.01 + 4 * np.sqrt(equal * (1 - equal) / len(repeats)))
    assert any(found) == (equal > 0)
    assert observed.memory_mb > 100  # the cache counts as full


def test_a_bundle_that_keeps_answers_is_measured_as_if_none_were_asked_for_twice(
    bundles: tuple[Bundle, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(_: ResponseCache, key: bytes) -> None:
        keys.append(key)

    keys = list[bytes]()
    monkeypatch.setattr(ResponseCache, "get", found)
    before = bundles[0].manifest
    engine = msgspec.structs.replace(before.engine, cache_bytes=1000)
    files = {name: bundles[0].file(name) for name in before.files}
    kept = write_bundle(tmp_path / "kept", msgspec.structs.replace(before, engine=engine), files)
    plan = Plan(seconds=0.2, rps=500.0, rows=1, concurrency=1, seed=0)
    uvloop.run(observe(kept.path, plan))
    assert len(keys) > 100
    assert len(set(keys)) == len(keys)
