"""What many rows are spared, few rows confirm: fast forms draw from the same distribution as weights of every row do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.mapping import IN_ORDER
from fairway.evaluation import weighted
from fairway.evaluation.predictions import Floats, Regressed
from fairway.evaluation.resampling import draw_medians, draw_scores
from tests.evaluation.conftest import classified, regressed

DRAWS = 4000


def alike(one: Floats, two: Floats) -> None:
    """Middle, spread and ends are the same, but for noise: 0.02, 0.02 and 0.06 standard errors with so many draws."""
    assert one.mean() == pytest.approx(two.mean(), abs=0.08 * two.std())
    assert one.std() == pytest.approx(two.std(), rel=0.08)
    ends = [0.025, 0.975]
    np.testing.assert_allclose(np.quantile(one, ends), np.quantile(two, ends), rtol=0, atol=0.24 * two.std())


def _every_row(models: list[Regressed]) -> list[Floats]:
    """Medians of weights of every row, as of fewer rows than a window has."""
    first = models[0]
    groups = np.arange(len(first)) if first.groups is None else first.groups
    errors = [np.abs(each.predicted - each.truth) for each in models]

    weights = np.random.default_rng(7).standard_exponential((DRAWS, int(groups.max()) + 1))[:, groups]
    return [weighted.weighted_median(weights, each) for each in errors]


@pytest.mark.parametrize("size", [1, 5])
def test_a_median_drawn_from_the_rows_near_it_is_that_of_all_rows(size: int) -> None:
    """Two models whose errors have to do with each other, so that their difference varies less than either."""
    rng = np.random.default_rng(0)
    groups = np.arange(3000) // size
    truth, shared = rng.normal(size=3000), rng.normal(size=3000)[groups]
    models = [
        Regressed(truth, truth + shared + scale * rng.normal(size=3000), groups if size > 1 else None)
        for scale in (0.5, 0.6)
    ]
    ours, theirs = draw_medians(models, DRAWS, 0)
    one, two = _every_row(models)
    for fast, slow in ((ours, one), (theirs, two), (ours - theirs, one - two)):
        alike(fast, slow)
    (alone,) = draw_medians(models[:1], DRAWS, 0)
    alike(alone, one)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 20))
def test_a_median_is_an_error_of_some_row(seed: int, rows: int, levels: int) -> None:
    """However many errors are equal."""
    rng = np.random.default_rng(seed)
    model = Regressed(np.zeros(rows), rng.integers(0, levels, rows).astype(float))
    (found,) = draw_medians([model], 100, 0, IN_ORDER)
    assert np.isin(found, model.predicted).all()


def test_scores_drawn_by_cell_are_those_of_weights_of_every_row() -> None:
    rows = classified(0, 1500, 3)
    names = ["f1_score", "balanced_accuracy_score"]
    one_row_each = replace(rows, groups=np.arange(1500))  # whose weights are drawn one by one
    ours, theirs = (draw_scores([each], names, DRAWS, 0)[0] for each in (rows, one_row_each))
    for name in names:
        alike(ours[name], theirs[name])


def test_a_million_rows_take_no_memory_of_a_thousand_times_as_many() -> None:
    """8 GB would be needed to hold the weights."""
    import tracemalloc

    model = regressed(0, 200_000)
    tracemalloc.start()
    draw_medians([model], 1000, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
