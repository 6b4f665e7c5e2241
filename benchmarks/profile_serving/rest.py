"""One tiny request over REST, and the same to the bare probe."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn import Config
from uvicorn.server import ServerState

from benchmarks.peers.probe import Batcher
from benchmarks.peers.probe import Connection as ProbeConnection
from benchmarks.profile_serving.server import Server, with_rest
from benchmarks.profile_serving.timing import CONNECTIONS, Part, Transport, steps_timed, timed
from fairway.serving.transports.fastlane import FairwayProtocol, make_protocol
from fairway.serving.transports.v2json import decode_request, encode_response


async def rest_parts(server: Server) -> list[Part]:
    body, data = server.workload.bodies["json"].data, _request(server)
    kind = make_protocol(server.core, server.settings, stopping=lambda: False)
    protocols = _connect(kind)
    cycles: list[Any] = []

    async def all_answered() -> None:
        cycles[:] = [protocol.cycle for protocol in protocols]
        while not all(cycle.response_complete for cycle in cycles):
            await asyncio.sleep(0)

    def ask() -> None:
        for protocol in protocols:
            protocol.data_received(data)

    asked, answered = await steps_timed(ask, all_answered)
    request, _ = decode_request(body, server.name, None, None)
    fresh: list[Any] = []

    async def prepare() -> None:
        fresh[:] = await server.answers(request)
        for cycle in cycles:
            cycle.response_complete = False

    def write() -> None:
        for protocol, cycle, answer in zip(protocols, cycles, fresh, strict=True):
            protocol.answer(cycle, answer)

    def encode() -> None:
        for answer in fresh:
            encode_response(answer)

    _, written = await steps_timed(prepare, write)  # answers know that they ran together, so each is used only once
    _, encoded = await steps_timed(prepare, encode)
    parts = [
        Part("HTTP head, exchange", await _head_us(kind, data)),
        Part("JSON to a float32 array", timed(lambda: decode_request(body, server.name, None, None))),
        Part("orjson.loads alone, for comparison", timed(lambda: orjson.loads(body)), within=True),
        *await server.parts(request),
        Part("encode the answer, head, write, next", written),
        Part("encoding alone", encoded, within=True),
    ]
    probe = Part("the bare probe driven alike, all of it", await _probe_us(server, data))
    return [*with_rest(parts, asked + answered), probe]


def _request(server: Server) -> bytes:
    body = server.workload.bodies["json"].data
    head = f"POST {server.workload.path} HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _connect(kind: type[FairwayProtocol]) -> list[FairwayProtocol]:
    config = Config(app=_no_app, lifespan="off", log_config=None, server_header=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Sun, 22 Nov 2026 00:00:00 GMT")]
    made = []
    for _ in range(CONNECTIONS):
        protocol = kind(config=config, server_state=state, app_state={})
        protocol.connection_made(Transport())
        made.append(protocol)
    return made


async def _head_us(kind: type[FairwayProtocol], data: bytes) -> float:
    """Up to the point where the body would be decoded."""

    class Deaf(kind):  # type: ignore[valid-type, misc]
        def _run(self, exchange: Any) -> None:
            exchange.response_complete = True

    protocols = _connect(Deaf)

    def once() -> None:
        for protocol in protocols:
            protocol.data_received(data)

    (head,) = await steps_timed(once)
    return head


async def _probe_us(server: Server, data: bytes) -> float:
    batcher = Batcher(str(server.workload.model), asyncio.get_running_loop())
    answered: list[Any] = []

    class Noting(Transport):
        def write(self, data: Any) -> None:
            answered.append(data)

    connections = [ProbeConnection(batcher) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(Noting())

    def ask() -> None:
        answered.clear()
        for connection in connections:
            connection.data_received(data)

    async def wait() -> None:
        while len(answered) < CONNECTIONS:
            await asyncio.sleep(0)

    return sum(await steps_timed(ask, wait))


async def _no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    """No request gets so far."""
