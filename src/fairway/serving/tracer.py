"""One traced request: what it went through, by the clock. Knows nothing of OpenTelemetry, which is asked for later.

A trace is made when its request begins, if it is to be traced at all, and collects a few readings of
:func:`time.perf_counter`. When the answer is written it is handed over as it is; spans are made of it on another thread.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from fairway.core.errors import FairwayError
from fairway.serving.joining import Run
from fairway.serving.queues import Job
from fairway.serving.status import is_fault_of_server
from fairway.serving.tracing import TraceSettings

_FORM = re.compile(rb"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_BYTES = 55
_HEX = b"0123456789abcdef"
_ODD = b"13579bdf"
_DASH = 0x2D


def parse_parent(header: bytes) -> tuple[int, int, bool] | None:
    """What a ``traceparent`` header says: trace, span, and whether it is traced; ``None`` if it is to be ignored.

    References
    ----------
    W3C Trace Context, https://www.w3.org/TR/trace-context/, section 3.2.

    Examples
    --------
    >>> parse_parent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    (14576827793038113322513871894673895836, 13235353014750950193, True)
    >>> parse_parent(b"00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    True
    """
    if len(header) == _BYTES and header[:3] == b"00-":  # told without the slower expression
        if header.translate(None, _HEX) != b"---" or not header[35] == header[52] == _DASH:
            return None
    elif header.startswith(b"00") or _FORM.fullmatch(header) is None:
        return None
    trace_id, span_id = int(header[3:35], 16), int(header[36:52], 16)
    return (trace_id, span_id, header[54] in _ODD) if trace_id and span_id else None


def caller_ids(header: bytes | None) -> tuple[str, str] | None:
    """The trace of a request that is not traced here, for its line in the log; it has no span."""
    said = parse_parent(header) if header else None
    return None if said is None else (f"{said[0]:032x}", "")


class EngineCall(NamedTuple):
    """One run that a request was part of; ``started`` and ``ended`` are on the clock of the trace."""

    started: float
    ended: float
    requests: int
    rows: int


class Exemplified(Protocol):
    """Keeps one traced request for each of its buckets."""

    def exemplify(self, value: float, trace_id: str, span_id: str) -> None:
        """``value``, which is counted already, is of this trace."""
        ...


class Trace(msgspec.Struct, eq=False):
    """One request that is traced.

    Attributes
    ----------
    trace_id, span_id, parent_id : int
        Of its server span; ``parent_id`` is 0 without a caller's span.
    arrived, decoding, submitted, encoding, ended : float
        When it came, when the decoder began and was done, when the answer was there, when it was written. 0: it never was.
    ready : float
        When the version that it waited for was loaded, 0 if it was loaded before.
    calls : list of EngineCall
        One for each piece of a request that was cut.
    latency_s : float
        As counted in the histogram, 0 if no engine ran.
    """

    tracer: Tracer
    model: str
    trace_id: int
    span_id: int
    parent_id: int
    arrived: float
    decoding: float
    version: str = ""
    rows: int = 0
    submitted: float = 0.0
    ready: float = 0.0
    calls: list[EngineCall] = []
    latency_s: float = 0.0
    encoding: float = 0.0
    ended: float = 0.0
    error: str = ""
    fault: bool = False
    attributes: dict[str, Any] = {}
    histogram: Exemplified | None = None

    @property
    def ids(self) -> tuple[str, str]:
        """Trace and span, as they are written."""
        return f"{self.trace_id:032x}", f"{self.span_id:016x}"

    def decoded(self) -> None:
        """The request is understood, and handed to the core."""
        self.submitted = self.submitted or time.perf_counter()

    def loaded(self) -> None:
        """The version that it waited for is there."""
        self.ready = time.perf_counter()

    def scheduled(self, version: str, rows: int, histogram: Exemplified, job: Job) -> None:
        """The core gave it to the scheduler of ``version``, as ``job``."""
        self.version, self.rows, self.histogram = version, rows, histogram
        if job.owner is not None:
            job.owner.watch(job, self)

    def ran(self, run: Run, requests: int, rows: int, now: float, arrived: float) -> None:
        """An engine call ended whose caller came at ``arrived``."""
        spent = run.input_s + run.infer_s + run.output_s
        call = EngineCall(run.started, run.started + spent if run.outputs is not None else now, requests, rows)
        self.calls.append(call)
        self.latency_s = now - arrived

    def answered(self) -> None:
        """There is an answer, or an error: it is encoded from now on."""
        self.encoding = time.perf_counter()

    def failed(self, error: FairwayError) -> None:
        """Its answer is ``error``."""
        self.error, self.fault = error.code, is_fault_of_server(error)

    def finish(self, attributes: dict[str, Any]) -> None:
        """The answer is written; ``attributes`` are of its wire. Once."""
        self.ended = time.perf_counter()
        self.attributes = attributes
        if self.latency_s and self.histogram is not None:
            self.histogram.exemplify(self.latency_s, *self.ids)
        self.histogram = None
        self.tracer.finished(self)

    def lost(self, attributes: dict[str, Any]) -> None:
        """The caller left before its answer."""
        self.error = self.error or "client_disconnected"
        self.finish(attributes)


class Tracer:
    """Decides which requests are traced. For the event loop's thread only.

    A request is traced if its model's ``trace_level`` is on, and ``trace_count`` is not used up, and its caller traces it or,
    if its caller says nothing, it is the next of ``trace_rate``. Above ``limit`` per second it is not, whoever asks.

    Parameters
    ----------
    settings : TraceSettings
    finished : callable
        Takes a trace that has come to its end. Must neither wait nor raise.
    limit : int
        Traces per second.
    clock : callable
        Seconds; the scheduler's clock.

    Attributes
    ----------
    over : int
        Requests that were not traced because of ``limit``.
    """

    def __init__(
        self,
        settings: TraceSettings,
        finished: Callable[[Trace], None],
        *,
        limit: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.finished = finished
        self.over = 0
        self._settings = settings
        self._limit = limit
        self._left = float(limit)
        self._refilled = clock()
        self._clock = clock
        self._bits = random.Random().getrandbits  # noqa: S311 (ids are no secrets)

    def begin(self, model: str, parent: bytes | None, arrived: float = 0.0) -> Trace | None:
        """The trace of a request for ``model`` that has come at ``arrived`` (now, if 0), ``None`` if it is not traced.

        ``parent`` is its ``traceparent`` header.
        """
        settings = self._settings
        if not settings.on:
            return None
        said = parse_parent(parent) if parent else None
        if said is None:
            if not settings.sampled(model):
                return None
        elif not (said[2] and settings.continued(model)):
            return None
        now = self._clock()
        if not self._room(now):
            self.over += 1
            return None
        trace_id, parent_id = said[:2] if said is not None else (self._bits(128) or 1, 0)
        return Trace(self, model, trace_id, self._bits(64) or 1, parent_id, arrived or now, now)

    def _room(self, now: float) -> bool:
        """A bucket of one second's traces."""
        self._left = min(float(self._limit), self._left + (now - self._refilled) * self._limit)
        self._refilled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
