"""Large JSON bodies go straight into arrays: with the results and the errors of the ordinary way, or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.errors import FairwayError
from fairway.core.tensors import Datatype
from fairway.serving.transports import numbers, v2json
from fairway.serving.transports.v2json import decode_request

pytest.importorskip("simdjson", reason="pysimdjson is not installed")

NUMERIC = [kind.value for kind in Datatype if kind not in (Datatype.BYTES, Datatype.BOOL, Datatype.BF16)]
FRACTIONS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(width=16, allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**64 - 1)
    | st.just(-0.0)
)
NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**65), 2**65)
    | st.integers(-130, 300)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
)
WHOLE = st.integers(-130, 260)
SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=4)


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    """``flat`` as nested lists of ``shape``."""
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [nested(flat[start : start + step], shape[1:]) for start in range(0, len(flat), step)]


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    shape, kind = draw(SHAPES), draw(st.sampled_from(NUMERIC))
    count = math.prod(shape)
    fitting = FRACTIONS if kind.startswith("FP") else st.integers(0, 127)
    values = draw(st.sampled_from([fitting, fitting, fitting, NUMBERS, WHOLE]))
    data: Any = draw(st.lists(values, min_size=count, max_size=count))
    if draw(st.booleans()):
        data = nested(data, shape)
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [True, None, "1", [1], [], {}, 10**30, 1e300, -0.0, [[1, 2]], [1, [2]]]
    )
    if draw(st.integers(0, 7)) == 7:
        data = draw(st.sampled_from([[*data, draw(odd)], [draw(odd), *data[1:]], data[:-1], draw(odd)]))
    entry = {"name": draw(st.sampled_from(["x", "y", "a[b", "é"])), "shape": shape, "datatype": kind, "data": data}
    if draw(st.integers(0, 9)) == 9:
        entry[draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = draw(odd)
    return entry


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    message: dict[str, Any] = {"inputs": draw(st.lists(inputs(), min_size=1, max_size=2))}
    if draw(st.booleans()):
        message["id"] = draw(st.sampled_from(["7", "a[", "\u20ac", '"']))
    if draw(st.booleans()):
        message["parameters"] = draw(st.sampled_from([{}, {"a": [1, [2]], "b": "["}, {"timeout": 5}, 7]))
    if draw(st.booleans()):
        message["outputs"] = draw(st.sampled_from([[], [{"name": "y"}], [{"name": "["}], {}, [[]]]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    text = json.dumps(message, separators=separators, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 4:  # damage
        place = draw(st.integers(0, len(text) - 1))
        text = (
            text[:place]
            + draw(st.sampled_from(["", "[", "]", ",", "}", "1", "-", "e", '"', "NaN", "[]"]))
            + text[place + 1 :]
        )
    return text.encode() + draw(st.sampled_from([b"", b"", b" ", b"x", b"\xff"]))


def outcome(body: bytes, large: Callable[[bytes | bytearray], Any]) -> Any:
    """Everything that a request became, or its error."""
    usual = mock.patch.object(v2json, "MAX_USUAL", -1, create=True)  # the shape of small requests is recognized before
    with usual, mock.patch.object(v2json, "LARGE", 0), mock.patch.object(v2json, "load_numbers", large):
        try:
            request, reply = decode_request(body, "m", None, None)
        except FairwayError as error:
            return type(error), str(error)
    tensors = [
        (name, array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in request.inputs.items()
    ]
    return tensors, request.id, request.outputs, request.parameters, reply


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies())
def test_results_and_errors_are_those_of_the_ordinary_way(body: bytes) -> None:
    assert outcome(body, numbers.load_numbers) == outcome(body, lambda _: None)


def message_of(data: Any, shape: list[int], datatype: str = "FP32") -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}).encode()


USUAL = [
    ([0.1, 2, -3e-7], [3], "FP32"),
    ([[0.1, 2], [3, 4]], [2, 2], "FP32"),
    ([[[1], [2]], [[3], [4]]], [2, 2, 1], "FP64"),
    ([[1], [2], [3]], [3, 1], "FP16"),
    ([0, 255], [1, 2], "UINT8"),
    ([[-(2**63), 2**63 - 1]], [1, 2], "INT64"),
    ([2**64 - 1], [1], "UINT64"),
]


@pytest.mark.parametrize(("data", "shape", "datatype"), USUAL)
def test_the_usual_forms_take_the_fast_way(data: Any, shape: list[int], datatype: str) -> None:
    message = numbers.load_numbers(message_of(data, shape, datatype))
    assert message is not None
    found = message["inputs"][0]["data"]
    expected = np.array(data, Datatype(datatype).dtype).reshape(shape)
    assert found.dtype == expected.dtype
    assert found.reshape(shape).tobytes() == expected.tobytes()


UNUSUAL = [
    message_of([1, [2, 3]], [3]),
    message_of([[1, 2], [], 3], [3]),
    message_of([[1], 2, 3, [4]], [2, 2]),
    message_of([[1, 2, 3], [4]], [2, 2]),
    message_of([True, 1], [2]),
    message_of([256], [1], "UINT8"),
    message_of([1.5], [1], "INT8"),
    message_of([1, 2], [3]),
    message_of(["a"], [1], "BYTES"),
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[2]}]}',
    b'{"inputs":[{"name":"\\u005b","shape":[2],"datatype":"FP32","data":[1,2]}]}',
    b"\xef\xbb\xbf" + message_of([1], [1]),
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}',
    b'[{"data":[1]}]',
    b"",
    b"[" * 200_000,
]


@pytest.mark.parametrize("body", UNUSUAL)
def test_whatever_is_unusual_is_left_to_the_ordinary_way(body: bytes) -> None:
    assert numbers.load_numbers(body) is None


def test_a_body_that_is_large_enough_takes_the_fast_way() -> None:
    rows = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    body = message_of(rows.tolist(), list(rows.shape))
    assert len(body) > numbers.LARGE
    with mock.patch("orjson.loads", side_effect=AssertionError("the ordinary way")):
        request, _ = decode_request(body, "m", None, None)
    assert request.inputs["x"].tobytes() == rows.tobytes()


def test_without_pysimdjson_everything_takes_the_ordinary_way() -> None:
    with mock.patch.object(numbers, "_simdjson", return_value=None):
        request, _ = decode_request(message_of([0.5] * 8192, [8192]), "m", None, None)
    assert request.inputs["x"].sum() == 4096
