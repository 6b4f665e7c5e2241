"""Sketches count exactly, merge in any grouping, and are read back only if undamaged."""

from __future__ import annotations

import hashlib
import math
from typing import TypeAlias

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.core.errors import InvalidData, NewerFormat
from fairway.monitoring.features import Feature, Source
from fairway.monitoring.sketches import FeatureSketches

FEATURES = (
    Feature("a", Source("input", "x", "element", 0), edges=(-1.0, 0.0, 2.5), low=-3.0, high=4.0, may_be_missing=True),
    Feature("b", Source("input", "x", "element", 1), low=0.0, high=0.0, may_be_missing=True),
    Feature("color", Source("input", "color", "value"), codes=("blue", "red")),
    Feature("class", Source("output", "scores", "class"), codes=(0, 2), names=("cat", "dog")),
    Feature("confidence", Source("output", "scores", "confidence", logits=True), edges=(0.5,), low=0.3, high=1.0),
)
COLORS = np.array([b"red", b"blue", b"pink", "red"], dtype=object)


Batch: TypeAlias = tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(1, 8))
    numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
    x = draw(hnp.arrays(np.float32, (rows, 2), elements=numbers))
    color = COLORS[draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 3)))]
    scores = draw(hnp.arrays(np.float32, (rows, 3), elements=st.floats(-50, 50, width=32)))
    return {"x": x, "color": color}, {"scores": scores}, rows


def sketch(*parts: Batch) -> FeatureSketches:
    sketches = FeatureSketches(FEATURES)
    for inputs, outputs, rows in parts:
        sketches.update(inputs, outputs, rows)
    return sketches


def exact(sketches: FeatureSketches) -> object:
    """All but the sums, which rounding makes depend on the order."""
    counts = [msgspec.structs.replace(c, total=0.0) for c in sketches.counts]
    return sketches.rows, sketches.skipped, counts


def merged(*parts: FeatureSketches) -> FeatureSketches:
    total = FeatureSketches(FEATURES)
    for part in parts:
        total.merge(part)
    return total


@given(st.lists(batches(), min_size=3, max_size=3))
@settings(max_examples=60)
def test_merging_is_associative_and_commutative_and_the_same_as_counting_all(parts: list[Batch]) -> None:
    a, b, c = (sketch(part) for part in parts)
    whole = exact(sketch(*parts))
    assert exact(merged(merged(a, b), c)) == exact(merged(a, merged(b, c))) == exact(merged(c, a, b)) == whole


@given(st.lists(batches(), max_size=3))
@settings(max_examples=60)
def test_encoding_round_trips(parts: list[Batch]) -> None:
    sketches = sketch(*parts)
    sketches.skipped = 7
    read = FeatureSketches.decode(sketches.encode(), FEATURES)
    assert (read.rows, read.skipped, read.counts) == (sketches.rows, 7, sketches.counts)


@given(batches())
def test_every_row_is_counted_once_per_feature(part: Batch) -> None:
    rows = part[2]
    assert all(counts.rows + counts.missing == rows for counts in sketch(part).counts)


def test_values_are_counted_where_they_belong() -> None:
    x = np.array([[-1, 0], [-0.5, 0], [2.5, 1], [9, math.nan], [math.inf, 0], [math.nan, 0]], np.float32)
    scores = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 0, 0], [0, 0, 0.1], [0, 0, 9]], np.float32)
    a, b, color, predicted, confidence = sketch(
        ({"x": x, "color": COLORS[[0, 1, 2, 3, 0, 0]]}, {"scores": scores}, 6)
    ).counts
    assert (a.bins, a.missing, a.below, a.above) == ([1, 1, 1, 2], 1, 0, 2)
    assert (a.total, a.least, a.most) == (10.0, -1.0, 9.0)
    assert (b.bins, b.missing, b.above) == ([5], 1, 1)
    assert color.bins == [1, 4, 1]
    assert predicted.bins == [2, 3, 1]
    assert confidence.bins == [2, 4]


def test_a_tensor_that_is_absent_or_of_another_shape_is_left_out() -> None:
    sketches = sketch(({"x": np.zeros((2, 1), np.float32)}, {"scores": np.zeros((3, 3), np.float32)}, 2))
    assert [counts.rows for counts in sketches.counts] == [2, 0, 0, 0, 0]


def test_memory_does_not_grow_with_rows() -> None:
    rng = np.random.default_rng(0)
    sketches = FeatureSketches(FEATURES)
    for _ in range(50):
        sketches.update({"x": rng.normal(size=(1000, 2)), "color": COLORS[rng.integers(0, 4, 1000)]}, {}, 1000)
    assert sketches.rows == 50_000
    assert len(sketches.encode()) < 300


@given(st.data())
@settings(max_examples=200)
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    good = bytearray(sketch(({"x": np.zeros((2, 2), np.float32)}, {}, 2)).encode())
    at = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        bad = bytes(good[:at])
    else:
        good[at] ^= data.draw(st.integers(1, 255))
        bad = bytes(good)
    with pytest.raises(InvalidData):
        FeatureSketches.decode(bad, FEATURES)


def resealed(**changes: object) -> bytes:
    """Bytes that say of themselves that they are whole, with some fields changed."""
    raw = msgspec.msgpack.decode(sketch(({"x": np.zeros((2, 2), np.float32)}, {}, 2)).encode()[8:])
    body = msgspec.msgpack.encode({**raw, **changes})
    return hashlib.blake2b(body, digest_size=8).digest() + body


@pytest.mark.parametrize("changes", [{"rows": 1}, {"rows": -1}, {"counts": []}, {"counts": 3}, {"more": 1}])
def test_sketches_that_contradict_themselves_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidData):
        FeatureSketches.decode(resealed(**changes), FEATURES)


def test_sketches_of_a_newer_format_or_another_baseline_are_refused() -> None:
    with pytest.raises(NewerFormat, match="format 2"):
        FeatureSketches.decode(resealed(format=2), FEATURES)
    with pytest.raises(InvalidData, match="another baseline"):
        FeatureSketches.decode(sketch().encode(), FEATURES[:2])
    with pytest.raises(InvalidData, match="another baseline"):
        sketch().merge(FeatureSketches(FEATURES[:2]))
