"""The statistics agree with SciPy where SciPy is exact, and never understate a p-value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairway.monitoring.statistics import (
    _log_factorial,
    alpha_at,
    beyond_p,
    exchange_p,
    holm,
    jensen_shannon,
    sampling_floors,
)

counts = st.lists(st.integers(0, 10_000), min_size=4, max_size=4).filter(any)


@given(counts, counts)
def test_drift_is_symmetric_and_bounded(a: list[int], b: list[int]) -> None:
    assert jensen_shannon(a, b) == pytest.approx(jensen_shannon(b, a))
    assert 0 <= jensen_shannon(a, b) <= 1


@given(counts, st.integers(1, 50))
def test_only_shares_matter_to_the_effect(a: list[int], times: int) -> None:
    assert jensen_shannon(a, [times * n for n in a]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2, 3]), ([0, 0], [1, 2]), ([1, -1], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_counts_that_mean_nothing_are_refused(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shape|counts"):
        jensen_shannon(a, b)


def test_the_sampling_floor_is_what_two_samples_of_one_distribution_show() -> None:
    rng = np.random.default_rng(0)
    shares = [0.4, 0.3, 0.2, 0.1]
    a, b = rng.multinomial(400, shares, size=4000), rng.multinomial(1000, shares, size=4000)
    seen = np.mean([jensen_shannon(x, y) for x, y in zip(a, b, strict=True)])
    assert float(sampling_floors(a[0].astype(float), b[0].astype(float))) == pytest.approx(seen, rel=0.05)


@given(st.integers(0, 400), st.integers(1, 400), st.integers(0, 400), st.integers(1, 400))
@settings(max_examples=200)
def test_a_p_value_is_never_below_the_exact_one_and_tight_where_small(k: int, n: int, r: int, m: int) -> None:
    k, r = min(k, n), min(r, m)
    exact = stats.hypergeom(n + m, k + r, n)
    two_sided = min(1.0, 2 * min(exact.cdf(k), exact.sf(k - 1)))
    ours = float(exchange_p(k, n, r, m))
    assert ours >= two_sided * (1 - 1e-9)
    if 1e-250 < two_sided < 0.01:
        assert ours <= 3 * two_sided


def test_p_values_hold_for_counts_of_millions() -> None:
    exact = stats.hypergeom(3_000_000, 303_000, 1_000_000)
    two_sided = 2 * exact.sf(102_000 - 1)
    assert float(exchange_p(102_000, 1_000_000, 201_000, 2_000_000)) == pytest.approx(two_sided, rel=0.3)


@given(st.integers(0, 30), st.integers(1, 60), st.integers(1, 60))
def test_rows_beyond_the_range_are_as_likely_as_orders_are(k: int, n: int, m: int) -> None:
    k = min(k, n)
    orders = math.comb(n + m - k, m) / math.comb(n + m, m)
    assert float(beyond_p(k, n, m)) == pytest.approx(orders, rel=1e-9)


@given(st.integers(0, 2_000_000))
def test_log_factorials_are_exact_to_double_precision(n: int) -> None:
    assert float(_log_factorial(n)) == pytest.approx(math.lgamma(n + 1), rel=1e-14, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()


def test_all_looks_for_ever_spend_no_more_than_alpha() -> None:
    spent = sum(alpha_at(look, 0.05) for look in range(1, 200_000))
    assert 0.0499 < spent <= 0.05
