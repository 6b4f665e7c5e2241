"""Traces become OpenTelemetry's spans, and go to a collector: on a thread of its own, which no request waits for."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.serving.tracer import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

ENVIRONMENT = "otlp"
_PATH = "/v1/traces"
_THREAD = "fairway-spans"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_PER_EXPORT = 32
_EVERY_S = 1.0
_SAY_EVERY_S = 60.0


def otlp_exporter(where: str) -> SpanExporter | None:
    """OpenTelemetry's own exporter of OTLP over HTTP; ``None`` if ``OTEL_SDK_DISABLED`` is set.

    Parameters
    ----------
    where : str
        A collector's URL, to which ``/v1/traces`` is added if it has no path, or ``otlp`` for what the environment says.

    Raises
    ------
    InvalidConfig
        If it is neither.
    MissingExtra
        If OpenTelemetry is not installed.
    """
    endpoint: str | None = None
    if where != ENVIRONMENT:
        url = urlsplit(where)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise InvalidConfig(
                f"tracing is {where!r} in [serve]; give a collector's URL, such as http://127.0.0.1:4318, or {ENVIRONMENT!r} "
                "for what the OTEL_EXPORTER_OTLP_* variables say"
            )
        endpoint = where if url.path.strip("/") else url._replace(path=_PATH).geturl()
    module = require(f"{_EXPORTER}.trace_exporter", extra="tracing")
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        exporter: SpanExporter = module.OTLPSpanExporter(endpoint=endpoint)
    except (ValueError, OSError) as error:  # of a variable of the environment
        raise InvalidConfig(f"the OTEL_EXPORTER_OTLP_* variables are wrong: {error}") from error
    return exporter


def resource() -> Resource:
    """Who makes the spans: what ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` say, else ``fairway``."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {
        "service.name": "fairway",
        "service.version": importlib.metadata.version("fairway"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


class SpanExport:
    """Takes finished traces, and exports their spans.

    What the collector does not take in time is dropped and counted; a line in the log says so, once a minute at most.

    Parameters
    ----------
    exporter : SpanExporter
    limit : int
        Traces that may wait.
    every_s : float
        How often waiting traces are exported.
    patience_s : float
        How long :meth:`close` waits for the last export.

    Attributes
    ----------
    exported, dropped : int
        Traces that the collector took, and those it did not.
    """

    def __init__(
        self, exporter: SpanExporter, *, limit: int = 2048, every_s: float = _EVERY_S, patience_s: float = 1.0
    ) -> None:
        self.exported = 0
        self.dropped = 0
        self._exporter = exporter
        self._limit = limit
        self._every_s = every_s
        self._patience_s = patience_s
        self._waiting: deque[Trace] = deque()
        self._full = 0
        self._failed = 0
        self._said = -_SAY_EVERY_S
        self._told = 0
        self._ending = threading.Event()
        self._make = SpanMaker()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def put(self, trace: Trace) -> None:
        """Take a trace. On the event loop's thread; never waits."""
        if len(self._waiting) >= self._limit:
            self._full += 1
        else:
            self._waiting.append(trace)
        self.dropped = self._full + self._failed

    def close(self) -> None:
        """Export what is left, if the collector takes it in time."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(self._patience_s)
        self._exporter.shutdown()

    def _run(self) -> None:
        with _quiet():
            while not self._ending.wait(self._every_s):
                self._flush()
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            count = min(len(self._waiting), _PER_EXPORT)
            traces = [self._waiting.popleft() for _ in range(count)]
            if self._export(traces):
                self.exported += count
            else:
                self._failed += count
                self.dropped = self._full + self._failed
        if self.dropped > self._told and time.monotonic() - self._said >= _SAY_EVERY_S:
            log.warning("traces_dropped", extra={"count": self.dropped - self._told})
            self._said, self._told = time.monotonic(), self.dropped

    def _export(self, traces: list[Trace]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            spans = [span for trace in traces for span in self._make(trace)]
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            log.debug("spans_not_exported", exc_info=True)  # that they were lost is told by the number of them
            return False


class SpanMaker:
    """Makes the spans of a trace: one for the request, and one each for decode, load, queue, engine calls and encode.

    An engine call that several traced requests share is a span in each of their traces, with the same times.
    """

    def __init__(self) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._resource = resource()
        self._scope = InstrumentationScope("fairway.serving", importlib.metadata.version("fairway"))
        self._bits = random.Random().getrandbits  # noqa: S311 (ids are no secrets)

    def __call__(self, trace: Trace) -> list[ReadableSpan]:
        """All spans of ``trace``, the request's first."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        zero_ns = time.time_ns() - time.perf_counter_ns()  # one for all, so that they nest whatever the clock does

        def span(
            name: str, span_id: int, parent: int, times: tuple[float, float], attributes: dict[str, Any]
        ) -> ReadableSpan:
            server = span_id == trace.span_id
            bad = trace.fault and server
            sampled = TraceFlags(TraceFlags.SAMPLED)
            return ReadableSpan(
                name,
                context=SpanContext(trace.trace_id, span_id, is_remote=False, trace_flags=sampled),
                parent=SpanContext(trace.trace_id, parent, is_remote=server, trace_flags=sampled) if parent else None,
                resource=self._resource,
                attributes=attributes,
                kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, trace.error) if bad else Status(),
                start_time=zero_ns + round(times[0] * 1e9),
                end_time=zero_ns + round(times[1] * 1e9),
                instrumentation_scope=self._scope,
            )

        whole = span(_name(trace), trace.span_id, trace.parent_id, (trace.arrived, trace.ended), _attributes(trace))
        return [
            whole,
            *(span(name, self._bits(64) or 1, trace.span_id, (a, b), more) for name, a, b, more in _parts(trace)),
        ]


def _name(trace: Trace) -> str:
    return f"infer {trace.model}" if trace.model else "infer"


def _attributes(trace: Trace) -> dict[str, Any]:
    ours = {"fairway.model": trace.model, "fairway.version": trace.version, "fairway.rows": trace.rows}
    said: dict[str, Any] = {name: value for name, value in ours.items() if value}
    if trace.version and not trace.calls and not trace.error:
        said["fairway.cached"] = True
    return said | trace.attributes | ({"error.type": trace.error} if trace.error else {})


def _parts(trace: Trace) -> Iterator[tuple[str, float, float, dict[str, Any]]]:
    """Name, start, end and attributes of each part; those that it did not come to are not among them."""
    answered = trace.encoding or trace.ended
    decoded = trace.submitted or answered
    yield "decode", trace.decoding, decoded, {}
    if not trace.submitted:
        if trace.encoding:
            yield "encode", trace.encoding, trace.ended, {}
        return
    if trace.ready:
        yield "load", decoded, trace.ready, {}
    queued = max(decoded, trace.ready)
    first = min((call.started for call in trace.calls), default=answered)
    if trace.calls or trace.error:
        yield "queue", queued, max(queued, first), {}
    for call in trace.calls:
        yield (
            "engine",
            max(queued, call.started),  # it may have joined a run that others began
            max(queued, call.ended),
            {"fairway.batch.requests": call.requests, "fairway.batch.rows": call.rows},
        )
    if trace.encoding:
        yield "encode", trace.encoding, trace.ended, {}


class _FromElsewhere(logging.Filter):
    """Lines of other threads than ours: the exporter says more about a collector that is away than anybody reads."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(f"{_EXPORTER}.trace_exporter")]
    only = _FromElsewhere()
    for logger in loggers:
        logger.addFilter(only)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(only)
