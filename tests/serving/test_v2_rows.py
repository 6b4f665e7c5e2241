"""Answers written row by row from one text are, byte for byte, those written alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.core.messages import InferResponse
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.joining import Rows, split
from fairway.serving.transports.v2json import encode_response
from fairway.serving.transports.v2rows import encode_rows

DTYPES = [kind.dtype for kind in Datatype if kind not in (Datatype.BYTES, Datatype.BF16)]
NAMES = st.one_of(st.sampled_from(["y", "z", '"data":[]', "],[", "ü", "\\"]), st.text(max_size=3))


@st.composite
def outputs(draw: st.DrawFn) -> tuple[dict[str, Tensor], list[int]]:
    """Of one joined call, and how many rows each caller had."""
    counts = draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    made: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        tail = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
        array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), (sum(counts), *tail)))
        made[name] = np.asfortranarray(array) if draw(st.booleans()) else array
    return made, counts


@given(outputs(), st.one_of(st.none(), st.text(max_size=4)), st.text(max_size=3))
def test_an_answer_is_the_same_whether_it_is_written_alone_or_with_others(
    joined: tuple[dict[str, Tensor], list[int]], identity: str | None, model: str
) -> None:
    tensors, counts = joined
    for answer in split(tensors, counts):
        together = encode_response(InferResponse(model, "1", answer, identity))
        assert together == encode_response(InferResponse(model, "1", dict(answer), identity))


def test_plain_rows_are_written_together() -> None:
    answers = split({"y": np.arange(6, dtype=np.float32).reshape(3, 2)}, [1, 1, 1])
    bodies = [encode_rows(InferResponse("m", "1", answer), answer) for answer in answers if isinstance(answer, Rows)]
    assert [body is not None and body.partition(b'"data":')[2] for body in bodies] == [
        b"[0.0,1.0]}]}",
        b"[2.0,3.0]}]}",
        b"[4.0,5.0]}]}",
    ]


def test_a_number_that_json_lacks_is_written_alone() -> None:
    answers = split({"y": np.array([[1.0], [np.nan]], np.float32)}, [1, 1])
    assert [encode_response(InferResponse("m", "1", answer)).count(b"NaN") for answer in answers] == [0, 1]
