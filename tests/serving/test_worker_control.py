"""With several workers, what callers change is changed on all of them or on none, and stays so when one is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fairway.bundle.format import Bundle
from tests.serving.conftest import CLASSES, request_of
from tests.serving.test_workers import INFER, Server, server, until

LOAD, UNLOAD = (f"/v2/repository/models/linear/{verb}" for verb in ("load", "unload"))
CONTROL = "model_control = true\nshared_memory = true\n"
TRIES = 24  # connections, so that each of two workers is met: the kernel picks one for each


def each(running: Server, path: str, body: Any = None) -> set[str]:
    """The different answers to one request, over many connections."""
    return {answer(running, path, body).text for _ in range(TRIES)}


def answer(running: Server, path: str, body: Any = None) -> httpx.Response:
    method = "GET" if body is None else "POST"
    return httpx.request(method, running.url + path, content=None if body is None else json.dumps(body), timeout=30)


def replaced(running: Server) -> None:
    """Kill both workers, one after the other, and wait until each has its successor."""
    for _ in range(2):
        served = running.serving()
        os.kill(running.workers()[0], signal.SIGKILL)
        until(lambda before=served: running.serving() == before + 1, "new worker")  # type: ignore[misc]


@pytest.fixture
def own(bundles: tuple[Bundle, ...], tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "bundle"
    shutil.copytree(bundles[0].path, path)
    with server(str(path), tmp_path, table=CONTROL) as running:
        yield running


@contextmanager
def region(size: int) -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        memory.unlink()


def test_unloading_and_loading_reach_every_worker_and_those_that_come_later(own: Server) -> None:
    assert answer(own, UNLOAD, {}).status_code == 200
    assert {answer(own, INFER, request_of()).status_code for _ in range(TRIES)} == {503}
    (index,) = each(own, "/v2/repository/index", {})
    assert json.loads(index)[0]["reason"] == "unloaded"
    replaced(own)
    assert {answer(own, INFER, request_of()).status_code for _ in range(TRIES)} == {503}
    assert answer(own, LOAD, {"parameters": {"config": '{"max_batch_size": 7}'}}).status_code == 200
    assert {answer(own, INFER, request_of()).status_code for _ in range(TRIES)} == {200}
    replaced(own)
    assert {json.loads(text)["max_batch_size"] for text in each(own, "/v2/models/linear/config")} == {7}
    assert {answer(own, INFER, request_of()).status_code for _ in range(TRIES)} == {200}


def test_a_load_that_fails_leaves_every_worker_as_it_was(own: Server, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"no model")
    failed = answer(own, LOAD, {})
    assert failed.status_code == 500
    assert failed.json()["code"] == "invalid_bundle"
    assert {answer(own, INFER, request_of()).status_code for _ in range(TRIES)} == {200}
    (index,) = each(own, "/v2/repository/index", {})
    assert [entry["state"] for entry in json.loads(index)] == ["READY"]
    unknown = answer(own, "/v2/repository/models/nothing/load", {})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")


def test_files_are_refused_with_words(own: Server) -> None:
    parameters = {"config": "{}", "file:model.onnx": "AAAA"}
    refused = answer(own, LOAD, {"parameters": parameters})
    assert refused.status_code == 400
    assert "workers = 1" in refused.json()["error"]


def test_settings_reach_every_worker_and_those_that_come_later(own: Server) -> None:
    assert answer(own, "/v2/trace/setting", {"trace_rate": "7"}).status_code == 200
    model = answer(own, "/v2/models/linear/trace/setting", {"trace_count": "3"})
    assert (model.json()["trace_rate"], model.json()["trace_count"]) == ("7", "3")
    assert answer(own, "/v2/logging", {"log_verbose_level": 2}).json()["log_verbose_level"] == 2
    assert answer(own, "/v2/trace/setting", {"trace_rate": "wrong"}).status_code == 400
    for _ in range(2):
        assert {json.loads(text)["trace_rate"] for text in each(own, "/v2/trace/setting")} == {"7"}
        assert {json.loads(text)["trace_count"] for text in each(own, "/v2/models/linear/trace/setting")} == {"3"}
        assert {json.loads(text)["log_verbose_level"] for text in each(own, "/v2/logging")} == {2}
        replaced(own)


def test_what_one_worker_cannot_do_is_undone_on_the_others(own: Server) -> None:
    victim = psutil.Process(own.workers()[0])
    limits = victim.rlimit(psutil.RLIMIT_NOFILE)
    with region(64) as memory, httpx.Client(base_url=own.url, timeout=30) as client:
        client.get("/v2")  # whichever worker has this connection keeps it
        victim.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))  # it can open nothing more
        body = {"key": memory.name, "offset": 0, "byte_size": 64}
        failed = client.post("/v2/systemsharedmemory/region/out/register", json=body)
        victim.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert (failed.status_code, "undone on all" in failed.text) == (400, True)
        assert each(own, "/v2/systemsharedmemory/status") == {"[]"}
        assert client.post("/v2/systemsharedmemory/region/out/register", json=body).status_code == 200


def test_a_change_waits_for_a_worker_that_is_stuck_until_that_is_replaced(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    with server(bundles[0], tmp_path, table=CONTROL + "worker_timeout_s = 2.5\n") as running:
        stuck, well = running.workers()
        with closing(connection_to(running, well)) as asking:
            os.kill(stuck, signal.SIGSTOP)
            asking.request("POST", "/v2/logging", json.dumps({"log_verbose_level": 3}))
            assert asking.getresponse().status == 200
        assert not psutil.pid_exists(stuck)  # it was waited for, and then killed
        until(lambda: running.serving() == 3, "its successor")
        assert {json.loads(text)["log_verbose_level"] for text in each(running, "/v2/logging")} == {3}


def connection_to(running: Server, pid: int) -> HTTPConnection:
    """A connection that this worker has accepted."""
    for _ in range(100):
        connection = HTTPConnection(httpx.URL(running.url).netloc.decode(), timeout=30)
        connection.request("GET", "/v2")
        connection.getresponse().read()
        port = connection.sock.getsockname()[1]
        if any(found.raddr and found.raddr.port == port for found in psutil.Process(pid).net_connections()):
            return connection
        connection.close()
    raise AssertionError("none of 100 connections was accepted by this worker")


def test_a_region_is_every_workers_until_its_owner_removes_it(own: Server) -> None:
    where = {"shared_memory_region": "out", "shared_memory_byte_size": CLASSES * 4}
    body = request_of() | {"outputs": [{"name": "probabilities", "parameters": where}]}
    with region(64) as memory:
        register = {"key": memory.name, "offset": 0, "byte_size": 64}
        assert answer(own, "/v2/systemsharedmemory/region/out/register", register).status_code == 200
        again = answer(own, "/v2/systemsharedmemory/region/out/register", register)
        assert (again.status_code, "registered already" in again.text) == (400, True)
        replaced(own)
        (status,) = each(own, "/v2/systemsharedmemory/status")
        assert [found["name"] for found in json.loads(status)] == ["out"]
        assert {answer(own, INFER, body).status_code for _ in range(TRIES)} == {200}
    served = own.serving()
    os.kill(own.workers()[0], signal.SIGKILL)  # its successor cannot have the region any more
    until(lambda: own.serving() == served + 1, "new worker")
    until(lambda: own.events("region_lost"), "word of it")
    until(lambda: each(own, "/v2/systemsharedmemory/status") == {"[]"}, "all without it")
    assert answer(own, "/v2/systemsharedmemory/unregister", {}).status_code == 200
