"""The rules of the protocol, and of those who run servers of it, that no other test has a real client for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.serving.app import RunningServer, serve
from fairway.serving.settings import ServeSettings
from tests.serving.conftest import FEATURES, request_of

triton = pytest.importorskip("tritonclient.http")
triton_grpc = pytest.importorskip("tritonclient.grpc")
errors = pytest.importorskip("tritonclient.utils")

X = np.full((1, FEATURES), 0.5, np.float32)


@pytest.fixture(scope="module", params=["fast lane", "starlette"])
def both(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...]) -> Iterator[RunningServer]:
    fast = request.param == "fast lane"
    with serve(bundles, settings=ServeSettings(port=0, grpc_port=0, fast_lane=fast, inline_us=0)) as running:
        yield running


@pytest.fixture
def client(both: RunningServer) -> Iterator[Any]:
    with triton.InferenceServerClient(both.url.removeprefix("http://"), concurrency=2) as made:
        yield made


@pytest.fixture
def web(both: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=both.url, timeout=20) as made:
        yield made


def tensor(module: Any = triton) -> list[Any]:
    given = module.InferInput("x", [1, FEATURES], "FP32")
    given.set_data_from_numpy(X)
    return [given]


def test_a_version_is_a_text_and_an_unknown_one_is_named_in_the_error(client: Any) -> None:
    assert client.infer("linear", tensor(), model_version="1").get_response()["model_version"] == "1"
    with pytest.raises(errors.InferenceServerException, match="linear:v10"):
        client.infer("linear", tensor(), model_version="v10")


def test_an_error_has_a_text_that_the_client_shows_with_its_status(client: Any) -> None:
    with pytest.raises(errors.InferenceServerException, match="nobody") as raised:
        client.infer("nobody", tensor())
    assert raised.value.status() == "404"


def test_an_id_is_echoed_and_none_is_left_out(client: Any, both: RunningServer) -> None:
    assert client.infer("linear", tensor(), request_id="a7").get_response()["id"] == "a7"
    assert "id" not in client.infer("linear", tensor()).get_response()
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{both.grpc_port}") as grpc:
        assert grpc.infer("linear", tensor(triton_grpc), request_id="a7").get_response().id == "a7"


def test_a_request_may_have_a_priority_a_timeout_and_parameters_of_its_own(client: Any, both: RunningServer) -> None:
    options = {"priority": 1, "timeout": 10_000_000, "parameters": {"note": "x", "share": 0.5}}
    assert client.infer("linear", tensor(), **options).as_numpy("probabilities") is not None
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{both.grpc_port}") as grpc:
        assert grpc.infer("linear", tensor(triton_grpc), **options).as_numpy("probabilities") is not None


def test_reserved_parameters_are_refused_over_rest_as_over_grpc(web: httpx.Client) -> None:
    answer = web.post("/v2/models/linear/infer", json=request_of() | {"parameters": {"triton_mine": 1}})
    assert answer.status_code == 400
    assert "reserved" in answer.json()["error"]
    allowed = {"parameters": {"triton_enable_empty_final_response": True}}
    assert web.post("/v2/models/linear/infer", json=request_of() | allowed).status_code == 200


def test_there_is_no_generate_and_its_client_is_told_so_with_a_status(web: httpx.Client) -> None:
    for path in ("generate", "generate_stream"):
        answer = web.post(f"/v2/models/linear/{path}", json={"text_input": "hello"})
        assert answer.status_code == 404
        assert path in answer.json()["error"]


def test_a_timeout_in_the_queue_is_told_on_time_and_its_request_never_runs(
    client: Any, both: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served,) = (each for each in both.core.models.live() if each.name == "linear")
    infer, entered, gate, calls = served.model.infer, threading.Event(), threading.Event(), []

    def held(feed: Any, *, raw: bool = False) -> Any:
        calls.append(len(feed["x"]))
        entered.set()
        assert gate.wait(20)
        return infer(feed, raw=raw)

    monkeypatch.setattr(served.model, "infer", held)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{both.url}/v2/models/linear/infer", json=request_of(), timeout=20)
        assert entered.wait(20)
        began = time.monotonic()
        with pytest.raises(errors.InferenceServerException, match="timeout") as raised:
            client.infer("linear", tensor(), timeout=20_000)
        assert raised.value.status() == "504"
        assert time.monotonic() - began < 20
        assert not running.done()
        gate.set()
        assert running.result().status_code == 200
    assert calls == [1]


def test_a_model_is_warm_before_it_is_ready(bundles: tuple[Bundle, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from fairway.model import Model

    infer, before = Model.infer, []

    def counted(model: Model, feed: Any, *, raw: bool = False) -> Any:
        before.append(len(next(iter(feed.values()))))
        return infer(model, feed, raw=raw)

    monkeypatch.setattr(Model, "infer", counted)
    with (
        serve(bundles[0], settings=ServeSettings(port=0)) as server,
        triton.InferenceServerClient(server.url.removeprefix("http://")) as client,
    ):
        assert client.is_model_ready("linear")
        assert {1, 8, 64} <= set(before)
        known = len(before)
        client.infer("linear", tensor())
        assert len(before) == known + 1
