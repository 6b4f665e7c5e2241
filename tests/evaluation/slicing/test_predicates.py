"""Predicates: each says in SQL what it selects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairway.core.tensors import Tensor
from fairway.evaluation.slicing.predicates import column_predicates, quoted
from fairway.sources.tables import make_table

WORDS = ["Refund", "card", "größe", "naïve", "it's", "a_b", "re-fund", "x2", ""]


def check(name: str, values: Tensor) -> int:
    table = make_table({name: values})
    found = [each for each in column_predicates(name, table.column(name), columns=3) if each.where]
    for each in found:
        assert (table.mask(each.where) == each.rows).all(), each.where
    return len(found)


@settings(max_examples=12)
@given(arrays(np.float64, 60, elements=st.floats(-1e6, 1e6) | st.just(float("nan"))))
def test_of_numbers(values: Tensor) -> None:
    check("x", values)


@settings(max_examples=12)
@given(arrays(np.int64, 60, elements=st.integers(-3, 40)))
def test_of_integers(values: Tensor) -> None:
    check("order", values)


@settings(max_examples=5)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join) | st.none(), min_size=60, max_size=60))
def test_of_texts(values: list[str | None]) -> None:
    check('my "text"', np.array(values, dtype=object))


def test_of_times_and_truths() -> None:
    rng = np.random.default_rng(0)
    moments = np.datetime64("2024-01-01T00:00:00.5") + rng.integers(0, 10**9, 80).astype("timedelta64[ms]")
    assert check("when", moments) >= 10
    assert check("yes", rng.random(80) < 0.5) == 2


def test_cuts_are_short_numbers() -> None:
    values = np.random.default_rng(0).normal(37.123456, 5, 1000)
    cuts = [each.where.split()[-1] for each in column_predicates("x", values, columns=3)]
    assert all(len(cut) <= 4 for cut in cuts)


def test_images_are_told_by_brightness_contrast_and_sharpness() -> None:
    images = np.random.default_rng(0).integers(0, 255, (80, 8, 8, 3)).astype(np.uint8)
    texts = [each.text for each in column_predicates("photo", images, columns=1)]
    for what in ("brightness", "contrast", "sharpness"):
        assert any(text.startswith(f"{what} of photo") for text in texts)


@pytest.mark.parametrize(("name", "sql"), [("ink", "ink"), ("select", '"select"'), ("a b", '"a b"'), ("ä", '"ä"')])
def test_columns_are_quoted_where_needed(name: str, sql: str) -> None:
    assert quoted(name) == sql
    check(name, np.arange(60.0))


def test_of_lists_of_numbers_one_by_one() -> None:
    assert check("x", np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)) == 30
