"""The same draws, bit for bit, whatever computes the chunks; weights are those of the Bayesian bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import kstest

from fairway.core.mapping import IN_ORDER, Mapper, Threads
from fairway.evaluation import draws
from fairway.evaluation.draws import CellWeights, ManySums, Sums, drawn, summed, weighted_sums
from fairway.evaluation.predictions import Floats


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows are cut as millions are."""
    monkeypatch.setattr(draws, "_CHUNK_ELEMENTS", 20_000)
    monkeypatch.setattr(draws, "_BLOCK_ELEMENTS", 4_000)


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("mapper", [IN_ORDER, Threads(1), Threads(2), Threads(5)])
def test_the_number_of_threads_changes_no_bit(mapper: Mapper) -> None:
    statistics = np.random.default_rng(0).normal(size=(3000, 2))
    expected = weighted_sums(statistics, 200, seed=4, mapper=IN_ORDER)
    assert weighted_sums(statistics, 200, seed=4, mapper=mapper).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("many_chunks")
def test_chunks_seeds_and_streams_share_no_draw() -> None:
    ones = np.ones((3000, 1))
    found = [weighted_sums(ones, 200, seed, stream=stream).ravel() for seed in (1, 2) for stream in (0, 1)]
    assert len(np.unique(np.concatenate(found))) == 800


@pytest.mark.usefixtures("many_chunks")
def test_sums_are_those_of_exponential_weights() -> None:
    """With a unit matrix for statistics the sums are the weights themselves."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3))
    weights = weighted_sums(np.eye(500), 64, seed=1)
    np.testing.assert_allclose(weighted_sums(values, 64, seed=1), weights @ values)
    assert kstest(weights.ravel(), "expon").pvalue > 0.01
    assert abs(np.corrcoef(weights[:, :60].T) - np.eye(60)).max() < 0.6  # no two rows share their weights


@pytest.mark.usefixtures("many_chunks")
def test_a_group_has_one_weight() -> None:
    groups = np.arange(600) % 50
    weights = weighted_sums(np.eye(600), 16, seed=1, groups=groups)
    np.testing.assert_array_equal(weights, weights[:, groups])
    values = np.random.default_rng(0).normal(size=(600, 1))
    np.testing.assert_allclose(weighted_sums(values, 16, seed=1, groups=groups), weights @ values)


@pytest.mark.usefixtures("many_chunks")
def test_sparse_sums_vary_as_dense_ones_do() -> None:
    values = np.random.default_rng(0).normal(size=(2000, 2)) * (np.random.default_rng(1).random((2000, 2)) < 0.3)
    dense, sparse = (drawn(Sums(s), lambda sums: sums, 2000, 3, 0) for s in (values.T, csr_array(values)))
    np.testing.assert_allclose(dense.mean(axis=0), sparse.mean(axis=0), atol=4 * dense.std() / np.sqrt(1000))
    np.testing.assert_allclose(np.cov(dense.T), np.cov(sparse.T), rtol=0.15, atol=0.15 * dense.var())


def test_pseudo_rows_of_grouped_rows_vary_as_groups_do() -> None:
    """Half a group of four: worth two rows, and as uncertain as half a weight of four rows."""
    extra = drawn(CellWeights(np.array([2.0]), scale=4.0), lambda weights: weights[:, 0], 20_000, 0, 0)
    assert extra.mean() == pytest.approx(2, rel=0.05)
    assert extra.var() == pytest.approx(4**2 * 0.5, rel=0.1)


def _heavy(rng: np.random.Generator) -> Floats:
    """Squared errors of t with 3 degrees, most of them in few rows, far from 0; of two models that hardly differ; and ones."""
    errors = 1e4 + rng.standard_t(3, size=4000) ** 2
    return np.stack([errors, errors + 0.01 * rng.standard_t(3, size=4000), np.ones(4000)])


@pytest.mark.parametrize(
    "combine",
    [
        lambda sums: sums[:, 0] / sums[:, 2],
        lambda sums: (sums[:, 0] - sums[:, 1]) / sums[:, 2],
        lambda sums: sums[:, 2],
    ],
    ids=["mean", "difference of means", "weight"],
)
def test_many_rows_are_drawn_closely_whatever_is_made_of_the_sums(
    combine: Callable[[Floats], Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = _heavy(np.random.default_rng(0))
    exact = drawn(Sums(statistics), combine, 20_000, 1, 0)
    monkeypatch.setattr(draws, "_MANY", 0)
    monkeypatch.setattr(draws, "_LEVERAGE", 1e-2)  # a hundred times as much as of as many rows as that is meant for
    source = summed(statistics)
    assert isinstance(source, ManySums)
    assert 1 < source.heavy.units < 400
    close = drawn(source, combine, 20_000, 1, 0)
    assert close.mean() == pytest.approx(exact.mean(), abs=0.03 * exact.std())
    assert close.std() == pytest.approx(exact.std(), rel=0.03)
    ends = [0.005, 0.025, 0.975, 0.995]
    np.testing.assert_allclose(np.quantile(close, ends), np.quantile(exact, ends), rtol=0, atol=0.15 * exact.std())


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 30))
def test_leverage_is_the_largest_share_in_any_combination(seed: int, columns: int, units: int) -> None:
    """That of the projection, for columns that may depend on each other."""
    rng = np.random.default_rng(seed)
    statistics = rng.normal(size=(columns, units)) * rng.integers(0, 2, (columns, 1))
    statistics = np.vstack([statistics, statistics[:1]])
    expected = np.diag(np.linalg.pinv(statistics, rcond=1e-9) @ statistics)
    np.testing.assert_allclose(draws._leverage(statistics), expected, atol=1e-6)
