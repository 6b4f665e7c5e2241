"""gRPC with several workers: what clients under load see when workers are replaced, killed and ended."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.bundle.format import Bundle
from tests.serving.conftest import CLASSES, FEATURES
from tests.serving.test_workers import SOON_S, Server, server, until

grpc = pytest.importorskip("grpc", reason="the reference client is not installed")
pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402

RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
FOR_CALLS = (OWN_CONNECTION, ("grpc.service_config", json.dumps(RETRIES)))
FOR_STREAMS = (OWN_CONNECTION, ("grpc.enable_retries", 0))
"""A stream that gRPC itself retries can wait for ever, past its deadline, once the server has gone (seen in grpcio 1.85)."""


def request(identity: str = "") -> Any:
    made = service_pb2.ModelInferRequest(model_name="linear", id=identity)
    made.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES], contents={"fp32_contents": [0.5] * FEATURES})
    return made


class GrpcLoad:
    """Clients that retry what is UNAVAILABLE, each on a connection of its own, one call or one stream after the other."""

    def __init__(self, address: str, callers: int = 3, streamers: int = 3) -> None:
        self._address = address
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._run, args=(self._call, FOR_CALLS), daemon=True) for _ in range(callers)
        ]
        self._threads += [
            threading.Thread(target=self._run, args=(self._stream, FOR_STREAMS), daemon=True) for _ in range(streamers)
        ]
        for thread in self._threads:
            thread.start()

    def more(self) -> None:
        """Wait for more answers of both kinds."""
        before = self.seen.copy()
        for kind in ("call OK", "stream OK"):
            until(lambda kind=kind: self.seen[kind] >= before[kind] + 20, f"more of {kind}")  # type: ignore[misc]

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(SOON_S)
            assert not thread.is_alive()
        return self.seen

    def _run(self, work: Callable[[Any], str], options: tuple[tuple[str, Any], ...]) -> None:
        with grpc.insecure_channel(self._address, options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                outcome = work(stub)
                with self._lock:
                    self.seen[outcome] += 1

    def _call(self, stub: Any) -> str:
        try:
            answer = stub.ModelInfer(request("a"), timeout=SOON_S)
        except grpc.RpcError as error:
            return f"call {error.code().name}"
        return "call OK" if answer.id == "a" and len(answer.raw_output_contents[0]) == 4 * CLASSES else "call mixed up"

    def _stream(self, stub: Any) -> str:
        """Ten requests; those that were not answered when the stream ended are asked again, on another."""
        waiting = [str(n) for n in range(10)]
        tries = 0
        while waiting:
            try:
                for answer in stub.ModelStreamInfer(iter([request(each) for each in waiting]), timeout=SOON_S):
                    if answer.error_message or answer.infer_response.id != waiting.pop(0):
                        return "stream mixed up"
            except grpc.RpcError as error:
                tries += 1
                if error.code() is not grpc.StatusCode.UNAVAILABLE or tries > 5:
                    return f"stream {error.code().name}"
                self._stop.wait(0.2)
        return "stream OK"


@pytest.fixture
def two(bundles: tuple[Bundle, ...], tmp_path: Path) -> Iterator[Server]:
    with server(bundles[0], tmp_path, table="grpc_port = 0\n") as running:
        yield running


def address(running: Server) -> str:
    (port,) = {event["grpc_port"] for event in running.events("worker_ready")}
    return f"127.0.0.1:{port}"


def test_clients_that_retry_see_nothing_of_a_kill_and_of_new_workers(two: Server) -> None:
    load = GrpcLoad(address(two))
    load.more()
    os.kill(two.workers()[0], signal.SIGKILL)
    load.more()
    until(lambda: two.serving() == 3, "new worker")
    two.running.send_signal(signal.SIGHUP)
    until(lambda: len(two.events("worker_ended")) == 2, "end of the old workers")
    load.more()
    assert load.stop().keys() == {"call OK", "stream OK"}


def test_sigterm_under_load_fails_only_what_came_too_late(two: Server) -> None:
    """Whoever still asks when the server has gone is told UNAVAILABLE, and nobody anything else."""
    load = GrpcLoad(address(two))
    load.more()
    two.running.send_signal(signal.SIGTERM)
    assert two.running.wait(SOON_S) == 0
    seen = load.stop()
    assert seen.keys() <= {"call OK", "stream OK", "call UNAVAILABLE", "stream UNAVAILABLE"}
    assert [event["how"] for event in two.events("worker_ended")] == ["exit code 0"] * 2
