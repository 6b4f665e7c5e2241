"""The same draws, bit for bit, whatever computes the chunks; weights are those of the Bayesian bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import kstest

from fairway.core.mapping import IN_ORDER, Mapper, Threads
from fairway.evaluation import draws
from fairway.evaluation.draws import CellWeights, Sums, drawn
from fairway.evaluation.predictions import Floats


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows are cut as millions are."""
    monkeypatch.setattr(draws, "_CHUNK_ELEMENTS", 20_000)
    monkeypatch.setattr(draws, "_BLOCK_ELEMENTS", 4_000)


def sums(statistics: Floats, resamples: int, seed: int, stream: int = 0, mapper: Mapper = IN_ORDER) -> Floats:
    return drawn(Sums(csr_array(statistics)), lambda found: found, resamples, seed, stream, mapper)


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("mapper", [IN_ORDER, Threads(1), Threads(2), Threads(5)])
def test_the_number_of_threads_changes_no_bit(mapper: Mapper) -> None:
    statistics = np.random.default_rng(0).normal(size=(3000, 2))
    assert sums(statistics, 200, seed=4, mapper=mapper).tobytes() == sums(statistics, 200, seed=4).tobytes()


@pytest.mark.usefixtures("many_chunks")
def test_chunks_seeds_and_streams_share_no_draw() -> None:
    ones = np.ones((3000, 1))
    found = [sums(ones, 200, seed, stream).ravel() for seed in (1, 2) for stream in (0, 1)]
    assert len(np.unique(np.concatenate(found))) == 800


@pytest.mark.usefixtures("many_chunks")
def test_sums_are_those_of_exponential_weights() -> None:
    """With a unit matrix for statistics the sums are the weights themselves."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3))
    weights = sums(np.eye(500), 64, seed=1)
    np.testing.assert_allclose(sums(values, 64, seed=1), weights @ values)
    assert kstest(weights.ravel(), "expon").pvalue > 0.01
    assert abs(np.corrcoef(weights[:, :60].T) - np.eye(60)).max() < 0.6  # no two rows share their weights


def test_pseudo_rows_of_grouped_rows_vary_as_groups_do() -> None:
    """Half a group of four: worth two rows, and as uncertain as half a weight of four rows."""
    extra = drawn(CellWeights(np.array([2.0]), scale=4.0), lambda weights: weights[:, 0], 20_000, 0, 0)
    assert extra.mean() == pytest.approx(2, rel=0.05)
    assert extra.var() == pytest.approx(4**2 * 0.5, rel=0.1)
