"""The gate: what passes, what fails, what is left open, and how often it may be wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Gate, Limit, Outcome, check_gate, judge
from fairway.core.metrics import Measurement

NUMBERS = st.floats(-100, 100)


def accuracy(low: float, high: float, **fields: Any) -> Measurement:
    return Measurement("accuracy_score", (low + high) / 2, low, high, **{"n": 100, **fields})


def loss(low: float, high: float, **fields: Any) -> Measurement:
    return Measurement("log_loss", (low + high) / 2, low, high, **{"n": 100, **fields})


# one bound


@pytest.mark.parametrize(
    ("limit", "measured", "outcome"),
    [
        (Limit(min=0.9), accuracy(0.9, 0.95), Outcome.PASSED),  # inclusive
        (Limit(min=0.9), accuracy(0.89, 0.95), Outcome.INCONCLUSIVE),
        (Limit(min=0.9), accuracy(0.85, 0.9), Outcome.INCONCLUSIVE),
        (Limit(min=0.9), accuracy(0.85, 0.89), Outcome.FAILED),
        (Limit(max=0.9), accuracy(0.85, 0.9), Outcome.PASSED),
        (Limit(max=0.9), accuracy(0.91, 0.95), Outcome.FAILED),
    ],
)
def test_a_bound_is_judged_by_the_whole_interval(limit: Limit, measured: Measurement, outcome: Outcome) -> None:
    assert judge({"accuracy_score": limit}, [measured]).outcome is outcome


@given(NUMBERS, NUMBERS, NUMBERS)
def test_shifting_the_limit_with_the_interval_changes_nothing(low: float, width: float, limit: float) -> None:
    one, two = (
        judge({"log_loss": Limit(max=limit)}, [loss(low, low + abs(width))]),
        judge({"log_loss": Limit(min=limit)}, [loss(low, low + abs(width))]),
    )
    assert not (
        one.outcome is Outcome.PASSED and two.outcome is Outcome.PASSED and width > 0 and low + abs(width) != low
    )
    assert {one.outcome, two.outcome} != {Outcome.FAILED}


@given(st.floats(0.5, 1), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_better_model_never_fares_worse(low: float, width: float, gain: float) -> None:
    order = [Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED]
    before = judge({"accuracy_score": Limit(min=0.8)}, [accuracy(low, low + width)]).outcome
    after = judge({"accuracy_score": Limit(min=0.8)}, [accuracy(low + gain, low + width + gain)]).outcome
    assert order.index(after) >= order.index(before)


# want of evidence never passes


@pytest.mark.parametrize(
    "measurements",
    [
        [],
        [accuracy(0.99, 1.0, slice="a")],
        [accuracy(0.99, 1.0, versus="digits:1")],
        [Measurement.unknown("accuracy_score", "no rows")],
        [Measurement("accuracy_score", 0.99, 0.95, math.nan)],
        [Measurement("accuracy_score", 0.99, math.nan, math.nan)],
    ],
)
def test_without_evidence_the_verdict_is_not_a_pass(measurements: list[Measurement]) -> None:
    verdict = judge({"accuracy_score": Limit(min=0.9, max=0.999)}, measurements)
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_an_empty_gate_judges_nothing() -> None:
    verdict = judge({}, [accuracy(1, 1)])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons == ("nothing to judge",)


@pytest.mark.parametrize(
    "broken", [Measurement.failed("log_loss", "the engine died"), Measurement("log_loss", math.nan)]
)
def test_a_broken_measurement_is_an_error_not_a_pass(broken: Measurement) -> None:
    gate = {"log_loss": Limit(max=1), "accuracy_score": Limit(min=0.9)}
    assert judge(gate, [broken, accuracy(0.95, 1)]).outcome is Outcome.ERROR


def test_a_failure_outweighs_an_error_and_that_outweighs_doubt() -> None:
    gate = {"accuracy_score": Limit(min=0.9), "log_loss": Limit(max=1), "f1_score": Limit(min=0.9)}
    failing, broken = accuracy(0.1, 0.2), Measurement.failed("log_loss", "x")
    assert judge(gate, [failing, broken]).outcome is Outcome.FAILED
    assert judge(gate, [accuracy(0.95, 1), broken]).outcome is Outcome.ERROR
    assert judge(gate, [accuracy(0.95, 1), loss(0, 0.1)]).outcome is Outcome.INCONCLUSIVE


def test_an_open_question_says_how_many_observations_would_settle_it() -> None:
    verdict = judge({"accuracy_score": Limit(min=0.9)}, [Measurement("accuracy_score", 0.92, 0.88, 0.96, n=100)])
    assert "about 400 observations" in verdict.reasons[0]


@given(st.floats(0.1, 1), st.floats(0, 1e-300))
def test_a_hopelessly_close_limit_is_no_crash(value: float, off: float) -> None:
    verdict = judge({"accuracy_score": Limit(min=value + off)}, [Measurement("accuracy_score", value, 0, 1, n=10)])
    assert verdict.outcome is Outcome.INCONCLUSIVE


# slices


def test_every_slice_must_hold() -> None:
    gate = {"accuracy_score": Limit(slice_min=0.9)}
    good, bad = accuracy(0.95, 1, slice="a"), accuracy(0.5, 0.6, slice="b")
    assert judge(gate, [good]).outcome is Outcome.PASSED
    assert judge(gate, [good, bad]).outcome is Outcome.FAILED
    assert [f.slice for f in judge(gate, [good, bad]).findings] == ["a", "b"]


def test_a_slice_that_was_measured_by_another_metric_only_is_not_skipped() -> None:
    gate = {"log_loss": Limit(slice_max=1)}
    verdict = judge(gate, [loss(0, 0.5, slice="a"), accuracy(0.9, 1, slice="b")])
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_slice_bound_without_slices_is_open() -> None:
    assert judge({"accuracy_score": Limit(slice_min=0.9)}, [accuracy(1, 1)]).outcome is Outcome.INCONCLUSIVE


# against the champion


def test_a_paired_difference_is_preferred() -> None:
    gate = {"accuracy_score": Limit(max_drop=0.01)}
    ours, theirs = accuracy(0.90, 0.94), accuracy(0.90, 0.94)
    assert judge(gate, [ours], [theirs]).outcome is Outcome.INCONCLUSIVE
    assert judge(gate, [ours, accuracy(-0.005, 0.005, versus="digits:1")], [theirs]).outcome is Outcome.PASSED


def test_a_drop_counts_against_scores_and_a_rise_against_costs() -> None:
    gate: Gate = {"accuracy_score": Limit(max_drop=0.01), "log_loss": Limit(max_rise=0.01)}
    worse = [accuracy(-0.1, -0.05, versus="c"), loss(0.05, 0.1, versus="c")]
    better = [accuracy(0.05, 0.1, versus="c"), loss(-0.1, -0.05, versus="c")]
    assert {f.outcome for f in judge(gate, worse).findings} == {Outcome.FAILED}
    assert {f.outcome for f in judge(gate, better).findings} == {Outcome.PASSED}


def test_without_a_champion_bounds_on_change_do_not_apply() -> None:
    gate = {"accuracy_score": Limit(min=0.9, max_drop=0.01)}
    verdict = judge(gate, [accuracy(0.95, 1)])
    assert verdict.outcome is Outcome.PASSED
    assert [f.outcome for f in verdict.findings] == [Outcome.PASSED, Outcome.NOT_APPLICABLE]


def test_a_champion_that_was_not_measured_leaves_the_question_open() -> None:
    gate = {"accuracy_score": Limit(max_drop=0.01)}
    assert judge(gate, [accuracy(0.95, 1)], []).outcome is Outcome.INCONCLUSIVE
    assert judge(gate, [accuracy(0.95, 1)], [Measurement.failed("accuracy_score", "x")]).outcome is Outcome.ERROR


# loads


def latency(at: float | None, value: float, versus: str = "") -> Measurement:
    return Measurement("latency_p99_ms", value, value, value, at_rps=at, versus=versus, n=10)


def test_a_limit_at_a_load_is_judged_at_that_load() -> None:
    gate = {"latency_p99_ms": Limit(max=10, at_rps=200)}
    assert judge(gate, [latency(50, 1)]).outcome is Outcome.INCONCLUSIVE
    assert judge(gate, [latency(50, 1), latency(200, 20)]).outcome is Outcome.FAILED
    assert judge(gate, [latency(None, 1), latency(200, 20)]).outcome is Outcome.FAILED, "the stated load comes first"
    assert judge(gate, [latency(None, 1)]).outcome is Outcome.PASSED, "live traffic has its own load"


def test_a_paired_difference_at_another_load_does_not_count() -> None:
    gate = {"latency_p99_ms": Limit(max_rise=1, at_rps=200)}
    assert judge(gate, [latency(50, 0, "c"), latency(200, 5, "c")]).outcome is Outcome.FAILED


# malformed gates


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({"acuracy_score": Limit(min=1)}, "did you mean 'accuracy_score'"),
        ({"accuracy_score": Limit()}, "sets no bound"),
        ({"accuracy_score": Limit(max_rise=0.1)}, "max_drop"),
        ({"log_loss": Limit(slice_min=0.1)}, "slice_max"),
        ({"log_loss": Limit(max_rise=-0.1)}, "0 or more"),
        ({"log_loss": Limit(max=math.nan)}, "finite"),
        ({"log_loss": Limit(max=math.inf)}, "finite"),
        ({"log_loss": Limit(min=2, max=1)}, "nothing can be both"),
        ({"latency_p99_ms": Limit(max=1, at_rps=0)}, "above 0"),
        ({"accuracy_score": Limit(min=0.9, at_rps=10)}, "no meaning"),
    ],
)
def test_a_malformed_gate_is_refused_with_the_reason(gate: Gate, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        check_gate(gate)
    with pytest.raises(InvalidConfig):
        judge(gate, [])


# how often it is wrong

ROUNDS = 4000


def _simulate(truths: dict[str, float], gate: Gate, seed: int) -> tuple[dict[Outcome, float], float, float]:
    """Verdict rates over many experiments, each measurement having an exact normal 90 % interval."""
    rng = np.random.default_rng(seed)
    half = norm.ppf(0.95)
    counts = dict.fromkeys(Outcome, 0)
    verdict = judge(gate, [])
    for noise in rng.normal(size=(ROUNDS, len(truths))):
        found = [
            Measurement(name, truth + e, truth + e - half, truth + e + half, confidence=0.9, n=100)
            for (name, truth), e in zip(truths.items(), noise, strict=True)
        ]
        verdict = judge(gate, found)
        counts[verdict.outcome] += 1
    return {one: count / ROUNDS for one, count in counts.items()}, verdict.false_pass, verdict.false_fail


def _noise(rate: float) -> float:
    """Four standard errors of a simulated rate."""
    return 4 * math.sqrt(rate * (1 - rate) / ROUNDS)


def test_a_model_that_breaks_one_limit_passes_no_oftener_than_stated() -> None:
    gate = {"log_loss": Limit(max=0.0), "accuracy_score": Limit(min=-50.0), "f1_score": Limit(min=-50.0)}
    rates, false_pass, _ = _simulate({"log_loss": 1e-9, "accuracy_score": 0.0, "f1_score": 0.0}, gate, 1)
    assert false_pass == pytest.approx(0.05), "the largest one-sided error, not the sum"
    assert rates[Outcome.PASSED] <= false_pass + _noise(false_pass)
    assert rates[Outcome.PASSED] >= false_pass - _noise(false_pass), (
        "with the rest far from its limits the bound is tight"
    )


def test_a_model_that_keeps_all_limits_fails_no_oftener_than_stated() -> None:
    gate = {"log_loss": Limit(max=0.0), "accuracy_score": Limit(min=0.0), "f1_score": Limit(min=0.0)}
    rates, _, false_fail = _simulate({"log_loss": 0.0, "accuracy_score": 0.0, "f1_score": 0.0}, gate, 2)
    assert false_fail == pytest.approx(0.15), "the sum of the one-sided errors"
    assert rates[Outcome.FAILED] <= false_fail + _noise(false_fail)
    assert rates[Outcome.FAILED] >= 1 - 0.95**3 - _noise(false_fail), "for independent measurements it is nearly tight"


def test_error_rates_count_only_what_was_learned() -> None:
    gate = {"log_loss": Limit(max=1), "accuracy_score": Limit(min=0.5), "memory_mb": Limit(max=10)}
    verdict = judge(
        gate, [Measurement.unknown("log_loss", "no rows"), accuracy(0.6, 0.8), Measurement.exact("memory_mb", 3)]
    )
    assert (verdict.false_pass, verdict.false_fail) == pytest.approx((0.025, 0.025))
