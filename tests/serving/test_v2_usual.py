"""The decoder of usual requests may decline, but where it does not, it says what the general one says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairway.core.errors import InvalidRequest
from fairway.core.messages import InferRequest
from fairway.core.tensors import Datatype
from fairway.serving.transports import v2json
from fairway.serving.transports.v2usual import MAX_BYTES, decode_usual

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-300, 300),
    st.floats(width=64),
    st.floats(width=32),
    st.sampled_from([1e39, 0.1]),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.lists(NUMBERS, max_size=2),
    st.dictionaries(st.text(max_size=2), NUMBERS),
)
NAMES = st.one_of(st.sampled_from(["x", "y", "", "ü", "\ud800"]), ANYTHING)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly right, sometimes wrong in one thing or another."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape))
    kind = draw(st.sampled_from([*map(str, Datatype), "FP31"]))
    values = draw(
        st.sampled_from(
            [st.integers(0, 100), st.floats(width=32, allow_nan=False, allow_infinity=False), NUMBERS, ANYTHING]
        )
    )
    wrong = [[*shape, 1], [-1], [-count], [True], [1.0], [2**63, 0], [1] * 40, None]
    tensor = {
        "name": draw(NAMES),
        "datatype": kind,
        "shape": draw(st.sampled_from(wrong)) if draw(st.booleans()) else shape,
        "data": draw(st.lists(values, min_size=count, max_size=count + draw(st.integers(0, 1)))),
    }  # fmt: skip
    if draw(st.integers(0, 5)) == 0:
        tensor["parameters"] = draw(ANYTHING)
    if draw(st.integers(0, 9)) == 0:
        del tensor[draw(st.sampled_from(sorted(tensor)))]
    return tensor


MESSAGES = st.fixed_dictionaries(
    {"inputs": st.lists(tensors(), max_size=2)},
    optional={
        "id": st.one_of(st.text(max_size=3), ANYTHING),
        "parameters": st.one_of(st.none(), st.just({}), ANYTHING),
        "outputs": st.one_of(st.just([]), st.just([{"name": "y"}]), ANYTHING),
        "else": ANYTHING,
    },
)


@pytest.fixture(autouse=True)
def general_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2json, "decode_usual", lambda *_: None)


def same(one: InferRequest, other: InferRequest) -> bool:
    return (
        (one.model, one.version, one.id, one.outputs, one.parameters, one.route_key)
        == (other.model, other.version, other.id, other.outputs, other.parameters, other.route_key)
        and list(one.inputs) == list(other.inputs)
        and all(
            array.dtype == other.inputs[name].dtype
            and array.shape == other.inputs[name].shape
            and array.tobytes() == other.inputs[name].tobytes()
            for name, array in one.inputs.items()
        )
    )


def check(body: bytes) -> None:
    usual = decode_usual(body, "m", "1", "key")
    if usual is not None:
        assert same(usual, v2json.decode_request(body, "m", "1", "key")[0])


@given(MESSAGES)
def test_what_it_understands_it_understands_as_the_general_decoder_does(message: dict[str, Any]) -> None:
    check(json.dumps(message).encode())


@given(MESSAGES, st.data())
def test_also_where_the_bytes_are_damaged(message: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.one_of(
                st.binary(max_size=2), st.sampled_from([b"true", b'"', b"0", b"-", b"1e400", b"[", b"\\u", b"\xff"])
            )
        )
    check(bytes(body))


@given(st.binary(max_size=40))
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "inputs": []}')
@example(b'{"inputs": [{"name": "x", "name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [01]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1e999]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [-0]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, -1], "data": []}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": tru}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": "\xff"}')
@example(b'{"inputs": [{"name": "\xff", "datatype": "FP32", "shape": [1], "data": [1]}]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": "\\ud800"}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": "a\nb"}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": 01}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": 1e999}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "x": [1,]}')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]} ')
@example(b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}x')
@example(b'\xef\xbb\xbf{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}')
def test_and_where_they_are_no_request_at_all(body: bytes) -> None:
    check(body)


@pytest.mark.parametrize("kind", [kind for kind in Datatype if kind.value.startswith(("FP32", "FP64", "INT", "UINT"))])
def test_plain_numbers_are_usual(kind: Datatype) -> None:
    body = {"id": "7", "inputs": [{"name": "x", "datatype": str(kind), "shape": [2, 1], "data": [1, 2]}]}
    usual = decode_usual(json.dumps(body).encode(), "m", None, None)
    assert usual is not None
    assert usual.id == "7"
    assert usual.inputs["x"].tolist() == [[1], [2]]
    assert usual.inputs["x"].dtype == kind.dtype


def test_a_long_body_is_parsed_once() -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [MAX_BYTES], "data": [0] * MAX_BYTES}]}
    assert v2json.decode_request(json.dumps(body).encode(), "m", None, None)[0].inputs["x"].shape == (MAX_BYTES,)
    with pytest.raises(InvalidRequest):
        v2json.decode_request(b'{"inputs": [{}]}', "m", None, None)
