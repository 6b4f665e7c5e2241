"""Binary requests whose JSON was understood before: nobody can tell, whatever bodies come in between."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.core.errors import FairwayError, InvalidRequest
from fairway.core.messages import InferRequest, InferResponse
from fairway.core.tensors import Datatype
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.codec import Codec
from fairway.serving.transports.v2 import OutputOptions, Reply, tensor_to_bytes
from fairway.serving.transports.v2binary import decode_binary, encode_reply
from fairway.serving.transports.v2json import NAMES, dump_response
from fairway.serving.transports.v2known import MAX_HEADER_BYTES, MAX_PLANS, KnownHeaders

X = np.array([[0.5, -1, 2]], np.float32)
BINARY_OUT = {"parameters": {"binary_data_output": True}}
IDS = st.one_of(st.sampled_from(["", "a", "z", 'quo"te', "back\\slash", "ü", "NaN", "\x7f"]), st.text(max_size=4))


def body_of(content: Any, *blobs: bytes) -> tuple[bytes, int]:
    header = json.dumps(content, separators=(",", ":")).encode()
    return header + b"".join(blobs), len(header)


def entry(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 3), size: Any = 12) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}


def codec() -> Codec:
    return Codec(cast(Any, SimpleNamespace(models=None)), ServeSettings())


def kept(header: Any, *blobs: bytes) -> int:
    """How many plans this request leaves."""
    body, size = body_of(header, *blobs)
    known = KnownHeaders()
    known.remember(body, size, *decode_binary(body, size, "m", "1", None, None))
    return len(known)


def said(found: tuple[InferRequest, Reply | None] | FairwayError) -> Any:
    """All that a request says, in what can be compared."""
    if isinstance(found, FairwayError):
        return type(found), str(found)
    request, reply = found
    inputs = {
        name: (array.dtype, array.shape, array.flags.aligned, array.flags.c_contiguous, tensor_to_bytes(array))
        for name, array in request.inputs.items()
    }
    rest = (request.model, request.version, request.id, request.outputs, request.route_key, request.finite)
    return list(inputs.items()), rest, list(request.parameters.items()), reply


def outcome(decode: Any, *args: Any) -> Any:
    try:
        return said(decode(*args))
    except FairwayError as error:
        return said(error)


@st.composite
def contents(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """Of a request: usual or not."""
    inputs, blobs = [], []
    usual = draw(st.booleans())
    kinds, names = ([Datatype.FP32, Datatype.INT64], ["x", "y"]) if usual else (list(Datatype), ["x", "id", "ü"])
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        kind = draw(st.sampled_from(kinds))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=int(usual), max_side=3))
        count = int(np.prod(shape))
        if kind is Datatype.FP32 and not usual and draw(st.booleans()):
            inputs.append({"name": name, "datatype": "FP32", "shape": list(shape), "data": [0.5] * count})
            continue
        size = kind.dtype.itemsize if kind is not Datatype.BYTES else 4
        blob = (
            draw(st.binary(min_size=size * count, max_size=size * count))
            if kind is not Datatype.BYTES
            else bytes(4 * count)
        )
        blobs.append(blob)
        inputs.append(entry(name, kind.value, shape, len(blob)))
    content: dict[str, Any] = {"id": draw(IDS)} if draw(st.booleans()) else {}
    content["inputs"] = inputs
    parameters = draw(
        st.sampled_from([None, {}, {"binary_data_output": True}, {"p": [1]}, {"timeout": 5, "raw": False}])
    )
    outputs = draw(st.sampled_from([None, [], [{"name": "o", "parameters": {"binary_data": True}}], [{"name": "o"}]]))
    content |= {} if parameters is None else {"parameters": parameters}
    content |= {} if outputs is None else {"outputs": outputs}
    if draw(st.integers(0, 5)) == 0:
        content["id"] = draw(IDS)
    return content, blobs


@st.composite
def bodies(draw: st.DrawFn) -> list[tuple[bytes | bytearray, int]]:
    """Bodies with the length of their JSON: the same ones with other values and ids, and damaged ones."""
    made: list[tuple[bytes | bytearray, int]] = []
    for content, blobs in draw(st.lists(contents(), min_size=1, max_size=2)):
        separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        for _ in range(3):
            if "id" in content and draw(st.booleans()):
                content["id"] = draw(IDS)
            header = json.dumps(content, separators=separators, ensure_ascii=draw(st.booleans())).encode()
            body, size = bytearray(header + b"".join(blobs)), len(header)
            how = draw(st.sampled_from(["as it is", "as it is", "byte", "cut", "longer", "length", "second id"]))
            place = draw(st.integers(0, len(body) - 1))
            if how == "byte":
                body[place] = draw(st.sampled_from(b'"\\{},:[]0 i\xff'))
            elif how == "cut":
                del body[place:]
            elif how == "longer":
                body += b"\0" * 4
            elif how == "length":
                size = max(1, size + draw(st.integers(-3, 40)))
            elif how == "second id":
                body[size - 1 : size] = b',"id":"z"}'
                size += 9
            made.append((bytes(body) if draw(st.booleans()) else body, size))
    return draw(st.permutations(made * 2))


@given(bodies())
def test_a_known_request_is_what_it_is_to_who_sees_it_first(sequence: list[tuple[bytes | bytearray, int]]) -> None:
    remembering = codec()
    for body, size in sequence:
        first = outcome(decode_binary, body, size, "m", "1", "key", None)
        assert outcome(remembering.decode_binary, body, size, "m", "1", "key") == first


@pytest.mark.parametrize("more", [{}, BINARY_OUT, {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}])
def test_values_and_ids_are_each_requests_own(more: dict[str, Any]) -> None:
    known = KnownHeaders()
    for number, identity in enumerate(["a", "b", "", "c c"]):
        body, size = body_of({"id": identity, "inputs": [entry()], **more}, (X * number).tobytes())
        found = known.decode(body, size, "m", None, None)
        if number == 0:
            assert found is None
            known.remember(body, size, *decode_binary(body, size, "m", None, None, None))
            continue
        assert found is not None
        assert found[0].id == (identity or None)
        np.testing.assert_array_equal(found[0].inputs["x"], X * number)
        assert found[0].inputs["x"].flags.aligned
        found[0].parameters["added"] = 1
    assert len(known) == 1
    last = known.decode(*body_of({"id": "d", "inputs": [entry()], **more}, X.tobytes()), "m", None, None)
    assert last is not None
    assert "added" not in last[0].parameters


def test_a_bare_json_that_looks_like_the_rest_of_another_is_not_known() -> None:
    known = KnownHeaders()
    body, size = body_of({"id": "a", "inputs": [entry()]}, X.tobytes())
    known.remember(body, size, *decode_binary(body, size, "m", None, None, None))
    for skipped in range(1, 10):
        assert known.decode(body[skipped:], size - skipped, "m", None, None) is None


@pytest.mark.parametrize("key", [b"id", rb"\u0069d"])
def test_of_two_ids_the_last_counts(key: bytes) -> None:
    remembering = codec()
    for identity in ("z", "a", "z"):
        header = b'{"id":"%b","inputs":[%b],"%b":"z"}' % (identity.encode(), json.dumps(entry()).encode(), key)
        request, _ = remembering.decode_binary(header + X.tobytes(), len(header), "m", None, None)
        assert request.id == "z"


def test_a_known_json_with_too_few_or_too_many_values_is_refused_in_the_same_words() -> None:
    remembering = codec()
    body, size = body_of({"inputs": [entry()]}, X.tobytes())
    remembering.decode_binary(body, size, "m", None, None)
    for wrong, length in ((body[:-1], size), (body + b"0", size), (body[:size], size), (body[:size], size + 1)):
        with pytest.raises(InvalidRequest) as expected:
            decode_binary(wrong, length, "m", None, None, None)
        with pytest.raises(InvalidRequest) as found:
            remembering.decode_binary(wrong, length, "m", None, None)
        assert str(found.value) == str(expected.value)


def test_what_depends_on_more_than_its_json_is_not_kept() -> None:
    assert kept({"inputs": [entry()]}, X.tobytes()) == 1
    assert kept({"inputs": [entry("b", "BOOL", (2,), 2)]}, b"\1\2") == 0
    assert kept({"inputs": [entry("s", "BYTES", (1,), 5)]}, b"\1\0\0\0a") == 0
    data = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}
    assert kept({"inputs": [entry(), data]}, X.tobytes()) == 0
    classes = {"outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    assert kept({"inputs": [entry()], **classes}, X.tobytes()) == 0
    assert kept({"inputs": [entry()], "parameters": {"p": [1]}}, X.tobytes()) == 0
    assert kept({"inputs": [entry()], "parameters": {"p": "x" * MAX_HEADER_BYTES}}, X.tobytes()) == 0


def test_plans_are_bounded() -> None:
    known = KnownHeaders()
    for number in range(2 * MAX_PLANS + 1):
        body, size = body_of({"inputs": [entry(f"x{number}")]}, X.tobytes())
        known.remember(body, size, *decode_binary(body, size, "m", None, None, None))
        assert 0 < len(known) <= MAX_PLANS


NAMES_OF_OUTPUTS = st.one_of(st.sampled_from(["y", "null", '"', "ü"]), st.text(max_size=3))
DTYPES = [*(kind.dtype for kind in Datatype if kind is not Datatype.BF16), np.dtype(">f4")]


@st.composite
def answers(draw: st.DrawFn) -> InferResponse:
    outputs = {}
    for name in draw(st.lists(NAMES_OF_OUTPUTS, max_size=3, unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0))
        array = np.full(shape, b"t", object) if dtype.kind == "O" else np.ones(shape, dtype)
        outputs[name] = np.asfortranarray(array) if draw(st.booleans()) else array
    parameters = draw(st.sampled_from([{}, {"p": 1}]))
    return InferResponse(
        draw(NAMES_OF_OUTPUTS), "1", outputs, draw(st.one_of(st.none(), st.text(max_size=3))), parameters
    )


@given(answers(), st.booleans())
def test_answers_of_bytes_are_those_written_from_scratch(response: InferResponse, listed: bool) -> None:
    reply = Reply({name: OutputOptions(name, True) for name in response.outputs}) if listed else Reply(binary=True)
    blobs = {name: bytes(tensor_to_bytes(tensor)) for name, tensor in response.outputs.items()}
    described = [
        {
            "name": name,
            "shape": tensor.shape,
            "datatype": NAMES.get(tensor.dtype, "BYTES"),
            "parameters": {"binary_data_size": len(blobs[name])},
        }
        for name, tensor in response.outputs.items()
    ]
    for _ in range(2):
        answer = encode_reply(response, reply, None)
        assert answer.header == dump_response(response, described)
        assert list(map(bytes, answer.blobs or ())) == list(blobs.values())
        assert (answer.blobs is None) == (not blobs)
