"""Tensors: what a spec lets through is what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.core.errors import InvalidRequest
from fairway.core.tensors import Datatype, TensorSpec

DATATYPES = st.sampled_from([d for d in Datatype if d is not Datatype.BYTES])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)


@pytest.mark.parametrize("datatype", list(Datatype))
def test_a_datatype_is_that_of_its_own_dtype(datatype: Datatype) -> None:
    assert Datatype.of(datatype.dtype) is datatype


@pytest.mark.parametrize("dtype", ["U3", "S3", "O"])
def test_text_is_bytes(dtype: str) -> None:
    assert Datatype.of(np.dtype(dtype)) is Datatype.BYTES


def test_a_dtype_without_a_datatype_is_refused() -> None:
    with pytest.raises(ValueError, match="complex128"):
        Datatype.of(np.dtype("c16"))


@given(DATATYPES, SHAPES, st.data())
def test_an_array_fits_the_spec_made_from_it(datatype: Datatype, shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.zeros(shape, datatype.dtype)
    free = tuple(data.draw(st.sampled_from([-1, size])) for size in shape)
    TensorSpec("x", datatype, free).check(array)


@given(SHAPES, st.data())
def test_a_wrong_size_or_rank_is_refused(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    other = tuple(size + (place == axis) for place, size in enumerate(shape))
    for wrong in (other, (*shape, 1), shape[1:]):
        with pytest.raises(InvalidRequest, match="has shape"):
            TensorSpec("x", Datatype.FP32, wrong).check(np.zeros(shape, np.float32))


@given(DATATYPES, DATATYPES)
def test_another_datatype_is_refused(want: Datatype, have: Datatype) -> None:
    spec = TensorSpec("x", want, (-1,))
    if want is have:
        spec.check(np.zeros(2, have.dtype))
        return
    with pytest.raises(InvalidRequest, match=f"is {have}, but the model takes {want}"):
        spec.check(np.zeros(2, have.dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_what_is_not_finite_is_refused_with_its_place(bad: float, dtype: str) -> None:
    array: Any = np.zeros((2, 3), dtype)
    array[1, 2] = bad
    spec = TensorSpec("x", Datatype.of(array.dtype), (-1, 3))
    with pytest.raises(InvalidRequest, match=r"index \[1, 2\].*impute"):
        spec.check(array)
    TensorSpec("x", Datatype.of(array.dtype), (-1, 3), allow_nan=True).check(array)
