"""One tiny request over gRPC."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import hpack

from benchmarks.profile_serving.server import Server, with_rest
from benchmarks.profile_serving.timing import CONNECTIONS, Part, Transport, steps_timed, timed
from benchmarks.serving.load import GRPC_PATH
from fairway.serving.management import Management
from fairway.serving.transports.grpc.base import Unary
from fairway.serving.transports.grpc.decoding import Decoder
from fairway.serving.transports.grpc.encoding import Encoder
from fairway.serving.transports.grpc.service import GrpcService
from fairway.serving.transports.http2.connection import Connection
from fairway.serving.transports.http2.server import make_http2

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _WINDOW_UPDATE = 0, 1, 4, 8
_END_STREAM, _END_HEADERS = 1, 4


class _Client:
    """The bytes of one client, who has seen nothing of the answers."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._encoder = hpack.Encoder()
        self._stream = -1

    def greeting(self) -> bytes:
        room = struct.pack(">I", 2**31 - 1 - 65535)
        return _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW_UPDATE, 0, 0, room)

    def request(self) -> bytes:
        self._stream += 2
        block = self._encoder.encode(
            [(":method", "POST"), (":scheme", "http"), (":path", GRPC_PATH), (":authority", "127.0.0.1:8001"),
             ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "benchmark")]
        )  # fmt: skip
        data = _frame(_DATA, _END_STREAM, self._stream, self._body)
        return _frame(_HEADERS, _END_HEADERS, self._stream, block) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def grpc_parts(server: Server) -> list[Part]:
    body = server.workload.bodies["grpc"].data
    message = body[5:]
    management = Management(server.models, server.telemetry, server.settings, None)
    service = GrpcService(server.core, management)
    whole = await _whole_us(make_http2(service.methods, server.settings), body)
    got: list[Any] = []
    stub = {GRPC_PATH.encode(): Unary(lambda _, call: got.append(call))}
    carried, replied = await _carrier_us(make_http2(stub, server.settings), body, got, server)
    decoder, encoder = Decoder(), Encoder()
    request, _ = decoder.decode(message, None, None)
    answers: list[Any] = []

    async def prepare() -> None:
        answers[:] = await server.answers(request)

    def encode() -> None:
        for answer in answers:
            encoder.encode(answer)

    _, encoded = await steps_timed(prepare, encode)
    management.close()
    parts = [
        Part("HTTP/2 in: frames, header fields, flow control, call", carried),
        Part("protobuf to a float32 array", timed(lambda: decoder.decode(message, None, None))),
        *await server.parts(request),
        Part("array to protobuf", encoded),
        Part("HTTP/2 out: header fields, frames, trailers, write", replied),
    ]
    return with_rest(parts, whole)


class _Noting(Transport):
    """Knows how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, _: Any) -> None:
        self.writes += 1

    def writelines(self, _: Any) -> None:
        self.writes += 1


def _connect(http2: Any, body: bytes) -> list[tuple[_Client, Connection, _Noting]]:
    made = []
    for _ in range(CONNECTIONS):
        client, connection, transport = _Client(body), http2(), _Noting()
        connection.connection_made(transport)
        connection.data_received(client.greeting())
        made.append((client, connection, transport))
    return made


async def _whole_us(http2: Any, body: bytes) -> float:
    connections = _connect(http2, body)
    requests: list[bytes] = []

    def prepare() -> None:
        requests[:] = [client.request() for client, _, _ in connections]
        for _, _, transport in connections:
            transport.writes = 0

    def ask() -> None:
        for (_, connection, _), request in zip(connections, requests, strict=True):
            connection.data_received(request)

    async def wait() -> None:
        while not all(transport.writes for _, _, transport in connections):
            await asyncio.sleep(0)

    _, asked, answered = await steps_timed(prepare, ask, wait)
    return asked + answered


async def _carrier_us(http2: Any, body: bytes, got: list[Any], server: Server) -> tuple[float, float]:
    """What HTTP/2 alone costs, on the way in and out."""
    connections = _connect(http2, body)
    requests: list[bytes] = []
    (answer, *_) = await server.answers(Decoder().decode(body[5:], None, None)[0])
    reply = Encoder().encode(answer)

    def prepare() -> None:
        got.clear()
        requests[:] = [client.request() for client, _, _ in connections]

    def ask() -> None:
        for (_, connection, _), request in zip(connections, requests, strict=True):
            connection.data_received(request)

    async def answered() -> None:
        for call in got:
            call.reply(reply)
        await asyncio.sleep(0)

    _, asked, replied = await steps_timed(prepare, ask, answered)
    return asked, replied
