"""``python -m benchmarks.profile_serving``: microseconds of CPU that one tiny request costs on the server, part by part.

The server's own protocol is driven in this process over transports that lead nowhere, 64 connections in turns of the event
loop, as under load; each part is then timed alone, with what comes before and after it taken away. What is not here are the
socket calls and the kernel: ``make bench-serving`` has them within its CPU time per request.

Times are CPU time, the least of many short repeats: on a busy machine, whatever disturbs one only adds to it.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import uvloop
from rich.console import Console
from rich.table import Table
from uvicorn import Config
from uvicorn.server import ServerState

from benchmarks.harness import RESULTS, machine
from benchmarks.serving.workloads import Workload, tiny
from fairway.core.messages import InferRequest
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.models import Models
from fairway.serving.routing import Route
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.serving.transports.fastlane import FairwayProtocol, make_protocol
from fairway.serving.transports.v2json import decode_request, encode_response

CONNECTIONS = 64
_REPEATS = 300


class Part(msgspec.Struct, frozen=True):
    """Microseconds per request. ``within``: it is a part of the one before, not another."""

    name: str
    us: float
    within: bool = False


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parts = runner.run(_profile(tiny(Path(folder))))
    table = Table(title=f"one tiny request, {CONNECTIONS} connections, without sockets")
    table.add_column("part")
    table.add_column("us", justify="right")
    for part in parts:
        table.add_row(f"  of it {part.name}" if part.within else part.name, f"{part.us:.2f}")
    Console(width=110).print(table)
    document = {
        "machine": machine(),
        "versions": {"python": platform.python_version()},
        "parts": [msgspec.to_builtins(part) for part in parts],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "profile_serving.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


async def _profile(workload: Workload) -> list[Part]:
    server = _Server(workload)
    await server.load(workload)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return await server.parts()
    finally:
        gc.enable()
        await server.models.close()


class _Transport(asyncio.Transport):
    """Takes what is written, and tells nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.last = b""

    def write(self, data: Any) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _Server:
    """What a service has, without its sockets."""

    def __init__(self, workload: Workload) -> None:
        self._settings = ServeSettings(access_log=False)
        self._telemetry = Telemetry()
        self.models = Models(self._settings, self._telemetry)
        self._core = InferenceCore(self.models, self._telemetry)
        body = workload.bodies["json"]
        head = f"POST {workload.path} HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        self._body = body.data
        self._request = f"{head}Content-Length: {len(body.data)}\r\n\r\n".encode() + body.data
        self._name = workload.served_as

    async def load(self, workload: Workload) -> None:
        await self.models.load(self._name, "1", lambda: workload.bundle)
        self.models.point(self._name, Route("1"))
        self._kind = make_protocol(self._core, self._settings, stopping=lambda: False)

    async def parts(self) -> list[Part]:
        protocols = self._connect(self._kind)
        await self._answered(protocols)  # heads are known now, and the engine is warm
        whole = await self._least(partial(self._answered, protocols))
        head = self._head_us()
        decode = _timed(lambda: decode_request(self._body, self._name, None, None))
        request, _ = decode_request(self._body, self._name, None, None)
        submit, turn = await self._core_us(request)
        cycles: list[Any] = [protocol.cycle for protocol in protocols]
        reply = await self._fresh_us(request, lambda n, answer: protocols[n]._answer(cycles[n], answer))
        encode = await self._fresh_us(request, lambda _, answer: encode_response(answer))
        known = head + decode + submit + turn + reply
        served = self.models.resolve(self._name, None, None)
        rows = {name: np.repeat(array, CONNECTIONS, axis=0) for name, array in request.inputs.items()}
        return [
            Part("head, exchange", head),
            Part("JSON to a float32 array", decode),
            Part("orjson.loads alone, for comparison", _timed(lambda: orjson.loads(self._body)), within=True),
            Part("choose the version, validate, queue", submit),
            Part(f"batch: join, engine call of {CONNECTIONS} rows, split, metrics", turn),
            Part("engine call alone", _timed(lambda: served.model.infer(rows)) / CONNECTIONS, within=True),
            Part("encode the answer, head, write", reply),
            Part("encoding alone", encode, within=True),
            Part("between the parts", whole - known),
            Part("all of it", whole),
        ]

    def _connect(self, kind: type[FairwayProtocol]) -> list[FairwayProtocol]:
        config = Config(app=_no_app, lifespan="off", log_config=None, server_header=False)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Sun, 22 Nov 2026 00:00:00 GMT")]
        made = []
        for _ in range(CONNECTIONS):
            protocol = kind(config=config, server_state=state, app_state={})
            protocol.connection_made(_Transport())
            made.append(protocol)
        return made

    # -- each part, per request

    async def _answered(self, protocols: list[FairwayProtocol]) -> None:
        """A request on each connection, and all the answers."""
        for protocol in protocols:
            protocol.data_received(self._request)
        cycles = [protocol.cycle for protocol in protocols]
        while not all(cycle.response_complete for cycle in cycles):
            await asyncio.sleep(0)

    async def _least(self, once: Callable[[], Any]) -> float:
        times = []
        for _ in range(_REPEATS):
            started = time.thread_time_ns()
            await once()
            times.append(time.thread_time_ns() - started)
        return min(times) / CONNECTIONS / 1e3

    def _head_us(self) -> float:
        """Up to the point where the body would be decoded."""

        class Deaf(self._kind):  # type: ignore[name-defined, misc]
            def _run(self, exchange: Any) -> None:
                exchange.response_complete = True

        protocols = self._connect(Deaf)
        request = self._request

        def once() -> None:
            for protocol in protocols:
                protocol.data_received(request)

        return _timed(once, 20) / CONNECTIONS

    async def _core_us(self, request: InferRequest) -> tuple[float, float]:
        """Submitting, and the turn of the loop that answers."""
        submits, turns = [], []
        for _ in range(_REPEATS):
            answers: list[Outcome] = []
            started = time.thread_time_ns()
            for _ in range(CONNECTIONS):
                self._core.submit(request, answers.append)
            submits.append(time.thread_time_ns() - started)
            started = time.thread_time_ns()
            await _until(answers)
            turns.append(time.thread_time_ns() - started)
        return min(submits) / CONNECTIONS / 1e3, min(turns) / CONNECTIONS / 1e3

    async def _fresh_us(self, request: InferRequest, once: Callable[[int, Any], Any]) -> float:
        """``once`` for each answer of a batch: answers know that they ran together, so each is used only once."""
        times = []
        for _ in range(_REPEATS):
            answers: list[Any] = []
            for _ in range(CONNECTIONS):
                self._core.submit(request, answers.append)
            await _until(answers)
            started = time.thread_time_ns()
            for number, answer in enumerate(answers):
                once(number, answer)
            times.append(time.thread_time_ns() - started)
        return min(times) / CONNECTIONS / 1e3


async def _until(answers: list[Any]) -> None:
    while len(answers) < CONNECTIONS:
        await asyncio.sleep(0)


async def _no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    """No request gets so far."""


def _timed(once: Callable[[], Any], times: int = 200) -> float:
    """Microseconds of one call."""
    taken = []
    for _ in range(_REPEATS // 3):
        started = time.thread_time_ns()
        for _ in range(times):
            once()
        taken.append((time.thread_time_ns() - started) / times)
    return min(taken) / 1e3


if __name__ == "__main__":
    main()
