"""What is sent: the n-th case of a seed is always the same, whoever sends it and when."""

from __future__ import annotations

import struct
import zlib
from random import Random
from typing import Any, NamedTuple

from benchmarks.fuzz import calls
from benchmarks.fuzz.heads import connection, management
from benchmarks.fuzz.mutate import broken, cut, dump, mutated
from benchmarks.fuzz.names import MAX_BODY, SPARE

_MODELS = {
    "linear": {"x": ("FP32", 4)},
    "free": {"x": ("FP32", 3)},
    "every": {
        "fp32": ("FP32", 1), "fp64": ("FP64", 1), "fp16": ("FP16", 1), "int8": ("INT8", 1), "uint8": ("UINT8", 1),
        "int32": ("INT32", 1), "int64": ("INT64", 1), "uint64": ("UINT64", 1), "bool": ("BOOL", 1), "bytes": ("BYTES", 1),
    },
    SPARE: {"x": ("FP32", 4)},
}  # fmt: skip
_PACK = {
    "FP32": "f", "FP64": "d", "FP16": "e", "INT8": "b", "UINT8": "B", "INT32": "i", "INT64": "q", "UINT64": "Q", "BOOL": "?",
}  # fmt: skip


class Case(NamedTuple):
    """``kind``: ``rest`` (one request on a kept connection), ``raw``, ``http2`` (bytes), or ``grpc`` (one call)."""

    number: int
    kind: str
    what: str
    pieces: list[bytes]
    path: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    patient: bool = False

    def __str__(self) -> str:
        sent = b"".join(self.pieces)
        return f"case {self.number} ({self.kind}, {self.what}) {self.path!r} {self.headers!r} {sent[:2000]!r}"


def case(seed: int, number: int) -> Case:
    """The ``number``-th case of ``seed``."""
    random = Random(f"{seed}:{number}")  # not for secrets
    kind, make = random.choices(
        (("json", _json), ("binary", _binary), ("manage", _manage), ("raw", _raw), ("http2", _http2), ("grpc", _grpc)),
        (32, 14, 14, 20, 8, 12),
    )[0]
    return make(random, number, kind)


def _json(random: Random, number: int, what: str) -> Case:
    model = random.choice(list(_MODELS))
    body = dump(broken(random, _message(random, model))).encode("utf-8", "surrogatepass")
    if random.random() < 0.25:
        body = mutated(random, body)
    if random.random() < 0.002:
        body = body[:-1] + b" " * random.choice((10_000, MAX_BODY - len(body), MAX_BODY)) + body[-1:]
    return Case(number, "rest", what, [_post(random, _infer_path(random, model), body, [])])


def _binary(random: Random, number: int, what: str) -> Case:
    model = random.choice(list(_MODELS))
    message = _message(random, model)
    blobs = b""
    for tensor in message["inputs"]:
        if "data" in tensor and random.random() < 0.9:
            blob = _blob(tensor)
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs += blob
    header = dump(broken(random, message)).encode("utf-8", "surrogatepass")
    size = len(header)
    if random.random() < 0.3:
        blobs = mutated(random, blobs)
    if random.random() < 0.15:
        size = random.choice((0, 1, size - 1, size + 1, size + len(blobs) + 1, 2**31, 10**30, -1))
    raw = random.random() < 0.05  # the body is the tensor
    body = blobs if raw else header + blobs
    said = random.choice((b"%d" % size,) * 9 + (b"", b"x", b"1.5", b"0x7"))
    return Case(
        number,
        "rest",
        what,
        [_post(random, _infer_path(random, model), body, [(b"inference-header-content-length", said)])],
    )


def _post(random: Random, path: bytes, body: bytes, lines: list[tuple[bytes, bytes]]) -> bytes:
    if random.random() < 0.08:
        encoding = random.choice((b"gzip", b"deflate", b"gzip, deflate", b"br", b"identity", b"x-gzip,", b"\xff"))
        packed = zlib.compress(body, 1, 31 if b"gzip" in encoding else 15)
        body = random.choice((packed, packed[:-3], packed + b"x", body, packed * 2))
        lines = [*lines, (b"content-encoding", encoding)]
    if random.random() < 0.08:
        accepts = (b"gzip", b"deflate;q=0.5", b"*", b"gzip;q=x", b"identity;q=0, *;q=0", b",,;", b"\xff")
        lines = [*lines, (b"accept-encoding", random.choice(accepts))]
    if random.random() < 0.08:
        extra = (b"fairway-route-key", b"x-" + b"y" * random.randrange(60), b"traceparent", b"content-type", b"cookie")
        lines = [*lines, (random.choice(extra), bytes(random.choices(range(33, 255), k=random.randrange(1, 50))))]
    said = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (path, said, len(body), body)


def _message(random: Random, model: str) -> dict[str, Any]:
    """A good request."""
    rows = random.choice((1, 1, 1, 2, 3, 8, 9, 40))
    inputs = [_tensor(random, name, kind, rows, width) for name, (kind, width) in _MODELS[model].items()]
    message: dict[str, Any] = {"inputs": inputs}
    if random.random() < 0.3:
        message["id"] = random.choice(("1", "é", "x" * 100))
    if random.random() < 0.25:
        parameters = (
            {"binary_data_output": True}, {"timeout": 5_000_000}, {"timeout": 1}, {"priority": 1}, {"raw": True}, {"own": "x"},
        )  # fmt: skip
        message["parameters"] = random.choice(parameters)
    if random.random() < 0.25:
        name = "probabilities" if model in ("linear", SPARE) else "same_x" if model == "free" else "same_bytes"
        region = {"shared_memory_region": "r0", "shared_memory_byte_size": 64, "shared_memory_offset": 0}
        options: tuple[dict[str, Any], ...] = ({}, {"binary_data": True}, {"classification": 2}, region)
        message["outputs"] = [{"name": name, "parameters": random.choice(options)}]
    if random.random() < 0.04:
        first = message["inputs"][0]
        del first["data"]
        first["parameters"] = {"shared_memory_region": "r0", "shared_memory_byte_size": 4 * rows}
    return message


def _tensor(random: Random, name: str, kind: str, rows: int, width: int) -> dict[str, Any]:
    count = rows * width
    data: list[Any]
    if kind == "BYTES":
        data = [random.choice(("", "a", "déjà vu", "x" * 50)) for _ in range(count)]
    elif kind == "BOOL":
        data = [random.random() < 0.5 for _ in range(count)]
    elif kind.startswith("FP"):
        data = [random.choice((0.5, 1, -2.25, 1e-3)) for _ in range(count)]
    else:
        data = [random.randrange(100) for _ in range(count)]
    shape = [rows, width] if name == "x" else [rows]
    return {"name": name, "shape": shape, "datatype": kind, "data": data}


def _blob(tensor: dict[str, Any]) -> bytes:
    data = tensor["data"]
    if tensor["datatype"] == "BYTES":
        encoded = [item.encode() for item in data]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    return struct.pack(f"<{len(data)}{_PACK[tensor['datatype']]}", *data)


def _infer_path(random: Random, model: str) -> bytes:
    if random.random() < 0.07:
        model = random.choice(
            ("absent", "%ff", "a%2Fb", "é".encode().hex(), "x" * 300, "linear%00", ".", "..", "%", "LINEAR")
        )
    version = random.choice(
        ("",) * 9 + ("/versions/1", "/versions/01", "/versions/2", "/versions/x", "/versions/" + "9" * 50)
    )
    return f"/v2/models/{model}{version}/infer".encode()


def _manage(random: Random, number: int, what: str) -> Case:
    return Case(number, "rest", what, [management(random)])


def _raw(random: Random, number: int, what: str) -> Case:
    return Case(number, "raw", what, cut(random, connection(random)), patient=random.random() < 0.3)


def _http2(random: Random, number: int, what: str) -> Case:
    return Case(number, "http2", what, cut(random, calls.connection(random)))


def _grpc(random: Random, number: int, what: str) -> Case:
    path, body, headers = calls.call(random)
    return Case(number, "grpc", what, [body], path, headers)
