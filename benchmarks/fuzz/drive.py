"""Send the cases, while others ask properly; then look at what the server holds."""

from __future__ import annotations

import itertools
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.fuzz.calls import INFER
from benchmarks.fuzz.cases import Case, case
from benchmarks.fuzz.target import CONTROL, Holdings, Target, target
from benchmarks.fuzz.wire import Http2, Rest, Wrong, check, send_http2, send_raw
from fairway.serving.transports.grpc.messages import message

SENDERS = 4
WARM_UP = 0.2
"""Share of the requests before memory is measured: caches fill, and code that was never run is loaded."""
GROWTH_MB = 20.0
"""What the allocator keeps of a few bodies of a megabyte, whenever they come; a leak adds to it with every request."""
GROWTH = 0.05
MORE_DESCRIPTORS = 2
MORE_THREADS = 2
_PAUSE_S = 0.003
_MAX_FINDINGS = 20


class Finding(NamedTuple):
    """Something that a server should not do, and what made it."""

    what: str
    cause: str


class Outcome(NamedTuple):
    """What one server made of its share."""

    lane: str
    workers: int
    first: int
    requests: int
    seconds: float
    kinds: dict[str, int]
    answers: dict[str, int]
    control: int
    before: Holdings
    after: Holdings
    findings: list[Finding]


class Driver:
    """Sends cases to one server."""

    def __init__(self, server: Target, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._lock = threading.Lock()
        self.findings: list[Finding] = []
        self.kinds: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.control = 0

    def send(self, numbers: range) -> None:
        """Send these cases, from several threads at once."""
        turn = iter(numbers)
        threads = [threading.Thread(target=self._send_all, args=(turn,)) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @contextmanager
    def control_clients(self) -> Iterator[None]:
        """Meanwhile, clients ask properly, each for values of its own, and look at each answer."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._control, args=(stop, ask)) for ask in (_ask_json, _ask_grpc)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def found(self, what: str, cause: object) -> None:
        """Note a finding."""
        with self._lock:
            self.findings.append(Finding(what, str(cause)))

    def _send_all(self, turn: Iterator[int]) -> None:
        rest, http2 = Rest(self._server.port), Http2(self._server.grpc_port)
        while len(self.findings) < _MAX_FINDINGS:
            with self._lock:
                number = next(turn, None)
            if number is None:
                break
            made: Case | int = number
            try:
                made = case(self._seed, number)
                said = self._send(made, rest, http2)
            except Exception as error:  # noqa: BLE001 (a finding, whatever it is)
                self.found(str(error) if isinstance(error, Wrong) else repr(error), made)
                said = "finding"
                rest.close()
                http2.close()
            with self._lock:
                self.kinds[made.what if isinstance(made, Case) else "none"] += 1
                self.answers[said] += 1
        rest.close()
        http2.close()

    def _send(self, made: Case, rest: Rest, http2: Http2) -> str:
        if made.kind == "raw":
            send_raw(self._server.port, made.pieces, made.patient)
            return "raw bytes"
        if made.kind == "http2":
            send_http2(self._server.grpc_port, made.pieces)
            return "raw bytes"
        if made.kind == "grpc":
            return f"grpc {http2.call(made.path, made.pieces[0], list(made.headers)).status}"
        answer = rest.ask(made.pieces[0])
        check(answer)
        return str(answer.status)

    def _control(self, stop: threading.Event, ask: type[_AskJson] | type[_AskGrpc]) -> None:
        client = ask(self._server)
        for number in itertools.count(1):
            if stop.is_set():
                break
            try:
                client.ask([float(number), number + 0.25, -float(number)])
            except Exception as error:  # noqa: BLE001
                self.found(f"a proper request was not answered properly: {error!r}"[:1000], f"{ask.__name__} {number}")
                if len(self.findings) >= _MAX_FINDINGS:
                    break
            with self._lock:
                self.control += 1
            stop.wait(_PAUSE_S)
        client.close()


class _AskJson:
    """JSON, on a kept connection."""

    def __init__(self, server: Target) -> None:
        self._rest = Rest(server.port)

    def ask(self, values: list[float]) -> None:
        tensor = {"name": "x", "shape": [1, len(values)], "datatype": "FP32", "data": values}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = f"POST /v2/models/{CONTROL}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        answer = self._rest.ask(head.encode() + body)
        if answer.status != 200 or json.loads(answer.body)["outputs"][0]["data"] != values:
            raise Wrong(f"{values} gave {answer}")

    def close(self) -> None:
        self._rest.close()


class _AskGrpc:
    """gRPC, on a kept connection."""

    def __init__(self, server: Target) -> None:
        self._http2 = Http2(server.grpc_port)
        self._answer = message("inference.ModelInferResponse")

    def ask(self, values: list[float]) -> None:
        content = struct.pack(f"<{len(values)}f", *values)
        request = message("inference.ModelInferRequest")(model_name=CONTROL, raw_input_contents=[content])
        request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
        body = request.SerializeToString()
        call = self._http2.call(INFER, b"\0" + len(body).to_bytes(4, "big") + body, [])
        if call.status != 0 or self._answer.FromString(call.messages[0]).raw_output_contents != [content]:
            raise Wrong(f"{values} gave {call}")

    def close(self) -> None:
        self._http2.close()


_ask_json, _ask_grpc = _AskJson, _AskGrpc


def drive(folder: Path, seed: int, numbers: range, *, fast_lane: bool, workers: int) -> Outcome:
    """Start a server, send it these cases, and tell what was found."""
    with target(folder, fast_lane=fast_lane, workers=workers) as server:
        driver = Driver(server, seed)
        began = time.monotonic()
        warm = numbers[: max(1, int(len(numbers) * WARM_UP))]
        with driver.control_clients():
            driver.send(warm)
        before = server.settled(None)
        with driver.control_clients():
            driver.send(numbers[len(warm) :])
        after = server.settled(before)
        _judge(driver, server, before, after)
        return Outcome(
            "fast lane" if fast_lane else "starlette",
            workers,
            numbers.start,
            sum(driver.kinds.values()),
            round(time.monotonic() - began, 1),
            dict(sorted(driver.kinds.items())),
            dict(sorted(driver.answers.items())),
            driver.control,
            before,
            after,
            driver.findings,
        )


def _judge(driver: Driver, server: Target, before: Holdings, after: Holdings) -> None:
    bounds = (
        ("MB of memory", after.rss_mb, before.rss_mb * (1 + GROWTH) + GROWTH_MB),
        ("open descriptors", after.descriptors, before.descriptors + MORE_DESCRIPTORS),
        ("threads", after.threads, before.threads + MORE_THREADS),
        ("waiting requests and rows", after.waiting, 0),
    )
    for what, value, bound in bounds:
        if value > bound:
            driver.found(f"{value:g} {what} after it, at most {bound:g} are right", f"{before} became {after}")
    if server.pids() != server.started_as:
        driver.found("a process ended", f"{server.started_as} became {server.pids()}")
    for line in server.complaints()[:_MAX_FINDINGS]:
        driver.found("the server's log tells of a fault", line)
