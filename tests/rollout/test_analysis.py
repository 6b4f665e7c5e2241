"""Live traffic judged by the gate: what is judged, what is not, and how often it is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from fairway.core.errors import InvalidConfig
from fairway.core.gate import Gate, Limit, Outcome
from fairway.rollout.analysis import analyse, split_gate
from fairway.rollout.settings import ReleaseSettings
from fairway.rollout.traffic import Traffic

SETTINGS = ReleaseSettings()
ERRORS = {"error_rate": Limit(max=0.01)}


def traffic(requests: int, errors: int = 0, latency_ms: float = 2.0) -> Traffic:
    made = Traffic()
    made.add(rows=requests, latencies_ms=np.full(requests - errors, latency_ms), errors=errors)
    return made


# What is judged


def test_a_clean_challenger_passes_and_a_failing_one_fails() -> None:
    assert analyse(ERRORS, traffic(9000), traffic(1000), settings=SETTINGS).outcome is Outcome.PASSED
    assert analyse(ERRORS, traffic(9000), traffic(1000, errors=50), settings=SETTINGS).outcome is Outcome.FAILED


def test_no_data_or_too_little_is_inconclusive() -> None:
    none = analyse(ERRORS, traffic(9000), Traffic(), settings=SETTINGS)
    assert (none.outcome, none.reasons) == (Outcome.INCONCLUSIVE, ("error_rate: no measurement",))
    few = analyse(ERRORS, traffic(9000), traffic(100), settings=SETTINGS)
    assert few.outcome is Outcome.INCONCLUSIVE


def test_without_a_limit_on_live_traffic_it_is_inconclusive_and_says_what_to_add() -> None:
    gate = {"accuracy_score": Limit(min=0.95), "memory_mb": Limit(max=300)}
    found = analyse(gate, traffic(9000), traffic(9000), settings=SETTINGS)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "error_rate = { max = 0.01 }" in found.reasons[0]
    assert found.judged == ()
    assert found.elsewhere == ("accuracy_score min 0.95", "memory_mb max 300")


def test_bounds_that_live_traffic_cannot_measure_are_listed_not_judged() -> None:
    gate = {
        "accuracy_score": Limit(min=0.95, max_drop=0.01),
        "latency_p99_ms": Limit(max=10, max_rise=2, slice_max=20, at_rps=200),
    }
    found = analyse(gate, traffic(9000), traffic(9000), settings=SETTINGS)
    assert found.judged == ("latency_p99_ms max 10", "latency_p99_ms max_rise 2")
    assert found.elsewhere == ("accuracy_score min 0.95", "accuracy_score max_drop 0.01", "latency_p99_ms slice_max 20")
    assert {f.bound for f in found.verdict.findings} == {"max", "max_rise"}


def test_splitting_a_gate_keeps_every_bound_once_and_its_load() -> None:
    gate = {"latency_p95_ms": Limit(max=10, slice_max=20, at_rps=200), "log_loss": Limit(max=1.0)}
    live, elsewhere = split_gate(gate)
    assert live == {"latency_p95_ms": Limit(max=10, at_rps=200)}
    assert elsewhere == {"latency_p95_ms": Limit(slice_max=20, at_rps=200), "log_loss": Limit(max=1.0)}


def test_latency_is_judged_by_its_own_limit_and_against_the_champion() -> None:
    absolute = {"latency_p99_ms": Limit(max=10.0)}
    relative = {"latency_p99_ms": Limit(max_rise=1.0)}
    fast, slow = traffic(2000, latency_ms=5.0), traffic(2000, latency_ms=12.0)
    assert analyse(absolute, fast, fast, settings=SETTINGS).outcome is Outcome.PASSED
    assert analyse(absolute, fast, slow, settings=SETTINGS).outcome is Outcome.FAILED
    assert analyse(relative, slow, slow, settings=SETTINGS).outcome is Outcome.PASSED
    assert analyse(relative, fast, slow, settings=SETTINGS).outcome is Outcome.FAILED


def test_a_change_cannot_be_judged_before_the_champion_has_traffic() -> None:
    gate = {"error_rate": Limit(max_rise=0.01)}
    assert analyse(gate, Traffic(), traffic(5000), settings=SETTINGS).outcome is Outcome.INCONCLUSIVE


def test_a_challenger_that_only_fails_has_no_latency_but_an_error_rate() -> None:
    gate = ERRORS | {"latency_p50_ms": Limit(max=10.0)}
    found = analyse(gate, traffic(900), traffic(100, errors=100), settings=SETTINGS)
    assert found.outcome is Outcome.FAILED
    assert found.challenger.latency_p50_ms is None


def test_a_malformed_gate_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="max_drop has no meaning"):
        analyse({"error_rate": Limit(max_drop=0.1)}, traffic(1), traffic(1), settings=SETTINGS)


# What is claimed


@pytest.mark.parametrize("bounds", [1, 2, 4])
def test_the_verdicts_error_rates_are_those_that_were_asked_for(bounds: int) -> None:
    limits = [
        ("error_rate", "max"),
        ("error_rate", "max_rise"),
        ("latency_p50_ms", "max"),
        ("latency_p99_ms", "max_rise"),
    ]
    gate: dict[str, Limit] = {}
    for name, bound in limits[:bounds]:
        gate[name] = Limit(**{b: 1.0 for n, b in limits[:bounds] if n == name}) if name not in gate else gate[name]
        assert getattr(gate[name], bound) == 1.0
    found = analyse(gate, traffic(5000), traffic(5000), settings=ReleaseSettings(alpha=0.08))
    assert found.verdict.false_fail == pytest.approx(0.08)
    assert found.verdict.false_pass == pytest.approx(0.08 / bounds)
    assert len(found.judged) == bounds


@pytest.mark.parametrize("requests", [0, 1, 100])
def test_the_evidence_is_json_even_where_an_interval_is_open(requests: int) -> None:
    gate = ERRORS | {"latency_p99_ms": Limit(max=10.0, max_rise=1.0)}
    found = analyse(gate, traffic(requests), traffic(requests), settings=SETTINGS)
    evidence = json.loads(json.dumps(found.evidence(), allow_nan=False))
    assert evidence["challenger"]["requests"] == requests
    assert evidence["verdict"]["outcome"] == "inconclusive"
    assert evidence["alpha"] == SETTINGS.alpha
    assert evidence["reasons"]


# The claim, simulated: a challenger looked at after every 50th of its requests, with a champion at nine times its traffic


def outcomes(
    gate: Gate, rng: np.random.Generator, *, looks: int, errors: float, champion_errors: float, scale: float = 1.0
) -> Iterator[Outcome]:
    """The outcome at every look. Latencies are exponential, the champion's with mean 1 ms."""
    champion, challenger = Traffic(), Traffic()
    for _ in range(looks):
        for one, n, rate, mean in ((champion, 450, champion_errors, 1.0), (challenger, 50, errors, scale)):
            failed = int(rng.binomial(n, rate))
            one.add(errors=failed, latencies_ms=rng.exponential(mean, n - failed))
        yield analyse(gate, champion, challenger, settings=SETTINGS).outcome


P95 = math.log(1 / 0.05)  # of the exponential distribution with mean 1
HARDEST = {  # every limit is kept, with nothing to spare
    "error_rate": Limit(max=0.02, max_rise=0.0),
    "latency_p95_ms": Limit(max=P95, max_rise=0.0),
}


def test_an_equal_challenger_is_ever_failed_at_most_alpha_of_the_time() -> None:
    rng = np.random.default_rng(10)
    runs = 150
    failed = sum(
        Outcome.FAILED in outcomes(HARDEST, rng, looks=40, errors=0.02, champion_errors=0.02) for _ in range(runs)
    )
    assert failed / runs <= SETTINGS.alpha


def test_one_limit_that_gets_all_of_alpha_is_ever_falsely_broken_at_most_alpha_of_the_time() -> None:
    rng = np.random.default_rng(11)
    gate = {"error_rate": Limit(max=0.02)}
    runs = 250
    failed = sum(
        Outcome.FAILED in outcomes(gate, rng, looks=100, errors=0.02, champion_errors=0.02) for _ in range(runs)
    )
    assert failed / runs <= SETTINGS.alpha


def test_a_challenger_that_breaks_a_limit_is_ever_passed_at_most_alpha_of_the_time() -> None:
    rng = np.random.default_rng(12)
    gate = {"error_rate": Limit(max=0.02)}
    runs = 150
    passed = sum(
        Outcome.PASSED in outcomes(gate, rng, looks=60, errors=0.0201, champion_errors=0.0) for _ in range(runs)
    )
    assert passed / runs <= SETTINGS.alpha


def looks_until(
    outcome: Outcome, gate: Gate, seed: int, **rates: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Challenger requests until ``outcome``, in each of 60 runs; infinite if not within 2,000."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(60):
        run = outcomes(
            gate, rng, looks=40, errors=rates["errors"], champion_errors=0.001, scale=rates.get("scale", 1.0)
        )
        found.append(next((50.0 * look for look, seen in enumerate(run, 1) if seen is outcome), math.inf))
    return np.array(found)


def test_five_percent_of_errors_fail_within_500_requests() -> None:
    needed = looks_until(Outcome.FAILED, ERRORS | {"latency_p99_ms": Limit(max=20.0)}, 13, errors=0.05)
    assert 50 <= np.median(needed) <= 250
    assert np.quantile(needed, 0.95) <= 500


def test_a_doubled_p99_fails_within_300_requests() -> None:
    gate = ERRORS | {"latency_p99_ms": Limit(max=math.log(100))}
    needed = looks_until(Outcome.FAILED, gate, 14, errors=0.001, scale=2.0)
    assert np.median(needed) <= 100
    assert np.quantile(needed, 0.95) <= 300


def test_a_good_challenger_passes_within_2000_requests() -> None:
    gate = ERRORS | {"latency_p99_ms": Limit(max=10.0)}
    needed = looks_until(Outcome.PASSED, gate, 15, errors=0.001)
    assert 500 <= np.median(needed) <= 1500
    assert np.quantile(needed, 0.95) <= 2000
