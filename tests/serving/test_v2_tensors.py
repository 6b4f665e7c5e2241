"""Tensors as raw bytes, and scores as classes: what REST and gRPC share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.core.errors import InvalidRequest
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.transports.v2 import classify, tensor_from_bytes, tensor_to_bytes

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMERIC = [kind for kind in Datatype if kind is not Datatype.BYTES]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Datatype, Tensor]:
    kind, shape = draw(st.sampled_from(Datatype)), draw(SHAPES)
    count = math.prod(shape)
    if kind is Datatype.BYTES:
        flat = np.empty(count, dtype=object)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return kind, flat.reshape(shape)
    size = kind.dtype.itemsize * count
    raw = draw(st.binary(min_size=size, max_size=size))
    if kind is Datatype.BOOL:
        raw = bytes(byte & 1 for byte in raw)
    return kind, np.frombuffer(raw, kind.dtype).reshape(shape)


def same(left: Tensor, right: Tensor) -> bool:
    """Bit for bit: NaN of every kind included."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes()


@given(tensors(), st.integers(0, 7))
def test_bytes_and_back_is_the_same_tensor_at_any_alignment(case: tuple[Datatype, Tensor], shift: int) -> None:
    kind, tensor = case
    raw = bytes(tensor_to_bytes(tensor))
    view = memoryview(bytes(shift) + raw)[shift:]
    found = tensor_from_bytes("x", kind, tensor.shape, view)
    assert same(found, tensor)
    assert found.flags.aligned


@given(tensors())
def test_views_of_any_layout_are_written_in_row_major_order(case: tuple[Datatype, Tensor]) -> None:
    kind, tensor = case
    back = tensor_from_bytes("x", kind, tensor.T.shape, tensor_to_bytes(tensor.T))
    assert same(back, np.ascontiguousarray(tensor.T).reshape(tensor.T.shape))


@given(tensors(), st.data())
def test_a_byte_more_or_less_is_refused(case: tuple[Datatype, Tensor], data: st.DataObject) -> None:
    kind, tensor = case
    raw = bytes(tensor_to_bytes(tensor))
    wrong = data.draw(st.sampled_from([raw + b"\0", raw[:-1]] if raw else [b"\0"]))
    with pytest.raises(InvalidRequest, match="'x'"):
        tensor_from_bytes("x", kind, tensor.shape, wrong)


@given(st.sampled_from(Datatype), st.lists(st.integers(0, 2**63), max_size=4), st.binary(max_size=64))
def test_any_shape_and_any_bytes_give_a_tensor_or_a_refusal(kind: Datatype, shape: list[int], raw: bytes) -> None:
    """Shapes that overflow 64 bits included; nothing is allocated beyond what was received."""
    try:
        found = tensor_from_bytes("x", kind, shape, raw)
    except InvalidRequest:
        return
    assert found.shape == tuple(shape)


def test_a_tensor_is_a_view_of_the_bytes_received() -> None:
    raw = bytes(4096)
    assert np.shares_memory(tensor_from_bytes("x", Datatype.FP32, (1024,), raw), np.frombuffer(raw, np.uint8))


def test_values_are_written_without_a_copy() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.shares_memory(np.frombuffer(tensor_to_bytes(tensor), np.uint8), tensor)


def test_any_byte_but_zero_is_true() -> None:
    found = tensor_from_bytes("x", Datatype.BOOL, (4,), bytes([0, 1, 2, 255]))
    assert found.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_strings_of_the_engine_are_written_as_utf8() -> None:
    assert tensor_to_bytes(np.array(["é"], dtype=object)) == b"\x02\0\0\0\xc3\xa9"


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xffab", b"\x01\0\0", b"\x03\0\0\0ab", b"\x01\0\0\0ab"])
def test_strings_cut_short_or_with_leftovers_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="'x'"):
        tensor_from_bytes("x", Datatype.BYTES, (1,), raw)


SCORES = arrays.arrays(
    st.sampled_from([Datatype.FP32.dtype, Datatype.FP64.dtype, Datatype.INT8.dtype, Datatype.UINT64.dtype]),
    arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
)


@given(SCORES, st.integers(1, 8), st.lists(st.text(max_size=4), max_size=8))
def test_classes_come_best_first_with_their_labels(scores: Tensor, k: int, labels: list[str]) -> None:
    found = classify(scores, k, labels)
    flat = scores.reshape(scores.shape[0], -1)
    assert found.shape == (scores.shape[0], min(k, flat.shape[1]))
    for row, said in zip(flat, found, strict=True):
        parts = [item.decode().split(":", 2) for item in said]
        indices = [int(part[1]) for part in parts]
        expected = sorted(range(len(row)), key=lambda i: (bool(np.isnan(row[i])), -_number(row[i]), i))
        assert sorted(indices) == sorted(set(indices))
        assert [_number(row[i]) for i in indices] == [_number(row[i]) for i in expected[: len(indices)]]
        for (value, _, *label), index in zip(parts, indices, strict=True):
            assert value == (f"{row[index]:f}" if row.dtype.kind == "f" else str(int(row[index])))
            assert label == ([labels[index]] if index < len(labels) else [])


def _number(value: Any) -> float | int:
    """For ordering: NaN with the smallest."""
    number: float | int = value.item()
    return -math.inf if math.isnan(number) else number


def test_of_equal_scores_the_first_wins() -> None:
    assert classify(np.array([[1, 1, 1]], np.uint8), 2).tolist() == [[b"1:0", b"1:1"]]


def test_scores_that_are_not_rows_are_one_answer() -> None:
    assert classify(np.array([0.5, 1.5], Datatype.BF16.dtype), 9, batched=False).tolist() == [
        b"1.500000:1",
        b"0.500000:0",
    ]


def test_no_rows_give_no_classes() -> None:
    assert classify(np.zeros((0, 3), np.float32), 2).shape == (0, 0)
