"""What a server tells: metrics, events, its own description."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fairway.bundle.format import Bundle
from fairway.core.events import Served
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Histogram

INFER = "/v2/models/linear/infer"


class Sink:
    def __init__(self) -> None:
        self.events: list[Served] = []
        self.came = threading.Event()

    def served(self, event: Served) -> None:
        self.events.append(event)
        self.came.set()


def body(rows: int, **more: Any) -> dict[str, Any]:
    data = [[float(n)] * 4 for n in range(rows)]
    return {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}], **more}


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture(params=[True, False], ids=["fast lane", "starlette"])
def http(request: pytest.FixtureRequest, bundles: tuple[Bundle, ...], sink: Sink) -> Iterator[httpx.Client]:
    settings = ServeSettings(port=0, fast_lane=request.param)
    with serve(bundles[0], settings=settings, sink=sink) as server, httpx.Client(base_url=server.url) as client:
        yield client


def samples(http: httpx.Client) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        (sample.name, sample.labels.get("code", sample.labels.get("le", ""))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_requests_rows_errors_and_times_per_version(http: httpx.Client) -> None:
    http.post(INFER, json=body(3))
    http.post(INFER, json=body(2))
    http.post(INFER, json=body(1) | {"outputs": [{"name": "nope"}]})
    http.post(INFER, content=b"{")
    http.post("/v2/models/nope/infer", json=body(1))
    found = samples(http)
    assert found["fairway_infer_requests_total", ""] == 3
    assert found["fairway_infer_rows_total", ""] == 5
    assert found["fairway_infer_errors_total", "invalid_request"] == 1
    assert found["fairway_rejected_requests_total", "invalid_request"] == 1
    assert found["fairway_rejected_requests_total", "model_not_found"] == 1
    assert found["fairway_infer_duration_seconds_count", ""] == 2
    assert 0 < found["fairway_infer_duration_seconds_sum", ""] < 60
    assert found["fairway_batch_rows_sum", ""] == 5
    assert found["fairway_ready", ""] == found["fairway_model_ready", ""] == 1
    assert found["fairway_model_load_seconds", ""] > 0
    assert found["fairway_queue_requests", ""] == 0
    assert found["process_resident_memory_bytes", ""] > 1e6


def test_the_sink_is_told_every_batch_with_what_went_in_and_came_out(http: httpx.Client, sink: Sink) -> None:
    answer = http.post(INFER, json=body(3)).json()
    http.get("/v2/health/live")  # a call is told once its answers have left, and before the server reads on
    (event,) = sink.events
    assert (event.model, event.version, event.rows, event.errors) == ("linear", "1", 3, 0)
    assert event.inputs is not None
    assert event.outputs is not None
    assert event.inputs["x"][:, 0].tolist() == [0, 1, 2]
    assert event.outputs["probabilities"].ravel() == pytest.approx(np.array(answer["outputs"][0]["data"]), rel=1e-6)
    assert len(event.latencies_ms) == 1
    assert event.latencies_ms[0] > 0
    http.post(INFER, json=body(1) | {"outputs": [{"name": "nope"}]})
    assert len(sink.events) == 1  # the caller's fault is no event


@pytest.mark.parametrize("bounds", [(1, 2, 4)])
def test_histogram_bounds_are_inclusive_and_counts_cumulative(bounds: tuple[float, ...]) -> None:
    histogram = Histogram(bounds)
    for value in (1, 2, 2.5, 9):
        histogram.observe(value)
    assert histogram.buckets() == [("1", 1), ("2", 2), ("4", 3), ("+Inf", 4)]
    assert histogram.total == 14.5


def test_the_description_names_every_route_and_every_reference_resolves(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for reference in re.findall(r'"#/components/schemas/(\w+)"', http.get("/openapi.json").text):
        assert reference in document["components"]["schemas"]
    filled = {"{model}": "linear", "{version}": "1", "{region}": "r"}
    bodies = {"infer": body(1), "register": {"key": "k", "byte_size": 1}}
    for path, methods in document["paths"].items():
        target = path
        for name, value in filled.items():
            target = target.replace(name, value)
        for method in methods:
            content = bodies.get(target.rpartition("/")[2], {})
            response = http.request(method, target, json=content if method == "post" else None)
            off = response.status_code == 403 and response.json()["code"] == "not_enabled"
            assert response.status_code == 200 or off, (method, target, response.text)
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_the_docs_page_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page.text)
