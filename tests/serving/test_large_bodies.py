"""Compressing and decompressing large bodies is done on threads: nobody else waits for it, and nothing else changes."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from fairway.serving.transports import bodies as transport
from tests.serving.conftest import request_of

INFER = "/v2/models/linear/infer"
SOON_S = 30.0
LARGE = gzip.compress(json.dumps(request_of()).encode() + b" " * 50_000_000, 1)
GZIP = {"content-encoding": "gzip"}


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def running(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    with serve(bundles, settings=ServeSettings(port=0, fast_lane=request.param == "fast lane")) as found:
        yield found


class Held:
    """Work on large bodies begins, and does not go on before ``release``."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.threads: set[str] = set()

    def hold(self, work: Callable[..., Any], large: Callable[..., bool]) -> Callable[..., Any]:
        def held(*given: Any) -> Any:
            if large(*given):
                self.threads.add(threading.current_thread().name)
                self.begun.set()
                assert self.release.wait(SOON_S), "nobody else was answered meanwhile"
            return work(*given)

        return held


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    found = Held()
    inflate = found.hold(transport._inflate, lambda body, name, limit: limit > transport.LARGE)
    monkeypatch.setattr(transport, "_inflate", inflate)
    yield found
    found.release.set()


def tiny(running: RunningServer) -> int:
    return httpx.post(running.url + INFER, json=request_of(), timeout=SOON_S).status_code


def test_a_tiny_request_is_answered_while_a_large_body_is_decompressed(running: RunningServer, held: Held) -> None:
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(httpx.post, running.url + INFER, content=LARGE, headers=GZIP, timeout=SOON_S)
        assert held.begun.wait(SOON_S)
        assert tiny(running) == 200
        assert not large.done()
        held.release.set()
        assert large.result(SOON_S).status_code == 200
    assert "fairway-server" not in held.threads


def test_answers_on_one_connection_keep_the_order_of_their_requests(running: RunningServer, held: Held) -> None:
    small = json.dumps(request_of() | {"id": "second"}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port), SOON_S) as connection:
        connection.sendall(head + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(LARGE), LARGE))
        connection.sendall(head + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(small), small))
        assert held.begun.wait(SOON_S)
        assert tiny(running) == 200
        held.release.set()
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    first, second = said.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert b"second" not in first
    assert b"second" in second


def test_a_client_that_leaves_meanwhile_costs_nothing_more(running: RunningServer, held: Held) -> None:
    with httpx.Client(base_url=running.url, timeout=SOON_S) as http:

        def answered() -> int:
            (found,) = http.get("/v2/models/linear/stats").json()["model_stats"]
            return int(found["inference_count"])

        before = answered()
        with socket.create_connection(("127.0.0.1", running.port), SOON_S) as connection:
            head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: {len(LARGE)}\r\n\r\n"
            connection.sendall(head.encode() + LARGE)
            assert held.begun.wait(SOON_S)
        assert http.get("/v2/health/live").status_code == 200  # by now it knows that the other left
        held.release.set()
        assert http.post(INFER, json=request_of()).status_code == 200
        if running.core.models.settings.fast_lane:  # the other lane notices later
            assert answered() - before == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b" " * (65 * 2**20), 1), 413),
        (LARGE[:-10], 400),
        (LARGE + b"more", 400),
        (LARGE[:1000] + b"\xff" * 1000 + LARGE[2000:], 400),
    ],
    ids=["above the limit", "truncated", "with a rest", "damaged"],
)
def test_large_bodies_that_are_wrong_are_told_so(running: RunningServer, body: bytes, status: int) -> None:
    with httpx.Client(base_url=running.url, timeout=SOON_S) as http:
        answer = http.post(INFER, content=body, headers=GZIP)
        assert answer.status_code == status
        assert answer.json()["error"]
        assert http.post(INFER, json=request_of()).status_code == 200


def test_a_tiny_request_is_answered_while_a_large_answer_is_compressed(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairway.serving.transports import fastlane, rest

    found = Held()
    for lane in (fastlane, rest):
        monkeypatch.setattr(lane, "compress", found.hold(transport.compress, lambda parts, _: True))
    rows = 50_000
    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [0.25] * (rows * 4)}
    asked = {"accept-encoding": "gzip"}
    with ThreadPoolExecutor(1) as pool:
        url = running.url + "/v2/models/free/infer"
        large = pool.submit(httpx.post, url, json={"inputs": [tensor]}, headers=asked, timeout=SOON_S)
        assert found.begun.wait(SOON_S)
        assert tiny(running) == 200
        assert not large.done()
        found.release.set()
        answer = large.result(SOON_S)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["outputs"][0]["data"] == tensor["data"]
    assert "fairway-server" not in found.threads
