"""Perturbations: level 0 changes nothing, the same seed changes the same, and what goes in keeps its shape and type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.tensors import Tensor
from fairway.evaluation.perturbations.base import LEVELS, Perturbation
from fairway.evaluation.perturbations.images import image_perturbations, is_image
from fairway.evaluation.perturbations.numbers import is_numbers, number_perturbations
from fairway.evaluation.perturbations.texts import is_text, text_perturbations


def check(found: tuple[Perturbation, ...], values: Tensor, seed: int) -> None:
    before = values.copy()
    for each in found:
        assert each.at(values, 0, seed) is values
        assert len(each.strengths) == LEVELS
        for level in (1, LEVELS):
            once, again = each.at(values, level, seed), each.at(values, level, seed)
            assert once.shape == values.shape
            assert once.dtype == values.dtype
            np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(values, before)


images = st.tuples(
    st.sampled_from([(3, 8, 9), (2, 8, 8, 1), (2, 9, 12, 3), (2, 3, 10, 8), (1, 1, 8, 8)]),
    st.sampled_from([np.uint8, np.float32]),
    st.integers(0, 99),
)


@settings(max_examples=15)
@given(images, st.integers(0, 9))
def test_of_images(made: tuple[tuple[int, ...], type, int], seed: int) -> None:
    shape, dtype, number = made
    values: Tensor = np.random.default_rng(number).integers(0, 256, shape).astype(dtype)
    assert is_image(values)
    check(image_perturbations(values), values, seed)


@settings(max_examples=30)
@given(
    st.lists(st.text(max_size=60).map(str.encode) | st.binary(max_size=20), min_size=1, max_size=6), st.integers(0, 9)
)
def test_of_texts(texts: list[bytes], seed: int) -> None:
    values = np.empty((len(texts), 1), dtype=object)
    values[:, 0] = texts
    assert is_text(values)
    check(text_perturbations(), values, seed)
    assert all(isinstance(each.at(values, 5, seed)[0, 0], bytes) for each in text_perturbations())


@settings(max_examples=30)
@given(
    st.integers(1, 20), st.integers(0, 4), st.sampled_from([np.float32, np.float64]), st.booleans(), st.integers(0, 9)
)
def test_of_numbers(rows: int, columns: int, dtype: type, nan: bool, seed: int) -> None:
    shape = (rows, columns) if columns else (rows,)
    values: Tensor = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    if nan:
        values.flat[0] = np.nan
    assert is_numbers(values)
    check(number_perturbations(values, takes_missing=True), values, seed)


def test_stronger_levels_change_more() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, 5))
    pictures = rng.random((40, 16, 16, 3))
    for found, values in (
        (number_perturbations(numbers, takes_missing=False), numbers),
        (image_perturbations(pictures), pictures),
    ):
        for each in found:
            moved = [float(np.abs(each.at(values, level, 1) - values).mean()) for level in range(LEVELS + 1)]
            assert moved == sorted(moved), each.name


def test_a_missing_value_is_nan_only_where_the_model_takes_it() -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    for takes in (True, False):
        missing = next(each for each in number_perturbations(values, takes_missing=takes) if "missing" in each.name)
        changed = missing.at(values, 5, 0)
        assert np.isnan(changed).any() == takes
        assert ("imputed" in missing.name) != takes
        if not takes:
            hit = changed != values
            assert hit.mean() == pytest.approx(0.4, abs=0.08)
            np.testing.assert_allclose(changed[hit], np.broadcast_to(np.median(values, axis=0), values.shape)[hit])


def test_typos_leave_most_letters_alone_and_case_leaves_the_letters() -> None:
    values = np.array([b"the quick brown fox jumps over the lazy dog " * 20], dtype=object)
    by_name = {each.name: each for each in text_perturbations()}
    weak = by_name["typos"].at(values, 1, 0)[0]
    assert weak != values[0]
    assert abs(len(weak) - len(values[0])) < 0.05 * len(values[0])
    assert by_name["case"].at(values, 5, 0)[0].lower() == values[0]
    assert by_name["case"].at(values, 5, 0)[0] == values[0].upper()
    assert values[0].startswith(by_name["truncation"].at(values, 3, 0)[0])
    assert by_name["padding"].at(values, 3, 0)[0].startswith(values[0])


def test_codes_and_small_grids_are_no_images() -> None:
    assert not is_image(np.zeros((5, 8, 8), object))
    assert not is_image(np.zeros((5, 4, 4)))
    assert not is_image(np.zeros((5, 16, 16, 7)))
    assert not is_numbers(np.zeros((5, 4), np.int64))
