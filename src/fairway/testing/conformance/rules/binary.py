"""The binary tensor extension: lengths, order, who decides the answer's form, and raw requests."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from fairway.testing.conformance.case import Check, case, expect, expect_equal
from fairway.testing.conformance.target import HEADER_LENGTH, Target, head, outputs, refused
from fairway.testing.conformance.tensors import Tensor, join, same, tensor
from fairway.testing.conformance.wire import Reply

BINARY = ("binary_tensor_data",)
A, B = tensor("a", "INT32", [[10, 20, 30, 40]]), tensor("b", "INT32", [[1, 2, 3, 4]])


def binary(name: str, *, robust: bool = False, strict: bool = False) -> Callable[[Check], Check]:
    """A case of this extension."""
    return case(f"binary.{name}", level="robust" if robust else "extension", extensions=BINARY, strict=strict)


def _send(target: Target, head: dict[str, Any], *blobs: bytes, length: int | str | None = None) -> Reply:
    """To ``identity_fp32``, with any length in the header."""
    body, right = join(head, blobs)
    said = right if length is None else length
    return target.infer(target.standard("identity_fp32").name, body, {HEADER_LENGTH: str(said)})


def _x(size: Any, shape: list[int] | None = None) -> dict[str, Any]:
    entry = {"name": "x", "datatype": "FP32", "shape": shape or [1, 2], "parameters": {"binary_data_size": size}}
    return {"inputs": [entry], "outputs": [{"name": "y"}]}


@binary("two")
def two(target: Target) -> None:
    """Blobs follow the JSON in the order of the inputs; the answer's in the order of its outputs."""
    model = target.standard("add_sub").name
    for inputs in ([A, B], [B, A]):
        found = outputs(target.infer_binary(model, inputs))
        expect_equal(found["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")
        expect_equal(found["difference"].array.tolist(), [[9, 18, 27, 36]], "difference")


@binary("mixed")
def mixed(target: Target) -> None:
    """Only tensors with binary_data_size have a blob: others carry data in the JSON."""
    entry, blob = B.as_binary()
    body, length = join({"inputs": [A.as_json(), entry]}, [blob])
    found = outputs(target.infer(target.standard("add_sub").name, body, {HEADER_LENGTH: str(length)}))
    expect_equal(found["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")


@binary("output.default")
def default_output(target: Target) -> None:
    """Without outputs and binary_data_output the answer is JSON."""
    entry, blob = A.as_binary()
    other, more = B.as_binary()
    body, length = join({"inputs": [entry, other]}, [blob, more])
    reply = target.infer(target.standard("add_sub").name, body, {HEADER_LENGTH: str(length)})
    expect(HEADER_LENGTH not in reply.headers, "the answer is binary")
    expect_equal(outputs(reply)["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")


@binary("output.all")
def all_outputs(target: Target) -> None:
    """binary_data_output true makes every output binary where none is listed."""
    reply = target.infer_json(target.standard("add_sub").name, [A, B], parameters={"binary_data_output": True})
    found = outputs(reply)
    expect(HEADER_LENGTH in reply.headers, "the answer is JSON")
    expect(all("data" not in output for output in head(reply)["outputs"]), "an output has data in the JSON")
    expect_equal(found["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")


@binary("output.listed")
def listed_outputs(target: Target) -> None:
    """binary_data_output does not apply to outputs that are listed; their own binary_data decides."""
    wanted = [
        {"name": "sum", "parameters": {"binary_data": False}},
        {"name": "difference", "parameters": {"binary_data": True}},
    ]
    reply = target.infer_json(
        target.standard("add_sub").name, [A, B], outputs=wanted, parameters={"binary_data_output": True}
    )
    found = outputs(reply)
    has_data = {output["name"]: "data" in output for output in head(reply)["outputs"]}
    expect_equal(has_data, {"sum": True, "difference": False}, "which outputs have data in the JSON")
    expect_equal(found["difference"].array.tolist(), [[9, 18, 27, 36]], "difference")


@binary("content_type")
def content_type(target: Target) -> None:
    """A binary answer is application/octet-stream, and its header gives the length of the JSON."""
    reply = target.infer_binary(target.standard("add_sub").name, [A, B])
    outputs(reply)
    expect_equal(reply.headers.get("content-type"), "application/octet-stream", "Content-Type")


@binary("id")
def binary_id(target: Target) -> None:
    """The id comes back in binary answers too; without one there is none."""
    model = target.standard("add_sub").name
    expect_equal(head(target.infer_binary(model, [A, B], id="b1")).get("id"), "b1", "id")
    expect("id" not in head(target.infer_binary(model, [A, B])), "there is an id although none was sent")


@binary("length.exact")
def whole_length(target: Target) -> None:
    """A header length that is the whole body: JSON alone."""
    body, length = join({"inputs": [A.as_json(), B.as_json()]}, [])
    reply = target.infer(target.standard("add_sub").name, body, {HEADER_LENGTH: str(length)})
    expect_equal(outputs(reply)["sum"].array.tolist(), [[11, 22, 33, 44]], "sum")


@binary("length.wrong")
def wrong_length(target: Target) -> None:
    """A header length beyond the body, negative, or no number is refused."""
    for length in (100_000, "-1", "abc", "1e3", "99999999999999999999"):
        refused(_send(target, _x(8), bytes(8), length=length))


@binary("length.inside")
def length_inside(target: Target) -> None:
    """A header length that ends inside the JSON is refused."""
    refused(_send(target, _x(8), bytes(8), length=20))


@binary("left_over")
def left_over(target: Target) -> None:
    """Bytes after the last tensor are refused."""
    refused(_send(target, _x(8), bytes(8), b"more"))


@binary("truncated")
def truncated(target: Target) -> None:
    """Fewer bytes than binary_data_size says are refused."""
    refused(_send(target, _x(8), bytes(7)))
    refused(_send(target, _x(8)))


@binary("size.wrong")
def wrong_size(target: Target) -> None:
    """A binary_data_size that does not fill the shape is refused."""
    refused(_send(target, _x(4), bytes(4)))
    refused(_send(target, _x(12), bytes(12)))


@binary("size.type")
def size_type(target: Target) -> None:
    """A binary_data_size that is negative, a fraction or a text is refused."""
    for wrong in (-8, "8", 8.5, None, [8]):
        refused(_send(target, _x(wrong), bytes(8)))


@binary("size.huge", robust=True)
def huge_size(target: Target) -> None:
    """A binary_data_size near 2**63 is refused, and so is one that wraps."""
    for wrong in (2**63 - 1, 2**64 - 8, 2**64 + 8):
        refused(_send(target, _x(wrong), bytes(8)))


@binary("both", robust=True)
def both_forms(target: Target) -> None:
    """A tensor with data and binary_data_size at once is refused."""
    body = _x(8)
    body["inputs"][0]["data"] = [1.0, 2.0]
    refused(_send(target, body, bytes(8)))


@binary("bytes.length")
def bytes_length(target: Target) -> None:
    """BYTES whose length prefixes run past their end, or stop short of it, are refused."""
    model = target.standard("identity_bytes").name
    for blob in (
        struct.pack("<I", 5) + b"abc",
        struct.pack("<I", 2) + b"abc",
        b"\x01\x00",
        struct.pack("<I", 2**32 - 1) + b"a",
    ):
        entry = {"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(blob)}}
        body, length = join({"inputs": [entry]}, [blob])
        refused(target.infer(model, body, {HEADER_LENGTH: str(length)}))


@binary("bytes.count")
def bytes_count(target: Target) -> None:
    """BYTES with more or fewer texts than the shape says are refused."""
    model = target.standard("identity_bytes").name
    for count in (1, 3):
        blob = (struct.pack("<I", 1) + b"a") * count
        entry = {"name": "x", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": len(blob)}}
        body, length = join({"inputs": [entry]}, [blob])
        refused(target.infer(model, body, {HEADER_LENGTH: str(length)}))


@binary("bool", robust=True)
def bool_bytes(target: Target) -> None:
    """A BOOL of any byte but 0 is true; the answer's are 0 and 1."""
    entry = {"name": "x", "datatype": "BOOL", "shape": [1, 4], "parameters": {"binary_data_size": 4}}
    body, length = join({"inputs": [entry], "parameters": {"binary_data_output": True}}, [bytes([0, 1, 2, 255])])
    reply = target.infer(target.standard("identity_bool").name, body, {HEADER_LENGTH: str(length)})
    if reply.status != 200:
        refused(reply)
        return
    raw = reply.body[int(reply.headers[HEADER_LENGTH]) :]
    expect(all(byte in (0, 1) for byte in raw), f"the answer's bytes are {list(raw)}")


@binary("raw")
def raw(target: Target) -> None:
    """A header length of 0: the body is one tensor, one row; the answer is binary."""
    given = tensor("x", "FP32", [[1.5, -2.5, 3.5]])
    reply = target.infer(target.standard("identity_fp32").name, given.array.tobytes(), {HEADER_LENGTH: "0"})
    same(outputs(reply)["y"], Tensor("y", "FP32", given.array))
    expect(HEADER_LENGTH in reply.headers, "the answer is JSON")


@binary("raw.two")
def raw_two(target: Target) -> None:
    """A raw request needs a model of exactly one input: else refused."""
    refused(target.infer(target.standard("add_sub").name, bytes(16), {HEADER_LENGTH: "0"}))


@binary("raw.size")
def raw_size(target: Target) -> None:
    """Raw bytes that fill no whole number of elements are refused."""
    refused(target.infer(target.standard("identity_fp32").name, bytes(7), {HEADER_LENGTH: "0"}))


@binary("raw.empty", robust=True)
def raw_empty(target: Target) -> None:
    """A raw request without bytes is refused."""
    refused(target.infer(target.standard("identity_fp32").name, b"", {HEADER_LENGTH: "0"}))


@binary("huge")
def huge(target: Target) -> None:
    """Tensors of several MiB pass both ways."""
    given = tensor("x", "FP32", [[0.5] * 1_400_000])  # 5.6 MB
    same(
        outputs(target.infer_binary(target.standard("identity_fp32").name, [given]))["y"],
        Tensor("y", "FP32", given.array),
    )


@binary("blame", robust=True, strict=True)
def blame(target: Target) -> None:
    """What is the caller's fault is a 4xx, not a 5xx."""
    for check in (wrong_length, length_inside, left_over, truncated, wrong_size, size_type, bytes_length, bytes_count,
                  raw_two, raw_size):  # fmt: skip
        check(target)
