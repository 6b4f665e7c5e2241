"""ModelInferRequest and ModelInferResponse, to and from Fairway's messages."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.core.errors import FairwayError, InferenceFailed, InvalidRequest, NotEnabled
from fairway.core.messages import InferRequest, InferResponse
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.decoding import Decoder
from fairway.serving.transports.grpc.encoding import Encoder
from fairway.serving.transports.v2 import OutputOptions, Region, tensor_from_bytes, tensor_to_bytes

REQUEST = messages.message("inference.ModelInferRequest")
RESPONSE = messages.message("inference.ModelInferResponse")
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TYPED = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    kind, shape = draw(st.sampled_from(Datatype)), draw(SHAPES)
    count = math.prod(shape)
    if kind is Datatype.BYTES:
        flat = np.empty(count, dtype=object)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return flat.reshape(shape)
    size = kind.dtype.itemsize * count
    raw = draw(st.binary(min_size=size, max_size=size))
    if kind is Datatype.BOOL:
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, kind.dtype).reshape(shape)


def same(left: Tensor, right: Tensor) -> bool:
    """Bit for bit, so that NaN counts as itself."""
    return (left.dtype, left.shape, bytes(tensor_to_bytes(left))) == (
        right.dtype,
        right.shape,
        bytes(tensor_to_bytes(right)),
    )


def asked(model: str = "m", *tensors: tuple[str, Tensor], **rest: Any) -> Any:
    request = REQUEST(model_name=model, **rest)
    for name, tensor in tensors:
        request.inputs.add(name=name, datatype=Datatype.of(tensor.dtype).value, shape=tensor.shape)
        request.raw_input_contents.append(bytes(tensor_to_bytes(tensor)))
    return request


def ones(*shape: int) -> Tensor:
    return np.ones(shape, np.float32)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system has no /dev/shm")
    shared = SharedMemory(2**20)
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="fairway-test-") as file:
        os.truncate(file.name, 64)
        shared.register("region", Path(file.name).name, 0, 64)
        yield shared
        shared.close()


def described(request: InferRequest) -> tuple[Any, ...]:
    inputs = [(n, t.dtype, t.shape, bytes(tensor_to_bytes(t))) for n, t in request.inputs.items()]
    return request.model, request.version, request.id, request.outputs, request.parameters, request.route_key, inputs


# -- requests


@given(
    inputs=st.dictionaries(NAMES, tensors(), min_size=1, max_size=3),
    model=NAMES,
    version=st.sampled_from(["", "3", "v10"]),
    identity=st.one_of(st.just(""), NAMES),
    outputs=st.lists(NAMES, max_size=2),
)
def test_a_request_comes_through_as_it_was_sent(
    inputs: dict[str, Tensor], model: str, version: str, identity: str, outputs: list[str]
) -> None:
    request = asked(model, *inputs.items(), model_version=version, id=identity, outputs=[{"name": n} for n in outputs])
    message = request.SerializeToString()
    decoder = Decoder()
    for _ in range(2):  # the second time, its head may be known
        found, options = decoder.decode(message)
        assert options is None
        assert (found.model, found.version, found.id) == (model, version or None, identity or None)
        assert found.outputs == (tuple(outputs) or None)
        assert list(found.inputs) == list(inputs)
        assert all(same(found.inputs[name], inputs[name]) for name in inputs)


@given(
    first=tensors(),
    values=st.binary(max_size=64),
    identities=st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=6), st.text(st.characters(codec="utf-8"), max_size=6)
    ),
    tail=st.binary(max_size=12),
)
def test_a_known_head_changes_no_answer(first: Tensor, values: bytes, identities: tuple[str, str], tail: bytes) -> None:
    """Whatever follows a request that was remembered is understood as if it came first."""
    before = asked("m", ("x", first), id=identities[0]).SerializeToString()
    other = asked("m", ("x", first), id=identities[1])
    raw = bytearray(other.raw_input_contents[0])
    raw[: len(values)] = values[: len(raw)]
    other.raw_input_contents[0] = bytes(raw)
    for message in (other.SerializeToString(), before + tail, before[: len(before) - len(tail)] + tail):
        used = Decoder()
        used.decode(before)
        assert outcome(used, message) == outcome(Decoder(), message)


def outcome(decoder: Decoder, message: bytes) -> Any:
    try:
        return described(decoder.decode(message).request)
    except FairwayError as error:
        return type(error), str(error)


def test_heads_are_not_mistaken_where_the_values_are_not_last() -> None:
    """An unknown field holds what looks like the values; the true ones come before."""
    values = ones(4).tobytes()
    request = asked("m", ("x", ones(4))).SerializeToString()
    unknown = bytes((0x82, 0x7D, 2 + len(values))) + b"\x3a\x10" + values
    decoder = Decoder()
    decoder.decode(request + unknown)
    changed = request + unknown[:-16] + np.zeros(4, np.float32).tobytes()
    assert decoder.decode(changed).request.inputs["x"].tolist() == [1, 1, 1, 1]


def test_no_more_heads_are_kept_than_a_bound(decoder: Decoder) -> None:
    for size in range(1, 600):
        decoder.decode(asked("m", ("x", ones(size))).SerializeToString())
    assert len(decoder._heads._by_length) <= 256
    decoder.decode(asked("m" * 5000, ("x", ones(1))).SerializeToString())
    assert all(len(head) < 5000 for head, _, _ in decoder._heads._by_length.values())


@pytest.mark.parametrize("kind", TYPED, ids=str)
def test_typed_contents_are_read(decoder: Decoder, kind: Datatype) -> None:
    values: list[Any] = [b"a", b""] if kind is Datatype.BYTES else [True, False] if kind is Datatype.BOOL else [1, 2]
    request = REQUEST(model_name="m")
    request.inputs.add(name="x", datatype=kind.value, shape=[2], contents={TYPED[kind]: values})
    found = decoder.decode(request.SerializeToString()).request.inputs["x"]
    assert found.dtype == kind.dtype
    assert found.tolist() == values


@pytest.mark.parametrize(("kind", "value"), [("INT8", 128), ("INT16", -40_000), ("UINT8", 256), ("UINT16", 70_000)])
def test_values_out_of_range_are_refused_not_wrapped(decoder: Decoder, kind: str, value: int) -> None:
    field = "int_contents" if kind.startswith("INT") else "uint_contents"
    request = REQUEST(model_name="m")
    request.inputs.add(name="x", datatype=kind, shape=[1], contents={field: [value]})
    with pytest.raises(InvalidRequest, match="out of its range"):
        decoder.decode(request.SerializeToString())


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ({"bool_param": True}, True),
        ({"int64_param": -3}, -3),
        ({"string_param": "é"}, "é"),
        ({"double_param": 0.5}, 0.5),
        ({"uint64_param": 2**64 - 1}, 2**64 - 1),
    ],
)
def test_parameters_of_every_kind_are_kept(decoder: Decoder, parameter: dict[str, Any], value: Any) -> None:
    request = asked("m", ("x", ones(1)))
    request.parameters["mine"].MergeFrom(messages.message("inference.InferParameter")(**parameter))
    found = decoder.decode(request.SerializeToString()).request.parameters
    assert found == {"mine": value}
    assert type(found["mine"]) is type(value)


def test_the_shorter_of_deadline_and_timeout_counts(decoder: Decoder) -> None:
    request = asked("m", ("x", ones(1)))
    message = request.SerializeToString()
    assert decoder.decode(message, timeout_s=1.5).request.parameters == {"timeout": 1_500_000}
    request.parameters["timeout"].int64_param = 1000
    for deadline_s, expected in ((1.5, 1000), (0.0005, 500)):
        found = decoder.decode(request.SerializeToString(), timeout_s=deadline_s).request
        assert found.parameters == {"timeout": expected}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({}, "'inputs' is empty"),
    "no name": ({"inputs": [{"datatype": "FP32", "shape": [1]}]}, "no name"),
    "twice": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}] * 2, "raw_input_contents": [b"\0" * 4] * 2},
        "given twice",
    ),
    "datatype": ({"inputs": [{"name": "x", "datatype": "FP31", "shape": [1]}]}, "use one of BOOL"),
    "negative size": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "raw_input_contents": [b""]},
        "must be 0 or more",
    ),
    "too many dimensions": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 33}], "raw_input_contents": [b"\0" * 4]},
        "33 dimensions",
    ),
    "10^12 elements": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [10**12]}], "raw_input_contents": [b"\0" * 4]},
        "takes 4000000000000 bytes, but 4 were sent",
    ),
    "overflowing shape": (
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2**62, 4]}], "raw_input_contents": [b""]},
        "but 0 were sent",
    ),
    "no values in a huge shape": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 2**62, 2**62]}], "raw_input_contents": [b""]},
        "send a smaller one",
    ),
    "10^12 typed elements": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [10**12], "contents": {"fp32_contents": [1.0]}}]},
        "takes 1000000000000 values, but 1 were sent",
    ),
    "10^12 strings": (
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [10**12]}], "raw_input_contents": [b"\0" * 4]},
        "cannot hold as many",
    ),
    "too little": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}], "raw_input_contents": [b"\0" * 4]},
        "takes 8 bytes, but 4 were sent",
    ),
    "leftover": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}], "raw_input_contents": [b"\0" * 4] * 2},
        "2 entries, but only 1",
    ),
    "missing": (
        {
            "inputs": [{"name": n, "datatype": "FP32", "shape": [1]} for n in "xy"],
            "raw_input_contents": [b"\0" * 4],
        },
        "1 entries for 2 inputs",
    ),
    "mixed": (
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}}],
            "raw_input_contents": [b"\0" * 4],
        },
        "one way or the other",
    ),
    "no data": ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, "takes 1 values, but 0 were sent"),
    "wrong contents": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp64_contents": [1.0]}}]},
        "belong into fp32_contents, not fp64_contents",
    ),
    "FP16 contents": (
        {"inputs": [{"name": "x", "datatype": "FP16", "shape": [1], "contents": {"fp32_contents": [1.0]}}]},
        "no typed contents; send raw",
    ),
    "BF16 contents": (
        {"inputs": [{"name": "x", "datatype": "BF16", "shape": [1], "contents": {"fp32_contents": [1.0]}}]},
        "no typed contents; send raw",
    ),
    "reserved parameter": (
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}],
            "parameters": {"triton_mine": {"bool_param": True}},
        },
        "reserved",
    ),
    "empty parameter": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}], "parameters": {"mine": {}}},
        "has no value",
    ),
    "output without a name": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}], "outputs": [{"name": ""}]},
        "give each a 'name'",
    ),
    "classes of no number": (
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}],
            "outputs": [{"name": "y", "parameters": {"classification": {"int64_param": -1}}}],
        },
        "whole number of 0 or more",
    ),
    "region without a size": (
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1],
                    "datatype": "FP32",
                    "parameters": {"shared_memory_region": {"string_param": "r"}},
                }
            ]
        },
        "shared_memory_byte_size",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(decoder: Decoder, name: str) -> None:
    message, said = WRONG[name]
    with pytest.raises(InvalidRequest, match=said):
        decoder.decode(REQUEST(model_name="m", **message).SerializeToString())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused_not_raised_over(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        Decoder().decode(data)


def test_requested_outputs_carry_their_options(memory: SharedMemory) -> None:
    request = asked("m", ("x", ones(1)))
    request.outputs.add(name="plain")
    request.outputs.add(name="best").parameters["classification"].int64_param = 3
    placed = request.outputs.add(name="placed").parameters
    placed["shared_memory_region"].string_param = "region"
    placed["shared_memory_byte_size"].int64_param = 16
    placed["shared_memory_offset"].int64_param = 8
    found, options = Decoder(memory).decode(request.SerializeToString())
    assert found.outputs == ("plain", "best", "placed")
    assert options == [
        OutputOptions("plain"),
        OutputOptions("best", classification=3),
        OutputOptions("placed", region=Region("region", 16, 8)),
    ]
    with pytest.raises(NotEnabled, match="shared_memory = true"):
        Decoder().decode(request.SerializeToString())


def test_inputs_in_shared_memory_take_no_raw_entry(memory: SharedMemory) -> None:
    memory.write(Region("region", 8, 4), np.array([3, 4], np.float32).tobytes())
    request = REQUEST(model_name="m")
    placed = request.inputs.add(name="placed", datatype="FP32", shape=[2]).parameters
    placed["shared_memory_region"].string_param = "region"
    placed["shared_memory_byte_size"].int64_param = 8
    placed["shared_memory_offset"].int64_param = 4
    request.inputs.add(name="sent", datatype="FP32", shape=[1])
    request.raw_input_contents.append(ones(1).tobytes())
    found = Decoder(memory).decode(request.SerializeToString()).request.inputs
    assert (found["placed"].tolist(), found["sent"].tolist()) == ([3, 4], [1])
    with pytest.raises(NotEnabled, match="shared_memory = true"):
        Decoder().decode(request.SerializeToString())


# -- answers


@given(
    outputs=st.dictionaries(NAMES, tensors(), min_size=1, max_size=3),
    identity=st.one_of(st.none(), NAMES),
    version=NAMES,
)
def test_an_answer_is_read_as_it_was_given(outputs: dict[str, Tensor], identity: str | None, version: str) -> None:
    encoder = Encoder()
    for _ in range(2):  # the second time from known pieces
        read = RESPONSE.FromString(encoder.encode(InferResponse("model", version, outputs, identity)))
        assert (read.model_name, read.model_version, read.id) == ("model", version, identity or "")
        assert len(read.raw_output_contents) == len(read.outputs) == len(outputs)
        for entry, raw, (name, tensor) in zip(read.outputs, read.raw_output_contents, outputs.items(), strict=True):
            assert (entry.name, entry.datatype) == (name, Datatype.of(tensor.dtype))
            assert same(tensor_from_bytes(name, Datatype(entry.datatype), tuple(entry.shape), raw), tensor)


def test_outputs_that_are_not_contiguous_are_written_in_row_major_order() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    encoder = Encoder()
    for _ in range(2):
        read = RESPONSE.FromString(encoder.encode(InferResponse("m", "1", {"y": tensor})))
        assert np.frombuffer(read.raw_output_contents[0], np.float32).tolist() == [0, 3, 1, 4, 2, 5]


def test_parameters_of_an_answer_keep_their_kinds() -> None:
    given = {"a": True, "b": -1, "c": 2**64 - 1, "d": "é", "e": 0.5}
    read = RESPONSE.FromString(Encoder().encode(InferResponse("m", "1", {}, None, given)))
    assert {name: getattr(p, p.WhichOneof("parameter_choice")) for name, p in read.parameters.items()} == given
    with pytest.raises(InferenceFailed, match="cannot carry"):
        Encoder().encode(InferResponse("m", "1", {}, None, {"a": [1]}))


def test_classes_come_in_place_of_values() -> None:
    scores = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    options = [OutputOptions("y", classification=1)]
    encoded = Encoder().encode_special(InferResponse("m", "1", {"y": scores}), options=options, labels=["cat", "dog"])
    read = RESPONSE.FromString(encoded)
    assert (read.outputs[0].datatype, list(read.outputs[0].shape)) == ("BYTES", [2, 1])
    classes = tensor_from_bytes("y", Datatype.BYTES, (2, 1), read.raw_output_contents[0])
    assert classes.tolist() == [[b"0.750000:1:dog"], [b"1.000000:0:cat"]]


def test_outputs_in_shared_memory_have_an_empty_entry(memory: SharedMemory) -> None:
    outputs = {"y": np.array([5, 6], np.float32), "z": ones(1)}
    options = [OutputOptions("y", region=Region("region", 16, 8)), OutputOptions("z")]
    read = RESPONSE.FromString(Encoder(memory).encode_special(InferResponse("m", "1", outputs), options=options))
    assert list(read.raw_output_contents) == [b"", ones(1).tobytes()]
    assert read.outputs[0].parameters["shared_memory_region"].string_param == "region"
    assert read.outputs[0].parameters["shared_memory_byte_size"].int64_param == 8
    assert memory.read(Region("region", 8, 8), Datatype.FP32, (2,)).tolist() == [5, 6]


def test_an_output_larger_than_its_region_is_refused(memory: SharedMemory) -> None:
    options = [OutputOptions("y", region=Region("region", 4))]
    with pytest.raises(InvalidRequest, match="give it more"):
        Encoder(memory).encode_special(InferResponse("m", "1", {"y": ones(2)}), options=options)


def test_no_more_pieces_are_kept_than_a_bound() -> None:
    encoder = Encoder()
    for size in range(3000):
        encoder.encode(InferResponse("m", str(size), {"y": ones(size)}))
    assert len(encoder._known) <= 1024
    assert len(encoder._heads) <= 1024
