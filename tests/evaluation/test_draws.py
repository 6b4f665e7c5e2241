"""The same draws, bit for bit, whatever computes the chunks; weights are those of the Bayesian bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import kstest

from fairway.core.mapping import IN_ORDER, Mapper, Threads
from fairway.evaluation import draws
from fairway.evaluation.draws import RowWeights, Sums, drawn, weighted_sums


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
    """Half a group of four: worth two rows, and half as many weights of a group as independent."""
    source = RowWeights(400, np.array([2.0]), np.arange(400) // 4)
    extra = drawn(source, lambda weights: weights[:, -1], 20_000, 0, 0)
    assert extra.mean() == pytest.approx(2, rel=0.05)
    assert extra.var() == pytest.approx(4**2 * 0.5, rel=0.1)
