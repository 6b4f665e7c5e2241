"""Confidence sequences: closed forms checked at their edges, and their promise by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fairway.rollout.sequences import (
    Interval,
    difference_interval,
    log_evidence,
    plausible_counts,
    quantile_interval,
    rate_interval,
)

ALPHA = 0.05
trials_and_events = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
alphas = st.floats(1e-6, 0.5)


# The closed forms


@given(trials_and_events, alphas)
@example((0, 0), 0.05)
@example((1000, 0), 0.05)
@example((1000, 1000), 0.05)
def test_the_interval_holds_the_observed_rate_and_is_within_0_and_1(counts: tuple[int, int], alpha: float) -> None:
    trials, events = counts
    low, high = rate_interval(events, trials, alpha)
    assert 0 <= low <= high <= 1
    assert low <= (events / trials if trials else 0.5) <= high
    assert (low == 0) == (events == 0)
    assert (high == 1) == (events == trials)


@given(trials_and_events, alphas)
def test_the_interval_ends_where_the_evidence_reaches_one_over_alpha(counts: tuple[int, int], alpha: float) -> None:
    trials, events = counts
    low, high = rate_interval(events, trials, alpha)
    for end in (low, high):
        if 0 < end < 1:
            assert log_evidence(events, trials, end) == pytest.approx(-math.log(alpha), abs=1e-6)


@given(trials_and_events, alphas)
def test_errors_and_answers_mirror_each_other(counts: tuple[int, int], alpha: float) -> None:
    trials, events = counts
    low, high = rate_interval(events, trials, alpha)
    mirrored = rate_interval(trials - events, trials, alpha)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-9)


def test_no_events_rule_out_what_the_mixture_says_in_closed_form() -> None:
    # B(1/2, n + 1/2) / B(1/2, 1/2) = alpha * (1 - p)^n, solved for p
    n = 1000
    log_mixture = math.lgamma(0.5) + math.lgamma(n + 0.5) - math.lgamma(n + 1) - math.log(math.pi)
    assert rate_interval(0, n, ALPHA).high == pytest.approx(-math.expm1((log_mixture + math.log(ALPHA)) / n), rel=1e-9)


@given(st.integers(0, 3000), st.floats(0.001, 0.999), st.floats(1e-6, 0.5), st.floats(0, 1))
def test_plausible_counts_are_those_whose_interval_holds_the_rate(n: int, rate: float, alpha: float, at: float) -> None:
    fewest, most = plausible_counts(n, rate, alpha)
    assert 0 <= fewest <= most <= n
    count = round(at * n)
    assume(abs(log_evidence(count, n, rate) + math.log(alpha)) > 1e-6)
    low, high = rate_interval(count, n, alpha)
    assert (fewest <= count <= most) == (low <= rate <= high)


@given(st.lists(st.integers(0, 60), max_size=300), st.sampled_from([0.5, 0.9, 0.99]), alphas)
def test_a_quantile_interval_holds_the_sample_quantile(values: list[int], rank: float, alpha: float) -> None:
    ordered = sorted(values)
    low, high = quantile_interval(lookup(ordered), len(values), rank, alpha)
    assert 0 <= low <= high
    if values:
        assert low <= ordered[math.ceil(rank * len(values)) - 1] <= high


def test_a_rank_error_widens_the_interval_by_as_much() -> None:
    values = list(range(1, 10_001))
    exact = quantile_interval(lookup(values), 10_000, 0.5, ALPHA)
    assert quantile_interval(lookup(values), 10_000, 0.5, ALPHA, rank_error=0.01) == (exact.low - 100, exact.high + 100)


def test_without_values_nothing_is_ruled_out() -> None:
    assert rate_interval(0, 0, ALPHA) == (0, 1)
    assert quantile_interval(lambda share: math.nan, 0, 0.99, ALPHA) == (0, math.inf)
    assert quantile_interval(lookup([5]), 1, 0.5, ALPHA) == (0, math.inf)


def test_a_difference_reaches_from_end_to_end() -> None:
    assert difference_interval(Interval(1, 2), Interval(0.5, math.inf)) == (-math.inf, 1.5)


@pytest.mark.parametrize(("events", "trials", "alpha"), [(2, 1, 0.05), (-1, 1, 0.05), (0, 1, 0.0), (0, 1, 1.0)])
def test_impossible_arguments_are_refused(events: int, trials: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"events|alpha"):
        rate_interval(events, trials, alpha)


# The promise, simulated: 2,000 runs, looked at after every 10th request up to the 5,000th

RUNS, LOOKS = 2000, np.arange(10, 5001, 10)
TOLERANCE = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)  # three standard errors of the simulation itself


def counts_at_looks(rng: np.random.Generator, rate: float, runs: int = RUNS) -> NDArray[np.int64]:
    """Events so far, shape (runs, looks)."""
    return np.cumsum(rng.binomial(10, rate, (runs, LOOKS.size)), axis=1)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.5, 0.99])
def test_the_true_rate_is_ever_missed_at_most_alpha_of_the_time(rate: float) -> None:
    counts = counts_at_looks(np.random.default_rng(1), rate)
    plausible = np.array([plausible_counts(int(n), rate, ALPHA) for n in LOOKS])
    missed = ((counts < plausible[:, 0]) | (counts > plausible[:, 1])).any(axis=1)
    assert missed.mean() <= ALPHA + TOLERANCE


def test_an_interval_for_one_look_breaks_that_promise_which_is_why_these_exist() -> None:
    counts = counts_at_looks(np.random.default_rng(1), 0.5)
    ordinary = np.abs(counts / LOOKS - 0.5) > 1.96 * np.sqrt(0.25 / LOOKS)
    assert ordinary.any(axis=1).mean() > 4 * ALPHA


def test_the_difference_of_equal_rates_is_ever_off_zero_at_most_alpha_of_the_time() -> None:
    rng = np.random.default_rng(2)
    runs = 150
    ours, theirs = counts_at_looks(rng, 0.02, runs), counts_at_looks(rng, 0.02, runs)

    def off_zero(run: int) -> bool:
        return any(
            not low <= 0 <= high
            for n, a, b in zip(LOOKS[::20], ours[run, ::20], theirs[run, ::20], strict=True)
            for low, high in [difference_interval(*(rate_interval(int(s), int(n), ALPHA / 2) for s in (a, b)))]
        )

    assert sum(map(off_zero, range(runs))) / runs <= ALPHA


@pytest.mark.parametrize("rank", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("ties", [False, True], ids=["continuous", "with ties"])
def test_the_true_quantile_is_ever_missed_at_most_alpha_of_the_time(rank: float, ties: bool) -> None:
    # A value is at or below the true quantile with probability `rank`, or more where values tie; below it, with less.
    rng = np.random.default_rng(3)
    tie = 0.004 if ties else 0.0
    at_or_below = counts_at_looks(rng, rank + tie)
    below = at_or_below - rng.binomial(at_or_below, 2 * tie / (rank + tie))
    plausible = np.array([plausible_counts(int(n), rank, ALPHA) for n in LOOKS])
    missed = ((at_or_below < plausible[:, 0]) | (below > plausible[:, 1])).any(axis=1)
    assert missed.mean() <= ALPHA + TOLERANCE


def test_the_quantile_interval_of_real_values_keeps_the_promise() -> None:
    rng = np.random.default_rng(4)
    runs, looks = 100, range(100, 2001, 100)
    truth = math.log(1 / 0.05)  # 95th percentile of the exponential distribution

    def missed(values: NDArray[np.float64]) -> bool:
        intervals = (quantile_interval(lookup(np.sort(values[:n])), n, 0.95, ALPHA) for n in looks)
        return any(not low <= truth <= high for low, high in intervals)

    assert sum(missed(rng.exponential(1, looks[-1])) for _ in range(runs)) / runs <= ALPHA


# What it costs: requests until a stated regression is caught


def requests_to_catch(ruled_out: Callable[[int, int], bool], rate: float, seed: int) -> NDArray[np.float64]:
    """Requests until ``ruled_out(count, n)``, for 300 runs looked at after every 10th."""
    counts = counts_at_looks(np.random.default_rng(seed), rate, 300)
    caught = np.array(
        [[ruled_out(int(s), int(n)) for n, s in zip(LOOKS[:100], run[:100], strict=True)] for run in counts]
    )
    return np.where(caught.any(axis=1), LOOKS[caught.argmax(axis=1)], np.inf)


def test_five_percent_of_errors_against_one_are_caught_within_350_requests() -> None:
    needed = requests_to_catch(lambda s, n: rate_interval(s, n, ALPHA).low > 0.01, 0.05, seed=5)
    assert 80 <= np.median(needed) <= 180
    assert 200 <= np.quantile(needed, 0.95) <= 350


def test_a_doubled_p99_is_caught_within_150_requests() -> None:
    # Exponential latencies: once they double, a share sqrt(0.01) = 10 % lies above the old 99th percentile.
    most = {int(n): plausible_counts(int(n), 0.99, ALPHA) for n in LOOKS}
    needed = requests_to_catch(lambda s, n: s < most[n][0], 0.9, seed=6)
    assert 20 <= np.median(needed) <= 80
    assert 50 <= np.quantile(needed, 0.95) <= 150


def lookup(ordered: object) -> Callable[[float], float]:
    """The quantile function of sorted values."""
    values = np.asarray(ordered, np.float64)
    return lambda share: float(values[math.ceil(share * values.size) - 1])
