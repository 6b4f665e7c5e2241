"""The check of a conversion: what it lets through, and what it says when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.bundle.format import Bundle
from fairway.core.errors import ConversionMismatch, InvalidSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype, Tensors
from fairway.model import Model
from fairway.sources.agreement import check_agreement, compare
from fairway.sources.rows import generated_rows
from fairway.sources.tables import Table
from tests.conftest import Digits

PROBABILITIES = Prediction("p", "probabilities")


@given(arrays.arrays(np.float64, arrays.array_shapes(min_dims=1, max_dims=3), elements=st.floats(-1e9, 1e9)))
def test_an_array_agrees_with_itself(array: np.ndarray[Any, Any]) -> None:
    assert compare({"y": array}, {"y": array}) == {"y": 0.0}


@given(st.floats(1e-6, 1e6), st.sampled_from([1.0, -1.0]))
def test_the_tolerance_does_not_depend_on_the_unit(scale: float, sign: float) -> None:
    want = sign * scale * np.array([1.0, 2.0, 3.0])
    compare({"y": want}, {"y": (want * 1.0005).astype(np.float32)})
    with pytest.raises(ConversionMismatch):
        compare({"y": want}, {"y": (want * 1.01).astype(np.float32)})


def test_a_difference_is_told_with_its_output_row_and_size() -> None:
    want = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    have = want.astype(np.float32)
    have[1] = [0.3, 0.7]
    says = r"output 'p' differs by 0\.1 in row 20 \(the original says 0\.\d+, the bundle 0\.\d+; .*1 of 3 rows"
    with pytest.raises(ConversionMismatch, match=says):
        compare({"p": want}, {"p": have}, numbers=np.array([10, 20, 30]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_finite_number_is_refused_even_if_both_give_it(bad: float) -> None:
    array = np.array([1.0, bad], np.float32)
    with pytest.raises(ConversionMismatch, match=r"the original answers (nan|inf) at output 'y', row 1"):
        compare({"y": array}, {"y": array})
    with pytest.raises(ConversionMismatch, match=r"the bundle answers"):
        compare({"y": np.array([1.0, 2.0])}, {"y": array})


def test_bf16_is_compared_as_numbers_within_its_own_rounding() -> None:
    want = np.array([1.0, 2.001, 300.7])
    assert 0 < compare({"y": want}, {"y": want.astype(Datatype.BF16.dtype)})["y"] < 2
    with pytest.raises(ConversionMismatch, match="output 'y' differs by"):
        compare({"y": want}, {"y": (want * 1.1).astype(Datatype.BF16.dtype)})
    with pytest.raises(ConversionMismatch, match="the bundle answers nan"):
        compare({"y": want}, {"y": np.array([1, 2, np.nan]).astype(Datatype.BF16.dtype)})


def test_shapes_must_be_the_same() -> None:
    with pytest.raises(ConversionMismatch, match=r"shape \[2, 1\] in the bundle, but \[2\] in the original"):
        compare({"y": np.zeros(2)}, {"y": np.zeros((2, 1))})


def test_labels_must_be_equal() -> None:
    want, have = np.array(["cat", "dog"], dtype=object), np.array([b"cat", b"cat"], dtype=object)
    with pytest.raises(ConversionMismatch, match=r"output 'label' differs in row 1 .*'dog'.*b'cat'"):
        compare({"label": want}, {"label": have})
    compare({"label": want}, {"label": np.array([b"cat", b"dog"], dtype=object)})


def test_labels_may_differ_where_the_best_two_scores_tie() -> None:
    scores = np.array([[0.5, 0.5], [0.9, 0.1]])
    good = {"label": np.array([1, 0]), "p": scores.astype(np.float32)}
    compare({"label": np.array([0, 0]), "p": scores}, good, PROBABILITIES)
    wrong = {"label": np.array([0, 1]), "p": scores.astype(np.float32)}
    with pytest.raises(ConversionMismatch, match="row 1"):
        compare({"label": np.array([0, 0]), "p": scores}, wrong, PROBABILITIES)


def original(digits: Digits, error: float = 0.0) -> Any:
    def answer(feed: Tensors, rows: Table | None) -> Tensors:
        probabilities = digits.model.predict_proba(feed["x"])
        probabilities[feed["x"][:, 20] > 1.5, 3] += error
        return {"probabilities": probabilities}

    return answer


def test_a_bundle_that_is_faithful_passes(digits: Digits, digits_bundle: Bundle) -> None:
    with Model(digits_bundle) as model:
        found = check_agreement(original(digits), model, generated_rows(model.inputs, 100))
    assert found.rows == 100
    assert not found.real
    assert found.differences["probabilities"] < 1e-4


def test_a_bundle_that_is_wrong_in_few_rows_fails(digits: Digits, digits_bundle: Bundle) -> None:
    with Model(digits_bundle) as model:
        rows = generated_rows(model.inputs, 100)
        wrong = int((rows.feed["x"][:, 20] > 1.5).sum())
        assert 0 < wrong < 20
        with pytest.raises(ConversionMismatch, match=rf"'probabilities' differs by 0\.01 .*in {wrong} of 100 rows"):
            check_agreement(original(digits, error=0.01), model, rows)


def test_an_original_that_raises_is_not_blamed_on_the_bundle(digits: Digits, digits_bundle: Bundle) -> None:
    def broken(feed: Tensors, rows: Table | None) -> Tensors:
        raise ValueError("unknown category")

    with Model(digits_bundle) as model, pytest.raises(InvalidSource, match=r"generated .*ValueError: unknown category"):
        check_agreement(broken, model, generated_rows(model.inputs, 8))
