"""What is counted, and that the times add up."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, Overloaded
from fairway.serving.batches import Batch
from fairway.serving.joining import Run, run_joined
from fairway.serving.statistics import MAX_BATCH_SIZES, statistics_of
from fairway.serving.telemetry import VersionStats

FEED = {"x": np.zeros((1, 1), np.float32)}


def batch(
    rows: int, waits_s: list[float], *, infer_s: float = 0.004, failures: list[FairwayError] | None = None
) -> Batch:
    """An engine call for requests that waited so long; joining takes a quarter of what inferring takes, as does cutting."""
    ended = time.perf_counter()
    took_s = infer_s * 1.5
    times = (ended - took_s, infer_s / 4, infer_s, infer_s / 4)
    run = Run(range(len(waits_s)), FEED, None if failures else FEED, [FEED] * len(waits_s), *times)
    return Batch(run, rows, False, took_s, [wait_s + took_s for wait_s in waits_s], failures or [], ended)


waits = st.lists(st.floats(0, 10), min_size=1, max_size=5)
calls = st.lists(st.tuples(st.integers(1, 64), waits, st.floats(1e-6, 1)), max_size=20)


@given(calls)
def test_requests_rows_and_calls_are_counted_and_times_add_up(calls: list[tuple[int, list[float], float]]) -> None:
    stats = VersionStats("m", "1")
    for rows, waited, infer_s in calls:
        stats.ran(batch(rows, waited, infer_s=infer_s))
    told = statistics_of(stats)
    own = told["inference_stats"]
    requests = sum(len(waited) for _, waited, _ in calls)
    assert told["inference_count"] == sum(rows for rows, _, _ in calls)
    assert told["execution_count"] == len(calls) == sum(size["compute_infer"]["count"] for size in told["batch_stats"])
    assert {own[part]["count"] for part in ("success", "queue", "compute_infer")} == {requests}
    assert own["fail"]["count"] == 0
    assert own["queue"]["ns"] == pytest.approx(1e9 * sum(sum(waited) for _, waited, _ in calls), rel=1e-6, abs=1e4)
    parts = sum(own[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == pytest.approx(own["success"]["ns"], rel=1e-6, abs=1e4)


def test_a_failed_call_is_no_execution(caplog: pytest.LogCaptureFixture) -> None:
    stats = VersionStats("m", "1")
    stats.ran(batch(3, [0.001], failures=[InferenceFailed("no")]))
    told = statistics_of(stats)
    assert (told["inference_count"], told["execution_count"], told["batch_stats"]) == (0, 0, [])
    assert told["inference_stats"]["fail"]["count"] == 1
    assert told["inference_stats"]["success"] == {"count": 0, "ns": 0}


def test_what_expired_in_the_queue_failed_and_what_was_refused_at_once_did_not() -> None:
    stats = VersionStats("m", "1")
    stats.refused(Overloaded("full"))
    stats.refused(DeadlineExceeded("late"), 0.25)
    assert statistics_of(stats)["inference_stats"]["fail"] == {"count": 1, "ns": 250_000_000}


def test_success_includes_hits_of_the_cache_and_inference_count_does_not() -> None:
    stats = VersionStats("m", "1")
    stats.ran(batch(1, [0.0]))
    stats.cache_hits, stats.cache_hit_ns = 5, 5000
    told = statistics_of(stats)
    assert told["inference_count"] == 1
    assert told["inference_stats"]["success"]["count"] == 6
    assert told["inference_stats"]["cache_hit"] == {"count": 5, "ns": 5000}


def test_the_number_of_batch_sizes_is_bounded() -> None:
    stats = VersionStats("m", "1")
    for rows in range(1, 5000):
        stats.ran(batch(rows, [0.0]))
    told = statistics_of(stats)
    assert len(told["batch_stats"]) < MAX_BATCH_SIZES + 64
    assert told["execution_count"] == 4999
    assert told["inference_count"] == sum(range(1, 5000))


def test_the_last_inference_is_told_the_same_until_the_next() -> None:
    stats = VersionStats("m", "1")
    assert statistics_of(stats)["last_inference"] == 0
    before = int(time.time() * 1e3)
    stats.ran(batch(1, [0.0]))
    first = statistics_of(stats)["last_inference"]
    assert before - 1 <= first <= int(time.time() * 1e3)
    assert {statistics_of(stats)["last_inference"] for _ in range(100)} == {first}


def test_the_parts_of_a_call_are_measured_where_they_happen() -> None:
    feeds = [{"x": np.ones((rows, 2), np.float32)} for rows in (1, 2)]
    before = time.perf_counter()
    (run,) = run_joined(lambda feed: feed, feeds, [1, 2])
    after = time.perf_counter()
    assert before <= run.started
    assert min(run.input_s, run.infer_s, run.output_s) > 0
    assert run.started + run.input_s + run.infer_s + run.output_s <= after
