"""Traces: which requests have one, what it says, and that nobody waits for the collector."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError, InvalidConfig, MissingExtra
from fairway.core.messages import InferRequest
from fairway.serving.app import RunningServer, serve
from fairway.serving.inference import InferenceCore
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_metrics import counts_of, families_of
from fairway.serving.spans import SpanExport, SpanMaker, otlp_exporter
from fairway.serving.telemetry import Telemetry, VersionStats
from fairway.serving.tracer import Trace, Tracer, parse_parent
from fairway.serving.tracing import TraceSettings
from fairway.serving.transports.fastlane import make_protocol
from tests.serving.conftest import request_of
from tests.serving.test_known_heads import BODY, Core, Transport, head

INFER = "/v2/models/linear/infer"
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
PARTS = ["decode", "queue", "engine", "encode"]
LANES = ["fast lane", "starlette", "grpc", "grpc stream"]


class Collector:
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def _take(self, path: str, request: Any) -> None:
        self.paths.add(path)
        for part in request.resource_spans:
            self.resources.append({each.key: each.value.string_value for each in part.resource.attributes})
            self.spans += [span for scope in part.scope_spans for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def requests(self) -> list[Any]:
        """The server spans."""
        return [span for span in self.spans if span.kind == 2]

    def children(self, parent: Any) -> dict[str, Any]:
        """By name."""
        mine = [span for span in self.spans if span.parent_span_id == parent.span_id]
        assert all(span.trace_id == parent.trace_id for span in mine)
        return {span.name: span for span in mine}


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


Send = Callable[..., Any]


@contextmanager
def serving(bundles: Sequence[Bundle], lane: str, **settings: Any) -> Iterator[tuple[RunningServer, Send]]:
    """A server, and what sends it a request with headers."""
    more = {"port": 0, "grpc_port": 0, "fast_lane": lane == "fast lane", "trace_rate": 2**31 - 1} | settings
    with serve(list(bundles), settings=ServeSettings(**more)) as running:
        if lane.startswith("grpc"):
            client = triton.InferenceServerClient(f"127.0.0.1:{running.grpc_port}")
            yield running, _over_grpc(client, stream=lane == "grpc stream")
            client.close()
        else:
            with httpx.Client(base_url=running.url, timeout=20) as http:
                yield (
                    running,
                    lambda rows=1, model="linear", **headers: http.post(
                        f"/v2/models/{model}/infer", json=request_of(rows), headers=headers
                    ),
                )


def _over_grpc(client: Any, *, stream: bool) -> Send:
    def send(rows: int = 1, model: str = "linear", **headers: str) -> None:
        tensor = triton.InferInput("x", [rows, 4], "FP32")
        tensor.set_data_from_numpy(np.full((rows, 4), 0.5, np.float32))
        if not stream:
            with nullcontext() if model == "linear" else suppress(triton.InferenceServerException):
                client.infer(model, [tensor], headers=headers)
            return
        came = threading.Event()
        client.start_stream(lambda **_: came.set(), headers=headers)
        client.async_stream_infer(model, [tensor])
        assert came.wait(20)
        client.stop_stream()

    return send


def caller(trace: int = 0xA, span: int = 0xB, flags: str = "01") -> str:
    return f"00-{trace:032x}-{span:016x}-{flags}"


# -- what a trace says


@pytest.mark.parametrize("lane", LANES)
def test_a_request_that_its_caller_traces_is_one_span_of_that_trace_with_its_parts(
    bundles: tuple[Bundle, ...], collector: Collector, lane: str
) -> None:
    before = time.time_ns()
    with serving(bundles, lane, tracing=collector.url) as (_, send):
        for span in (1, 2, 3):
            send(rows=2, traceparent=caller(span=span))
    after = time.time_ns()
    assert collector.paths == {"/v1/traces"}
    served = collector.requests()
    assert sorted(int.from_bytes(span.parent_span_id) for span in served) == [1, 2, 3]
    assert len({span.span_id for span in collector.spans}) == len(collector.spans) == 3 * (1 + len(PARTS))
    for span in served:
        assert (span.name, int.from_bytes(span.trace_id)) == ("infer linear", 0xA)
        parts = collector.children(span)
        assert list(parts) == PARTS
        times = [span.start_time_unix_nano]
        for name in PARTS:
            times += [parts[name].start_time_unix_nano, parts[name].end_time_unix_nano]
        times.append(span.end_time_unix_nano)
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] <= after
        said = attributes(span)
        assert (said["fairway.model"], said["fairway.version"], said["fairway.rows"]) == ("linear", "1", 2)
        assert attributes(parts["engine"]) == {"fairway.batch.requests": 1, "fairway.batch.rows": 2}
        assert "error.type" not in said


@pytest.mark.parametrize("lane", LANES)
def test_the_wire_is_told_by_the_semantic_conventions_and_errors_are_marked(
    bundles: tuple[Bundle, ...], collector: Collector, lane: str
) -> None:
    with serving(bundles, lane, tracing=collector.url) as (running, send):
        send(traceparent=caller())
        send(model="nope", traceparent=caller())
    good, bad = map(attributes, sorted(collector.requests(), key=lambda span: span.start_time_unix_nano))
    assert (bad["error.type"], bad["fairway.model"]) == ("model_not_found", "nope")
    if lane.startswith("grpc"):
        method = f"inference.GRPCInferenceService/{'ModelStreamInfer' if 'stream' in lane else 'ModelInfer'}"
        assert (good["rpc.system.name"], good["rpc.method"]) == ("grpc", method)
        assert (good["rpc.response.status_code"], bad["rpc.response.status_code"]) == ("OK", "NOT_FOUND")
    else:
        assert (good["http.request.method"], good["url.path"]) == ("POST", INFER)
        assert good["http.route"] == "/v2/models/{model}/infer"
        assert (good["server.address"], good["server.port"]) == ("127.0.0.1", running.port)
        assert (good["http.response.status_code"], bad["http.response.status_code"]) == (200, 404)
    assert good["client.address"] == "127.0.0.1"
    assert all(span.status.code == 0 for span in collector.spans)  # a caller's mistake is not the server's failure


def test_requests_that_ran_together_have_the_same_engine_times(
    bundles: tuple[Bundle, ...], collector: Collector
) -> None:
    with serving(bundles, "fast lane", tracing=collector.url) as (running, _):
        core = running.core

        async def both() -> None:
            assert core.tracer is not None
            traces = [core.tracer.begin("linear", caller(span=n).encode()) for n in (1, 2)]
            request = InferRequest("linear", {"x": np.ones((3, 4), np.float32)})
            await asyncio.gather(*(core.infer(request, trace) for trace in traces))
            for trace in traces:
                assert trace is not None
                trace.answered()
                trace.finish({})

        asyncio.run_coroutine_threadsafe(both(), running._loop).result(20)
    one, other = (span for span in collector.spans if span.name == "engine")
    assert attributes(one) == {"fairway.batch.requests": 2, "fairway.batch.rows": 6} == attributes(other)
    assert one.end_time_unix_nano - one.start_time_unix_nano > 0
    assert (
        abs(one.start_time_unix_nano - other.start_time_unix_nano) < 1_000_000
    )  # the clocks' distance is taken for each


def test_an_answer_from_the_cache_has_no_engine_and_those_who_share_a_run_have_one(
    bundles: tuple[Bundle, ...], collector: Collector
) -> None:
    with serving(bundles, "fast lane", tracing=collector.url, cache_bytes=2**20) as (running, send):
        core = running.core

        async def both() -> None:
            assert core.tracer is not None
            traces = [core.tracer.begin("linear", caller(span=n).encode()) for n in (1, 2)]
            request = InferRequest("linear", {"x": np.full((1, 4), 0.5, np.float32)})
            await asyncio.gather(*(core.infer(request, trace) for trace in traces))
            for trace in traces:
                assert trace is not None
                trace.finish({})

        asyncio.run_coroutine_threadsafe(both(), running._loop).result(20)
        send(traceparent=caller(span=3))
    by_parent = {int.from_bytes(span.parent_span_id): span for span in collector.requests()}
    assert ["engine" in collector.children(by_parent[n]) for n in (1, 2, 3)] == [True, True, False]
    assert attributes(by_parent[3])["fairway.cached"] is True


def test_a_failure_of_the_server_is_one_of_the_span() -> None:
    kept: list[Trace] = []
    tracer = Tracer(TraceSettings("TIMESTAMPS", 1), kept.append, limit=9)
    trace = tracer.begin("digits", None)
    assert trace is not None
    trace.failed(FairwayError("it broke"))
    trace.finish({})
    whole, *parts = SpanMaker()(kept[0])
    assert (whole.kind, whole.parent, whole.status.status_code) == (SpanKind.SERVER, None, StatusCode.ERROR)
    assert whole.attributes is not None
    assert whole.attributes["error.type"] == FairwayError.code
    assert [part.name for part in parts] == ["decode"]


def test_a_caller_that_leaves_ends_its_span() -> None:
    kept: list[Trace] = []

    class Traced(Core):
        tracer = Tracer(TraceSettings("TIMESTAMPS", 1), kept.append, limit=9)

        def submit(self, *_: object) -> None:
            """It takes its time."""

    async def leave() -> None:
        config = uvicorn.Config(cast(Any, lambda: None), log_config=None)
        config.load()
        protocol = make_protocol(cast(InferenceCore, Traced()), ServeSettings(), stopping=lambda: False)
        loop = asyncio.get_running_loop()
        connection = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        connection.connection_made(cast(Any, Transport()))
        connection.data_received(head(len(BODY)) + BODY)
        await asyncio.sleep(0)  # pipelines begin in a later turn
        connection.connection_lost(None)

    asyncio.run(leave())
    (trace,) = kept
    assert trace.error == "client_disconnected"
    assert "http.response.status_code" not in trace.attributes


# -- which requests have one


@pytest.mark.parametrize("lane", LANES)
def test_who_is_not_sampled_has_no_trace(bundles: tuple[Bundle, ...], collector: Collector, lane: str) -> None:
    with serving(bundles, lane, tracing=collector.url) as (_, send):
        send()
        send(traceparent=caller(flags="00"))
        send(traceparent="nonsense")
    assert collector.spans == []


@pytest.mark.parametrize("lane", LANES)
def test_one_in_so_many_of_those_without_a_trace_begins_one(
    bundles: tuple[Bundle, ...], collector: Collector, lane: str
) -> None:
    with serving(bundles, lane, tracing=collector.url, trace_rate=2) as (_, send):
        for _ in range(4):
            send()
            send(traceparent=caller(flags="00"))  # does not count
    first, second = collector.requests()
    assert first.parent_span_id == second.parent_span_id == b""
    assert len({first.trace_id, second.trace_id}) == 2


def test_the_protocols_trace_settings_decide_the_same(bundles: tuple[Bundle, ...], collector: Collector) -> None:
    options = {"tracing": collector.url, "model_control": True}
    with serving(bundles, "fast lane", **options) as (running, send), httpx.Client(base_url=running.url) as http:
        assert http.get("/v2/trace/setting").json()["trace_level"] == ["TIMESTAMPS"]
        own = "/v2/models/linear/trace/setting"
        assert http.post(own, json={"trace_level": ["OFF"]}).status_code == 200
        send(traceparent=caller(trace=1))
        assert http.post(own, json={"trace_level": ["TIMESTAMPS"], "trace_count": "2"}).status_code == 200
        for trace in (2, 3, 4):
            send(traceparent=caller(trace=trace))
        assert http.get(own).json()["trace_count"] == "0"
        assert http.post(own, json={"trace_count": "-1", "trace_rate": "1"}).status_code == 200
        send()
        assert http.post(own, json=dict.fromkeys(("trace_count", "trace_rate", "trace_level"))).status_code == 200
        send()
        send(traceparent=caller(trace=5))
    *found, random, last = [int.from_bytes(span.trace_id) for span in collector.requests()]
    assert (found, last) == ([2, 3], 5)
    assert random > 5


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_is_read_as_it_was_written(trace: int, span: int, flags: int) -> None:
    assert parse_parent(caller(trace, span, f"{flags:02x}").encode()) == (trace, span, bool(flags & 1))


@pytest.mark.parametrize(
    "wrong",
    [
        caller(trace=0),
        caller(span=0),
        caller(flags="zz"),
        caller().upper(),
        caller() + "-more",
        "ff" + caller()[2:],
        caller()[:-1],
        f" {caller()}",
        caller() + "\n",
        "",
    ],
)
def test_a_traceparent_that_is_not_well_formed_is_none(wrong: str) -> None:
    assert parse_parent(wrong.encode()) is None


def test_a_later_version_of_traceparent_may_say_more() -> None:
    assert parse_parent(b"01" + caller().encode()[2:] + b"-more") == (0xA, 0xB, True)


@given(st.integers(1, 5), st.lists(st.floats(0, 2), max_size=60))
def test_above_the_limit_nobody_is_traced_whoever_asks(limit: int, pauses: list[float]) -> None:
    now = 0.0
    tracer = Tracer(TraceSettings("TIMESTAMPS", 1), lambda _: None, limit=limit, clock=lambda: now)
    times = []
    for pause in pauses:
        now += pause
        if tracer.begin("digits", caller().encode()) is not None:
            times.append(now)
    for first in times:
        assert sum(first <= other <= first + 1 for other in times) <= 2 * limit
    assert len(times) + tracer.over == len(pauses)


def test_without_the_setting_opentelemetry_is_not_even_imported(bundles: tuple[Bundle, ...]) -> None:
    code = (
        "import sys; from fairway.serving.app import serve; from fairway.serving.settings import ServeSettings\n"
        f"with serve({str(bundles[0].path)!r}, settings=ServeSettings(port=0, grpc_port=0)) as running:\n"
        "    assert running.core.tracer is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


# -- where spans go


def test_the_environment_says_where_and_who(
    bundles: tuple[Bundle, ...], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "digits-eu")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with serving(bundles, "fast lane", tracing="otlp") as (_, send):
        send(traceparent=caller())
    (who,) = collector.resources
    assert (who["service.name"], who["deployment.environment.name"]) == ("digits-eu", "test")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with serving(bundles, "fast lane", tracing="otlp") as (running, send):
        send(traceparent=caller())
        assert running.core.tracer is None
    assert len(collector.requests()) == 1


def test_a_path_of_ones_own_is_kept(bundles: tuple[Bundle, ...], collector: Collector) -> None:
    with serving(bundles, "fast lane", tracing=f"{collector.url}/my/traces") as (_, send):
        send(traceparent=caller())
    assert collector.paths == {"/my/traces"}
    assert collector.resources[0]["service.name"] == "fairway"


@pytest.mark.parametrize("wrong", ["localhost:4318", "ftp://a", "http://", "on"])
def test_a_wrong_place_is_refused_at_the_start(bundles: tuple[Bundle, ...], wrong: str) -> None:
    with pytest.raises(InvalidConfig, match=r"tracing.*http://127.0.0.1:4318"):
        serve(bundles[0], settings=ServeSettings(port=0, tracing=wrong))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"fairway\[tracing\]"):
        otlp_exporter("http://127.0.0.1:1")


def test_a_collector_that_is_away_disturbs_nothing_and_is_told_once(
    bundles: tuple[Bundle, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            serving(bundles, "fast lane", tracing=nowhere) as (running, _),
            httpx.Client(base_url=running.url) as http,
        ):
            for _ in range(20):
                assert http.post(INFER, json=request_of(), headers={"traceparent": caller()}).status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 10  # the exporter alone would try for as long
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name for record in said} <= {"fairway.serving.spans"}
    assert len(said) <= 1


class Stuck(SpanExporter):
    """Exports nothing until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        self.entered.set()
        assert self.go_on.wait(20)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go_on.set()


def finished(count: int) -> list[Trace]:
    kept: list[Trace] = []
    tracer = Tracer(TraceSettings("TIMESTAMPS", 1), kept.append, limit=count)
    for _ in range(count):
        trace = tracer.begin("digits", None)
        assert trace is not None
        trace.finish({})
    return kept


def test_traces_that_nobody_takes_fill_no_memory_and_stopping_waits_a_second_at_most() -> None:
    exporter = Stuck()
    export = SpanExport(exporter, limit=50, every_s=0.001, patience_s=0.01)
    export.start()
    first, *rest = finished(200)
    export.put(first)
    assert exporter.entered.wait(20)
    for trace in rest:
        export.put(trace)
    assert export.dropped == 199 - 50
    export.close()
    assert exporter.go_on.is_set()


def test_what_an_exporter_raises_loses_its_traces_and_nothing_else() -> None:
    class Raising(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            if len(self.get_finished_spans()) < 1:
                super().export(spans[:1])
                raise OSError("away")
            return super().export(spans)

    exporter = Raising()
    export = SpanExport(exporter, every_s=0.001)
    for trace in finished(100):
        export.put(trace)
    export.start()
    export.close()
    assert (export.exported, export.dropped) == (68, 32)
    assert len({span.context.span_id for span in exporter.get_finished_spans()}) == 1 + 2 * 68


# -- logs and metrics


@pytest.mark.parametrize("lane", LANES[:3])
@pytest.mark.parametrize("sampled", [True, False])
def test_the_line_of_a_request_names_its_trace(
    bundles: tuple[Bundle, ...], collector: Collector, caplog: pytest.LogCaptureFixture, lane: str, sampled: bool
) -> None:
    with (
        caplog.at_level(logging.INFO, "fairway.access"),
        serving(bundles, lane, tracing=collector.url) as (_, send),
    ):
        send(traceparent=caller(flags="01" if sampled else "00"))
        send()
    mine, other = (vars(record) for record in caplog.records if record.name == "fairway.access")
    assert mine["trace.id"] == f"{0xA:032x}"
    assert mine.get("span.id") == (collector.requests()[0].span_id.hex() if sampled else None)
    assert "trace.id" not in other


def test_exemplars_lead_from_a_bucket_to_a_trace_in_open_metrics_only(
    bundles: tuple[Bundle, ...], collector: Collector
) -> None:
    with (
        serving(bundles, "fast lane", tracing=collector.url) as (running, send),
        httpx.Client(base_url=running.url) as http,
    ):
        send()
        send(traceparent=caller())
        plain, asked = http.get("/metrics"), http.get("/metrics", headers=OPENMETRICS)
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(asked.text)}  # type: ignore[no-untyped-call]
    (found,) = [s for s in families["fairway_infer_duration_seconds"].samples if s.exemplar is not None]
    assert found.exemplar is not None
    assert found.exemplar.labels == {"trace_id": f"{0xA:032x}", "span_id": collector.requests()[0].span_id.hex()}
    assert 0 < found.exemplar.value <= float(found.labels["le"])


def test_exemplars_of_the_worker_that_answers_are_among_the_numbers_of_all() -> None:
    telemetry = Telemetry()
    stats = telemetry.versions["digits", "1"] = VersionStats("digits", "1")
    stats.seconds.observe(0.003)
    stats.seconds.exemplify(0.003, "a" * 32, "b" * 16)
    counts = counts_of(telemetry.collect())
    doubled = {key: 2 * value for key, value in counts.items()}
    families = {family.name: family for family in families_of(doubled, telemetry.collect())}
    (found,) = [s for s in families["fairway_infer_duration_seconds"].samples if s.exemplar is not None]
    assert (found.labels["le"], found.value) == ("0.005", 2)


def test_metrics_are_named_as_prometheus_asks() -> None:
    telemetry = Telemetry()
    telemetry.versions["digits", "1"] = VersionStats("digits", "1")
    for family in telemetry.collect():
        assert family.documentation
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info", f"_{family.type}"))
        assert not {"ms", "us", "ns", "milliseconds", "mb", "percent"} & set(family.name.split("_"))
        if {"duration", "load"} & set(family.name.split("_")):
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total")


def test_traces_are_counted(bundles: tuple[Bundle, ...], collector: Collector) -> None:
    with (
        serving(bundles, "fast lane", tracing=collector.url, trace_limit=1) as (running, send),
        httpx.Client(base_url=running.url) as http,
    ):
        for _ in range(3):
            send(traceparent=caller())
        deadline = time.monotonic() + 20
        while "fairway_traces_exported_total 0" in (text := http.get("/metrics").text):
            assert time.monotonic() < deadline
        assert "fairway_traces_exported_total 1.0" in text
        assert 'fairway_traces_dropped_total{reason="over_limit"} 2.0' in text
