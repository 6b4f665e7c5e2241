"""Every datatype, at its edges, as JSON and as binary, both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairway.testing.conformance.case import case, expect, expect_equal
from fairway.testing.conformance.target import HEADER_LENGTH, Target, head, outputs, refused
from fairway.testing.conformance.tensors import BINARY_ONLY, DTYPES, Tensor, same, tensor

BINARY = ("binary_tensor_data",)
NAN_BITS, INF_BITS = 0x7FC0, 0x7F80


def edges(datatype: str) -> list[Any]:
    """Four values at the ends of a datatype."""
    if datatype == "BOOL":
        return [True, False, True, True]
    if datatype == "BYTES":
        return [b"", b"a", "grüße 模型 🚀".encode(), b'quote " backslash \\ newline \n tab \t']
    if datatype == "BF16":
        return [0x3F80, NAN_BITS, INF_BITS, 0xFF80]  # 1, NaN, infinity, -infinity
    if "INT" in datatype:
        info = np.iinfo(DTYPES[datatype])
        return [info.min, info.max, 0, 1]
    info32 = np.finfo(np.dtype(DTYPES[datatype]))
    return [float(info32.max), float(-info32.max), float(info32.smallest_subnormal), -0.0]


def square(datatype: str, values: Sequence[Any]) -> Tensor:
    """The values as an input of two rows."""
    return tensor("x", datatype, values, (2, len(values) // 2))


def _round_trip(target: Target, given: Tensor, send: Callable[..., Any]) -> None:
    model = target.standard(f"identity_{given.datatype.lower()}").name
    same(outputs(send(model, [given]))["y"], Tensor("y", given.datatype, given.array))


def _json_case(datatype: str) -> None:
    @case(f"data.json.{datatype}", rule=f"OIP, tensor data: {datatype} values survive JSON both ways, the extremes too")
    def check(target: Target) -> None:
        _round_trip(target, square(datatype, edges(datatype)), target.infer_json)


def _binary_case(datatype: str) -> None:
    @case(f"data.binary.{datatype}", rule=f"Binary tensor extension: {datatype} values survive both ways bit by bit",
          level="extension", extensions=BINARY)  # fmt: skip
    def check(target: Target) -> None:
        given = square(datatype, edges(datatype))
        _round_trip(target, given, target.infer_binary)


def _range_case(datatype: str) -> None:
    @case(
        f"data.range.{datatype}",
        rule=f"A value that {datatype} cannot hold is a 4xx, not another value",
        level="robust",
    )
    def check(target: Target) -> None:
        info = np.iinfo(DTYPES[datatype])
        model = target.standard(f"identity_{datatype.lower()}").name
        for wrong in (int(info.max) + 1, int(info.min) - 1):
            entry = {"name": "x", "datatype": datatype, "shape": [1, 1], "data": [wrong]}
            refused(target.infer(model, {"inputs": [entry]}))


for _datatype in DTYPES:
    if _datatype not in BINARY_ONLY:
        _json_case(_datatype)
for _datatype in DTYPES:
    _binary_case(_datatype)
for _datatype in DTYPES:
    if "INT" in _datatype:
        _range_case(_datatype)


def _not_finite(target: Target, datatype: str, send: Callable[..., Any]) -> None:
    _round_trip(target, square(datatype, [np.nan, np.inf, -np.inf, 1.0]), send)


@case("data.json.not_finite", level="extension")
def json_not_finite(target: Target) -> None:
    """Bare NaN, Infinity and -Infinity are read and written in JSON."""
    for datatype in ("FP32", "FP64"):
        _not_finite(target, datatype, target.infer_json)


@case("data.binary.not_finite", level="extension", extensions=BINARY)
def binary_not_finite(target: Target) -> None:
    """Binary tensors hold NaN and infinities."""
    for datatype in ("FP16", "FP32", "FP64"):
        _not_finite(target, datatype, target.infer_binary)


@case("data.json.fp16", level="extension")
def half_as_json(target: Target) -> None:
    """FP16 and BF16 in JSON are refused, as Triton does, or keep their values; they are never other numbers."""
    for datatype in BINARY_ONLY:
        model = target.standard(f"identity_{datatype.lower()}").name
        entry = {"name": "x", "datatype": datatype, "shape": [1, 2], "data": [1.5, -2]}
        reply = target.infer(model, {"inputs": [entry]})
        if reply.status == 200:
            expect_equal(head(reply)["outputs"][0]["data"], [1.5, -2], "data")
        else:
            refused(reply)


@case("data.json.precise.FP64", level="robust")
def precise_floats(target: Target) -> None:
    """FP64 keeps every digit in JSON: 0.1 + 0.2 comes back exactly."""
    _round_trip(target, square("FP64", [0.1 + 0.2, 1e-320, 123456789.123456789, 5e-324]), target.infer_json)


@case("data.json.precise.INT64")
def precise_integers(target: Target) -> None:
    """INT64 keeps every digit in JSON: 2**53 + 1 comes back exactly."""
    _round_trip(target, square("INT64", [2**53 + 1, -(2**53) - 1, 2**62 + 1, 7]), target.infer_json)


@case("data.json.fraction", level="robust")
def fraction_as_integer(target: Target) -> None:
    """A fraction is no integer: 1.5 in an INT32 is refused."""
    entry = {"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [1.5]}
    refused(target.infer(target.standard("identity_int32").name, {"inputs": [entry]}))


@case("data.json.overflow", level="robust")
def overflow(target: Target) -> None:
    """A number beyond FP32 is refused or infinity, never another number."""
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1e39,1e400]}]}'
    reply = target.infer(target.standard("identity_fp32").name, body)
    if reply.status == 200:
        expect(np.isinf(outputs(reply)["y"].array).all(), "the values came back as other numbers")
    else:
        refused(reply)


@case("data.json.bool", level="robust")
def bool_from_number(target: Target) -> None:
    """BOOL is true or false in JSON; Triton takes nothing else."""
    for wrong in ("true", 2, 0.5):
        entry = {"name": "x", "datatype": "BOOL", "shape": [1, 1], "data": [wrong]}
        refused(target.infer(target.standard("identity_bool").name, {"inputs": [entry]}))


@case("data.json.bytes.nul", level="robust")
def nul_in_text(target: Target) -> None:
    """A text may hold NUL: it is not cut there."""
    _round_trip(target, square("BYTES", [b"a\0b", b"\0"]), target.infer_json)


@case("data.json.bytes.surrogate", level="robust")
def lone_surrogate(target: Target) -> None:
    """A lone surrogate is no text: it is refused with a body, or replaced."""
    body = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["\\ud800"]}]}'
    reply = target.infer(target.standard("identity_bytes").name, body)
    if reply.status != 200:
        refused(reply)


@case("data.binary.bytes.text", level="extension", extensions=BINARY)
def text_bytes(target: Target) -> None:
    """In binary form any text survives, with NUL and every control character in it."""
    _round_trip(target, square("BYTES", [b"a\0b", b"\0", bytes(range(128)), "é模🚀".encode()]), target.infer_binary)


@case("data.binary.bytes.raw", level="extension", extensions=BINARY)
def raw_bytes(target: Target) -> None:
    """Bytes that are not UTF-8 survive in binary form, or are refused by a model of texts; they are never altered."""
    given = square("BYTES", [b"\xff\xfe", b"a\0b", bytes(range(256)), b"\0"])
    reply = target.infer_binary(target.standard("identity_bytes").name, [given])
    if reply.status == 200:
        same(outputs(reply)["y"], Tensor("y", "BYTES", given.array))
    else:
        refused(reply)


@case("data.binary.bytes.to_json", level="robust", extensions=BINARY)
def raw_bytes_as_json(target: Target) -> None:
    """Bytes that are not UTF-8 have no JSON form: an error, or valid JSON; never a broken body."""
    given = square("BYTES", [b"\xff\xfe", b"ok"])
    reply = target.infer_binary(target.standard("identity_bytes").name, [given], outputs=[{"name": "y"}])
    reply.body.decode()
    if reply.status == 200:
        expect(head(reply)["outputs"], "there is no output")
    else:
        _ = reply.error


@case("data.binary.bytes.empty", level="extension", extensions=BINARY)
def empty_bytes(target: Target) -> None:
    """An empty text is four zero bytes."""
    _round_trip(target, square("BYTES", [b""] * 4), target.infer_binary)


@case("data.binary.to_json", level="extension", extensions=BINARY)
def crossed(target: Target) -> None:
    """Binary in, JSON out, and the other way round, hold the same values."""
    given = square("FP32", [1.5, -2.0, 3.25, 0.0])
    model = target.standard("identity_fp32").name
    wanted = Tensor("y", "FP32", given.array)
    reply = target.infer_binary(model, [given], outputs=[{"name": "y"}])
    expect(HEADER_LENGTH not in reply.headers, "binary came although JSON was asked for")
    same(outputs(reply)["y"], wanted)
    reply = target.infer_json(model, [given], outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    expect(HEADER_LENGTH in reply.headers, "JSON came although binary was asked for")
    same(outputs(reply)["y"], wanted)
    expect_equal(head(reply)["outputs"][0].get("data"), None, "data")
