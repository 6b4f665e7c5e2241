"""Loading, warming up, going live, retiring."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import encode_samples
from fairway.core.errors import InferenceFailed, InvalidBundle, ModelNotFound, ModelNotReady
from fairway.core.messages import InferRequest
from fairway.core.tensors import Datatype
from fairway.model import Model
from fairway.serving.app import serve
from fairway.serving.inference import InferenceCore
from fairway.serving.models import Models
from fairway.serving.routing import Route
from fairway.serving.served import State
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.serving.warmup import made_up_rows, sample_rows, take, warm_up
from fairway.testing.builders import linear_bundle

X = {"x": np.full((1, 4), 0.5, np.float32)}


def core() -> InferenceCore:
    telemetry = Telemetry()
    return InferenceCore(Models(ServeSettings(), telemetry), telemetry)


def with_samples(bundle: Bundle, path: Path, **samples: Any) -> Bundle:
    files = {name: bundle.file(name) for name in bundle.manifest.files}
    return write_bundle(path, bundle.manifest, {**files, "samples.npz": encode_samples(samples)})


async def test_while_a_version_loads_it_is_not_ready_and_what_is_live_answers(bundles: tuple[Bundle, ...]) -> None:
    serving = core()
    await serving.models.load("linear", "1", lambda: bundles[0])
    serving.models.point("linear", Route("1"))
    gate = threading.Event()

    def slow() -> Bundle:
        assert gate.wait(20)
        return bundles[0]

    loading = asyncio.create_task(serving.models.load("linear", "2", slow))
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady, match="loading"):
        await serving.infer(InferRequest("linear", X, version="2"))
    assert (await serving.infer(InferRequest("linear", X))).version == "1"
    gate.set()
    await loading
    assert (await serving.infer(InferRequest("linear", X, version="2"))).version == "2"
    assert (await serving.infer(InferRequest("linear", X))).version == "1"  # until callers are pointed there
    await serving.models.close()


async def test_a_retired_version_answers_what_it_took_and_is_then_closed(bundles: tuple[Bundle, ...]) -> None:
    serving = core()
    await serving.models.load("linear", "1", lambda: bundles[0])
    serving.models.point("linear", Route("1"))
    await serving.models.load("linear", "2", lambda: bundles[0])
    taken = [asyncio.create_task(serving.infer(InferRequest("linear", X))) for _ in range(20)]
    await asyncio.sleep(0)  # they are queued
    serving.models.point("linear", Route("2"))
    serving.models.keep("linear", {"2"})
    assert {(await answer).version for answer in taken} == {"1"}
    with pytest.raises(ModelNotFound, match="linear:2"):
        await serving.infer(InferRequest("linear", X, version="1"))
    assert [entry.version for entry in serving.models.index()] == ["2"]
    await serving.models.close()


async def test_nobody_is_pointed_at_what_is_not_loaded(bundles: tuple[Bundle, ...]) -> None:
    serving = core()
    await serving.models.load("linear", "1", lambda: bundles[0])
    with pytest.raises(ModelNotReady):
        serving.models.point("linear", Route("1", "2", 0.5))
    await serving.models.close()


async def test_a_version_that_fails_to_load_says_why_in_the_index(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    serving = core()
    broken = write_bundle(tmp_path / "broken", bundles[0].manifest, {"model.onnx": b"nonsense"})
    with pytest.raises(InvalidBundle):
        await serving.models.load("linear", "1", lambda: broken)
    (entry,) = serving.models.index()
    assert entry.state is State.UNAVAILABLE
    assert "model.onnx" in entry.reason
    with pytest.raises(ModelNotReady, match=r"model\.onnx"):
        await serving.infer(InferRequest("linear", X))
    await serving.models.close()


async def test_versions_are_ordered_as_numbers(bundles: tuple[Bundle, ...]) -> None:
    serving = core()
    for version in ("10", "2", "1"):
        await serving.models.load("linear", version, lambda: bundles[0])
    assert serving.models.versions("linear") == ["1", "2", "10"]
    await serving.models.close()


async def test_a_caller_that_leaves_before_its_turn_costs_nothing(bundles: tuple[Bundle, ...]) -> None:
    serving = core()
    await serving.models.load("linear", "1", lambda: bundles[0])
    serving.models.point("linear", Route("1"))
    (served,) = serving.models.live()
    answers: list[object] = []
    ticket = serving.submit(InferRequest("linear", X), answers.append)
    assert ticket is not None
    ticket.cancel()
    assert served.scheduler.queued_requests == 0
    await serving.models.close()
    assert (answers, served.stats.requests) == ([], 0)


class Held:
    """An engine that waits, and counts."""

    def __init__(self, infer: Any) -> None:
        self._infer = infer
        self.calls = 0
        self.entered = threading.Event()
        self.gate = threading.Event()

    def __call__(self, feed: Any, *, raw: bool = False) -> Any:
        self.calls += 1
        self.entered.set()
        assert self.gate.wait(20)
        return self._infer(feed, raw=raw)


@pytest.mark.parametrize("fast_lane", [True, False])
def test_over_the_wire_too_a_caller_that_leaves_cancels_its_queued_work(
    bundles: tuple[Bundle, ...], fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(port=0, fast_lane=fast_lane, inline_us=0)
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    request = b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with serve(bundles[0], settings=settings) as server:
        (served,) = server.core.models.live()
        held = Held(served.model.infer)
        monkeypatch.setattr(served.model, "infer", held)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stays:
            stays.sendall(request)
            assert held.entered.wait(20)
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as leaves:
                leaves.sendall(request)
                until(lambda: served.scheduler.queued_requests == 1)
            until(lambda: served.scheduler.queued_requests == 0)
            held.gate.set()
            assert stays.recv(100).startswith(b"HTTP/1.1 200")
    assert held.calls == 1


@pytest.mark.parametrize("fast_lane", [True, False])
def test_over_the_wire_too_a_full_queue_is_429_and_a_timeout_504(
    bundles: tuple[Bundle, ...], fast_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(port=0, fast_lane=fast_lane, inline_us=0, max_queue_requests=1)
    body: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    path = "/v2/models/linear/infer"
    with (
        serve(bundles[0], settings=settings) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
        ThreadPoolExecutor(2) as pool,
    ):
        (served,) = server.core.models.live()
        held = Held(served.model.infer)
        monkeypatch.setattr(served.model, "infer", held)
        running = pool.submit(http.post, path, json=body)
        assert held.entered.wait(20)
        late = http.post(path, json=body | {"parameters": {"timeout": 20_000}})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        waiting = pool.submit(http.post, path, json=body)
        until(lambda: served.scheduler.queued_requests == 1)
        refused = http.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        held.gate.set()
        assert [running.result().status_code, waiting.result().status_code] == [200, 200]
    assert held.calls == 2


def until(condition: Callable[[], bool]) -> None:
    """Poll with a bound: what is waited for happens in the server's thread."""
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        threading.Event().wait(0.002)


def test_warm_up_learns_the_cost_from_recorded_rows(bundles: tuple[Bundle, ...], tmp_path: Path) -> None:
    bundle = with_samples(bundles[0], tmp_path / "b", x=np.ones((5, 4), np.float32))
    with Model(bundle) as model:
        warmed = warm_up(model, bundle)
    assert warmed.batching
    assert all(0 < curve.expect(1) < 1e6 for curve in warmed.curves.values())


def test_a_model_that_fails_on_its_own_recorded_rows_does_not_go_live(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    bundle = with_samples(bundles[0], tmp_path / "b", x=np.ones((5, 7), np.float32))
    with Model(bundle) as model, pytest.raises(InferenceFailed, match="recorded rows"):
        warm_up(model, bundle)


def test_recorded_text_is_bytes_and_rows_of_other_inputs_are_not_used(
    bundles: tuple[Bundle, ...], tmp_path: Path
) -> None:
    every = bundles[1]
    rows = {
        s.name: np.array([b"a", b"b"], dtype=object) if s.datatype is Datatype.BYTES else np.zeros(2)
        for s in every.manifest.inputs
    }
    found = sample_rows(with_samples(every, tmp_path / "good", **rows))
    assert found is not None
    assert found["bytes"].tolist() == [b"a", b"b"]
    assert found["int8"].dtype == np.int8
    assert sample_rows(with_samples(every, tmp_path / "other", nope=np.zeros(2))) is None


def test_made_up_rows_fit_every_datatype(bundles: tuple[Bundle, ...]) -> None:
    rows = made_up_rows(bundles[1].manifest.inputs)
    for spec in bundles[1].manifest.inputs:
        spec.check(rows[spec.name])
    assert [len(array) for array in take(rows, 3).values()] == [3] * len(rows)


@pytest.mark.parametrize("quantized", [False, True])
def test_requests_do_not_share_a_call_of_a_graph_whose_rows_depend_on_each_other(
    bundles: tuple[Bundle, ...], tmp_path: Path, quantized: bool
) -> None:
    """A dynamically quantized graph scales over a call's rows: one caller's large numbers would blur the others'."""
    from onnxruntime.quantization import quantize_dynamic

    rng = np.random.default_rng(0)
    plain = linear_bundle(tmp_path / "plain", weights=rng.normal(size=(64, 8)), bias=np.zeros(8))
    graph = tmp_path / "model.onnx"
    if quantized:
        quantize_dynamic(plain.file("model.onnx"), graph)
    else:
        graph.write_bytes(plain.file("model.onnx").read_bytes())
    bundle = write_bundle(tmp_path / "bundle", plain.manifest, {"model.onnx": graph})
    bundle = with_samples(bundle, tmp_path / "sampled", x=rng.normal(size=(16, 64)).astype(np.float32))
    with Model(bundle) as model:
        assert warm_up(model, bundle).batching is not quantized
