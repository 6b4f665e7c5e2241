"""Faults over gRPC, with several processes, or both. The whole list of faults: ``docs/guides/faults.md``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from tests.projects import FAIRWAY, without_settings
from tests.serving.conftest import FEATURES, request_of
from tests.serving.test_models import Held
from tests.serving.test_models import until as soon
from tests.serving.test_workers import INFER, SOON_S, Server, server, until

grpc = pytest.importorskip("grpc", reason="the reference client is not installed")
pytest.importorskip("tritonclient.grpc", reason="the field's client is not installed")
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402

CLIENTS = 4


def message(identity: str = "") -> Any:
    request = service_pb2.ModelInferRequest(model_name="linear", id=identity)
    request.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES], contents={"fp32_contents": [0.5] * FEATURES})
    return request


class Calls:
    """Clients of gRPC that ask without pause, each on a connection of its own: one call after another, or one stream."""

    def __init__(self, port: int, *, streams: bool) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self.streams = 0
        self._threads = [
            threading.Thread(target=self._client, args=(port, streams and n % 2 == 0), daemon=True)
            for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def more(self, answers: int = 60) -> None:
        before = self.answers["OK"]
        until(lambda: self.answers["OK"] >= before + answers, "answers")

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(SOON_S)
        assert not any(thread.is_alive() for thread in self._threads)
        return self.answers

    def _client(self, port: int, stream: bool) -> None:
        # a pool of its own: else all channels of this process share one connection
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                try:
                    self._stream(stub) if stream else self._call(stub)
                except grpc.RpcError as error:
                    self._note(error.code().name)

    def _call(self, stub: Any) -> None:
        stub.ModelInfer(message(), timeout=20, wait_for_ready=True)
        self._note("OK")

    def _stream(self, stub: Any) -> None:
        """Requests, each after the answer to the one before it, until told to stop."""
        turn = threading.Semaphore()

        def ask() -> Iterator[Any]:
            n = 0
            while turn.acquire(timeout=20) and not self._stop.is_set():
                n += 1
                yield message(str(n))

        for n, answer in enumerate(stub.ModelStreamInfer(ask(), timeout=60, wait_for_ready=True), 1):
            right = not answer.error_message and answer.infer_response.id == str(n)
            self._note("OK" if right else answer.error_message or "another's answer")
            turn.release()
        with self._lock:
            self.streams += 1

    def _note(self, outcome: str) -> None:
        with self._lock:
            self.answers[outcome] += 1


@pytest.fixture
def own(bundles: tuple[Bundle, ...], tmp_path: Path) -> Iterator[Server]:
    with server(bundles[0], tmp_path, table="grpc_port = 0\n") as running:
        yield running


def grpc_port(running: Server) -> int:
    (port,) = until(lambda: {event["grpc_port"] for event in running.events("worker_ready")}, "worker's port")
    return int(port)


def test_a_killed_worker_fails_only_the_calls_that_were_in_flight_on_it(own: Server) -> None:
    calls = Calls(grpc_port(own), streams=False)
    calls.more()
    os.kill(own.workers()[0], signal.SIGKILL)
    calls.more()
    until(lambda: own.serving() == 3, "new worker")
    calls.more()
    answers = calls.stop()
    assert set(answers) <= {"OK", "UNAVAILABLE"}
    assert answers["UNAVAILABLE"] <= CLIENTS  # at most one on each connection


def test_sigterm_under_load_fails_no_call_and_no_stream(own: Server) -> None:
    """Clients ask until the server says that it is not ready, and end their streams then, as behind a load balancer."""
    calls = Calls(grpc_port(own), streams=True)
    calls.more()
    own.running.send_signal(signal.SIGTERM)
    with httpx.Client(timeout=20) as http:
        until(lambda: http.get(own.url + "/v2/health/ready").status_code == 503, "word that it is stopping")
    assert calls.stop().keys() == {"OK"}
    assert calls.streams == CLIENTS // 2
    assert own.running.wait(SOON_S) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_of_grpc_ends_the_program_with_words(
    bundles: tuple[Bundle, ...], tmp_path: Path, workers: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = [*FAIRWAY, "serve", str(bundles[0].path), "--port", "0", "--grpc-port", port, "--workers", workers]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=without_settings()
        )
    assert (done.returncode, done.stdout) == (3, "")
    assert f"port {port} on 127.0.0.1 is taken by another process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_over_grpc_cancels_its_queued_work(
    bundles: tuple[Bundle, ...], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    with serve(bundles[0], settings=ServeSettings(port=0, grpc_port=0, inline_us=0)) as running:
        (served,) = running.core.models.live()
        held = Held(served.model.infer)
        monkeypatch.setattr(served.model, "infer", held)
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=running.url, timeout=20) as http:
            stays = pool.submit(http.post, INFER, json=request_of())
            assert held.entered.wait(20)
            with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                call = stub.ModelStreamInfer(iter([message()])) if stream else stub.ModelInfer.future(message())
                soon(lambda: served.scheduler.queued_requests == 1)
                assert call.is_active()
            soon(lambda: served.scheduler.queued_requests == 0)  # its channel is closed
            held.gate.set()
            assert stays.result().status_code == 200
    assert held.calls == 1


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def alone(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    settings = ServeSettings(port=0, grpc_port=0, fast_lane=request.param == "fast lane")
    with serve(bundles[0], settings=settings) as running:
        yield running


@pytest.mark.parametrize("whole", [False, True])
def test_ten_thousand_headers_are_refused(alone: RunningServer, whole: bool) -> None:
    lines = b"".join(b"x-%d: 1\r\n" % n for n in range(10_000))
    with socket.create_connection(("127.0.0.1", alone.port), timeout=20) as client:
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\n%b" % (INFER.encode(), lines) + b"\r\n" * whole)
        head, _, body = _all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert "headers" in json.loads(body)["error"]
    assert httpx.post(alone.url + INFER, json=request_of()).status_code == 200


def test_ten_thousand_lines_of_metadata_are_refused_and_the_next_call_is_answered(alone: RunningServer) -> None:
    lines = [(f"x-{n}", "1") for n in range(10_000)]
    options = [("grpc.max_metadata_size", 2**20), ("grpc.absolute_max_metadata_size", 2**21)]
    with grpc.insecure_channel(f"127.0.0.1:{alone.grpc_port}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(message(), metadata=lines, timeout=20)
        assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        assert stub.ModelInfer(message(), timeout=20, wait_for_ready=True).model_name == "linear"


def _all(client: socket.socket) -> bytes:
    """What comes until the server ends the connection, or resets it as it did not read all that was sent."""
    received = bytearray()
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize("cut", [3, 9, 30, 10**6])
def test_half_a_call_whose_client_ends_the_connection_is_let_go(alone: RunningServer, cut: int, method: str) -> None:
    hyperframe = pytest.importorskip("hyperframe.frame", reason="what writes HTTP/2 frames is not installed")
    import hpack

    lines = {":method": "POST", ":scheme": "http", ":path": f"/inference.GRPCInferenceService/{method}"}
    lines |= {":authority": "x", "te": "trailers", "content-type": "application/grpc"}
    head = hyperframe.HeadersFrame(1, hpack.Encoder().encode(list(lines.items())), flags=["END_HEADERS"]).serialize()
    half = hyperframe.DataFrame(1, b"\0\0\0\1\0half of a message").serialize()
    assert alone.grpc_port
    with socket.create_connection(("127.0.0.1", alone.grpc_port), timeout=8) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hyperframe.SettingsFrame(0).serialize())
        client.sendall((head + half)[:cut])
        client.shutdown(socket.SHUT_WR)
        assert _all(client)  # and the server ends it, long before it would lose patience
    soon(lambda: alone._service._grpc is not None and not alone._service._grpc.connections)
