"""Calls over gRPC: good ones, damaged in their messages, their metadata or their frames."""

from __future__ import annotations

import struct
from functools import cache
from random import Random

import hpack
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from benchmarks.fuzz.mutate import mutated
from benchmarks.fuzz.names import REGION, SPARE
from benchmarks.fuzz.wire import PREFACE, head
from fairway.serving.transports.grpc.messages import INFERENCE, REFLECTIONS, message

INFER = f"/{INFERENCE}/ModelInfer".encode()
_STREAM = f"/{INFERENCE}/ModelStreamInfer".encode()


@cache
def _good() -> tuple[tuple[bytes, bytes], ...]:
    """Paths and messages."""
    infer = message("inference.ModelInferRequest")
    raw = infer(model_name="linear", id="7", raw_input_contents=[struct.pack("<8f", *range(8))])
    raw.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    typed = infer(model_name="linear", model_version="1")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 4], contents={"fp32_contents": [0.5] * 4})
    typed.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    shared = infer(model_name="linear")
    shared.inputs.add(name="x", datatype="FP32", shape=[1, 4]).parameters["shared_memory_region"].string_param = "r0"
    shared.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
    free = infer(model_name="free", raw_input_contents=[struct.pack("<6f", *range(6))])
    free.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    free.parameters["timeout"].int64_param = 5_000_000
    found = [(path, m.SerializeToString()) for m in (raw, typed, shared, free) for path in (INFER, _STREAM)]
    for name, fields in (
        ("ServerLive", {}), ("ServerReady", {}), ("ServerMetadata", {}), ("ModelReady", {"name": "linear"}),
        ("ModelMetadata", {"name": "every", "version": "1"}), ("ModelConfig", {"name": "linear"}),
        ("ModelStatistics", {"name": "linear"}), ("RepositoryIndex", {"ready": True}),
        ("RepositoryModelLoad", {"model_name": SPARE}), ("RepositoryModelUnload", {"model_name": SPARE}),
        ("SystemSharedMemoryStatus", {"name": "r0"}), ("SystemSharedMemoryUnregister", {"name": "r0"}),
        ("SystemSharedMemoryRegister", {"name": "r0", "key": REGION, "byte_size": 4096}),
        ("TraceSetting", {"model_name": SPARE}), ("LogSettings", {}),
    ):  # fmt: skip
        found.append(
            (f"/{INFERENCE}/{name}".encode(), message(f"inference.{name}Request")(**fields).SerializeToString())
        )
    health = message("grpc.health.v1.HealthCheckRequest")(service="linear").SerializeToString()
    found.append((b"/grpc.health.v1.Health/Check", health))
    for service in REFLECTIONS:
        kind = message(service.rpartition(".")[0] + ".ServerReflectionRequest")
        asked = kind(file_containing_symbol=INFERENCE).SerializeToString()
        found.append((f"/{service}/ServerReflectionInfo".encode(), asked))
    return tuple(found)


def call(random: Random) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """Path, body and more headers of one call."""
    calls = _good()
    path, content = random.choice(calls[:8] if random.random() < 0.6 else calls)
    if random.random() < 0.75:
        content = mutated(random, content, [other for _, other in calls])
    if path == _STREAM and random.random() < 0.5:
        body = _prefixed(content) + _prefixed(random.choice(calls[:8])[1]) * random.choice((1, 3, 70))
    else:
        body = _prefixed(content, random.choice((0,) * 20 + (1, 2, 255)))
    if random.random() < 0.1:
        body = random.choice((body[:-1], body + b"x", b"", body * 2, mutated(random, body)))
    return random.choice((path,) * 20 + (b"/", b"/x/y", b"", b"/a", path + b"x", b"*")), body, _extra(random)


def _extra(random: Random) -> tuple[tuple[bytes, bytes], ...]:
    if random.random() < 0.7:
        return ()
    lines = (
        (b"grpc-timeout", random.choice((b"5S", b"1n", b"0S", b"99999999H", b"x", b"", b"-1S", b"999999999S"))),
        (b"grpc-encoding", random.choice((b"gzip", b"deflate", b"identity", b"br", b""))),
        (b"grpc-accept-encoding", b"gzip,,br"),
        (b"fairway-route-key", random.randbytes(9).hex().encode()),
        (b"triton_grpc_error", random.choice((b"true", b"x"))),
        (b"x-" + random.randbytes(3).hex().encode(), b"y" * random.choice((0, 1, 200, 5000))),
        (b"key-bin", random.choice((b"AAAA", b"?", b"A"))),
    )
    return tuple(random.sample(lines, random.randint(1, 3)))


def _prefixed(content: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(content).to_bytes(4, "big") + content


def connection(random: Random) -> bytes:
    """All that one client sends, damaged."""
    encoder = hpack.Encoder()
    frames: list[Frame] = []
    for stream in range(1, 2 * random.randint(1, 4), 2):
        path, content = random.choice(_good())
        headers = HeadersFrame(stream, encoder.encode(head(path)), flags=["END_HEADERS"])
        frames += [headers, DataFrame(stream, _prefixed(content), flags=["END_STREAM"])]
        other: tuple[Frame, ...] = (
            PingFrame(0, b"12345678"), WindowUpdateFrame(stream, 1000), WindowUpdateFrame(0, 2**20), RstStreamFrame(stream, 8),
            SettingsFrame(0, {random.choice((1, 2, 3, 4, 5, 6, 99)): random.choice((0, 1, 16384, 2**24 - 1, 2**31 - 1))}),
        )  # fmt: skip
        frames += random.sample(other, random.randint(0, 2))
    sent = PREFACE + b"".join(frame.serialize() for frame in frames)
    kind = random.random()
    if kind < 0.05:
        return random.randbytes(random.randrange(1, 200))
    if kind < 0.15:
        return sent[: random.randrange(len(sent) + 1)]
    if kind < 0.9:
        at = 0 if random.random() < 0.1 else len(PREFACE)
        return sent[:at] + mutated(random, sent[at:])
    return sent
