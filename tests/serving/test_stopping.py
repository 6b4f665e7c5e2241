"""Starting and stopping, as a process manager sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings

INFER = "/v2/models/linear/infer"
BODY: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.5] * 4}]}

PROGRAM = """
import sys
from fairway.serving.app import run
from fairway.serving.logs import configure_logging
from fairway.serving.settings import ServeSettings
configure_logging()
settings = ServeSettings(port=0, stop_delay_s=float(sys.argv[2]), grace_s=20)
run(sys.argv[1], settings=settings, started=lambda url: print(url, flush=True))
"""


class Process(NamedTuple):
    running: subprocess.Popen[str]
    url: str
    log: IO[str]


@contextmanager
def process(bundle: Bundle, stop_delay_s: float) -> Iterator[Process]:
    command = [sys.executable, "-c", PROGRAM, str(bundle.path), str(stop_delay_s)]
    with (
        tempfile.NamedTemporaryFile("r") as log,  # not a pipe, which nobody would empty
        Path(log.name).open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as running,
    ):
        assert running.stdout is not None
        try:
            url = running.stdout.readline().strip()
            assert url, log.read()
            yield Process(running, url, log)
        finally:
            running.kill()


def test_sigterm_under_load_fails_no_request(bundles: tuple[Bundle, ...]) -> None:
    """Clients send until the server is not ready, as behind a load balancer; every one of their requests is answered."""
    with process(bundles[0], stop_delay_s=1.0) as (running, url, _):
        warm = threading.Barrier(9)
        balancer_noticed = threading.Event()

        def client() -> list[int]:
            statuses = []
            with httpx.Client(base_url=url, timeout=20) as http:
                for n in range(10**6):
                    if n == 20:
                        warm.wait(20)
                    if balancer_noticed.is_set():
                        break
                    statuses.append(http.post(INFER, json=BODY).status_code)
            return statuses

        with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=url, timeout=20) as http:
            clients = [pool.submit(client) for _ in range(8)]
            warm.wait(20)
            running.send_signal(signal.SIGTERM)
            while http.get("/v2/health/ready").status_code == 200:
                assert not any(future.done() for future in clients)
            assert http.get("/v2/health/live").status_code == 200
            assert http.post(INFER, json=BODY).headers["connection"] == "close"
            balancer_noticed.set()
            statuses = [status for future in clients for status in future.result()]
        assert len(statuses) > 160
        assert set(statuses) == {200}
        assert running.wait(20) == 0


def test_sigint_stops_at_once_and_a_second_signal_ends_the_wait(bundles: tuple[Bundle, ...]) -> None:
    with process(bundles[0], stop_delay_s=600) as (running, _, _):
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
    with process(bundles[0], stop_delay_s=600) as (running, url, _):
        running.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=url) as http:
            while http.get("/v2/health/ready").status_code == 200:
                pass
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_logs_are_one_line_of_ecs_json_per_event_on_stderr(bundles: tuple[Bundle, ...]) -> None:
    with process(bundles[0], stop_delay_s=0) as (running, url, log):
        with httpx.Client(base_url=url) as http:
            assert http.post(INFER, json=BODY).status_code == 200
            assert http.get("/nope?q=1").status_code == 404
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=20)
        lines = [json.loads(line) for line in log]
    assert out == ""
    messages = [line["message"] for line in lines]
    for event in ("model_loaded", "server_ready", "server_stopping", "model_unloaded", "server_stopped"):
        assert event in messages
    requests = [line for line in lines if line["log"]["logger"] == "fairway.access"]
    assert [
        (r["http"]["request"]["method"], r["url"]["path"], r["http"]["response"]["status_code"]) for r in requests
    ] == [
        ("POST", INFER, 200),
        ("GET", "/nope", 404),
    ]
    assert all(r["event"]["duration"] > 0 and r["@timestamp"] and r["ecs.version"] for r in requests)


def test_a_taken_port_is_said_in_words(bundles: tuple[Bundle, ...]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidConfig, match=f"port {port} on 127.0.0.1 is taken"):
            serve(bundles[0], settings=ServeSettings(port=port))
    with pytest.raises(InvalidConfig, match="not a port"):
        serve(bundles[0], settings=ServeSettings(port=70000))
    with pytest.raises(InvalidConfig, match="cannot listen"):
        serve(bundles[0], settings=ServeSettings(host="192.0.2.1", port=0))


def test_a_damaged_bundle_keeps_the_server_from_starting_and_frees_the_port(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundles[0].path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with (copy / "model.onnx").open("r+b") as model:
        model.write(b"\xff")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(InvalidBundle, match="altered"):
        serve(copy, settings=ServeSettings(port=port))
    with serve(bundles[0], settings=ServeSettings(port=port)) as server:
        assert server.port == port


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(InvalidConfig, match="nothing to serve"):
        serve([])


def test_stopping_twice_is_harmless_and_leaves_no_thread(bundles: tuple[Bundle, ...]) -> None:
    before = set(threading.enumerate())
    server = serve(bundles[0], settings=ServeSettings(port=0))
    assert server.ready
    server.stop()
    server.stop()
    assert not server.ready
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/v2")
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before


def test_the_servers_imports_are_light(bundles: tuple[Bundle, ...]) -> None:
    code = "import sys, fairway.serving.app, fairway.serving.transports.fastlane; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "scipy",
        "sklearn",
        "onnx",
        "pyarrow",
        "duckdb",
        "pandas",
        "torch",
        "matplotlib",
        "sqlalchemy",
        "fsspec",
    }


NEVER_LOADED = """
import threading
from fairway.serving import loading
def build(*_):
    print("loading", flush=True)
    threading.Event().wait()
loading.Loader._build = build
""" + PROGRAM.replace("grace_s=20", "grace_s=0.5")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_first_model_loads_ends_the_server_within_the_grace_period(
    bundles: tuple[Bundle, ...], number: signal.Signals
) -> None:
    command = [sys.executable, "-c", NEVER_LOADED, str(bundles[0].path), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "loading\n"
        running.send_signal(number)
        try:
            said, log = running.communicate(timeout=30)
        finally:
            running.kill()
    assert (running.returncode, said) == (0, "")
    events = [json.loads(line)["message"] for line in log.splitlines()]  # and no traceback between
    assert events == ["server_stopping", "server_stopped"]


NEVER_ANSWERS = """
import threading
from fairway.model import Model
from fairway.serving import app
def infer(*_, **__):
    print("computing", flush=True)
    threading.Event().wait()
settled = app.settle
def settle():
    settled()
    Model.infer = infer
app.settle = settle
""" + PROGRAM.replace("grace_s=20", "grace_s=0.5, inline_us=0")


def test_a_call_that_does_not_end_keeps_no_server_beyond_the_grace_period(bundles: tuple[Bundle, ...]) -> None:
    command = [sys.executable, "-c", NEVER_ANSWERS, str(bundles[0].path), "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running,
        ThreadPoolExecutor(1) as caller,
    ):
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        call = caller.submit(httpx.post, f"{url}{INFER}", json=BODY, timeout=60)
        try:
            assert running.stdout.readline() == "computing\n"
            running.send_signal(signal.SIGTERM)
            _, log = running.communicate(timeout=30)
        finally:
            running.kill()
        assert isinstance(call.exception(), httpx.HTTPError)
    assert running.returncode == 0
    events = [json.loads(line)["message"] for line in log.splitlines()]
    assert events[-2:] == ["model_not_unloaded", "server_stopped"]
