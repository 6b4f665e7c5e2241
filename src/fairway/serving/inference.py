"""The core of serving, whatever the wire: validate, schedule, and answer with exactly one version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from fairway.core.errors import FairwayError, InvalidRequest
from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.cold import ColdModel
from fairway.serving.joining import Answer
from fairway.serving.models import Models
from fairway.serving.ondemand import OnDemand
from fairway.serving.queues import Cancellable, Job
from fairway.serving.served import ServedVersion
from fairway.serving.telemetry import Telemetry
from fairway.serving.tracer import Trace, Tracer
from fairway.serving.validation import check_outputs, select

log = logging.getLogger(__name__)

Outcome: TypeAlias = InferResponse | FairwayError
_USUAL = (False, ())
"""The signature of requests to be processed, of a version whose shapes are fixed."""


class Ticket(Job, eq=False, kw_only=True):
    """One accepted request, as the scheduler has it. :meth:`cancel` it when its caller leaves."""

    request: InferRequest
    version: str

    def answered(self, answer: Answer) -> None:
        """The scheduler answers."""
        if isinstance(answer, FairwayError):
            self.done(answer)
            return
        request = self.request
        try:
            outputs = answer if request.outputs is None else select(answer, request.outputs)
            response = InferResponse(request.model, self.version, outputs, request.id)
        except Exception:
            log.exception("answer_not_understood")
            self.done(bug())
            return
        self.done(response)


class Later(msgspec.Struct, eq=False):
    """One request whose version is loaded again first. :meth:`cancel` it when its caller leaves."""

    job: Cancellable | None = None

    def cancel(self) -> None:
        """Do not run the request if it has not run yet, and tell nobody."""
        if self.job is not None:
            self.job.cancel()


class InferenceCore:
    """Answers inference requests. For the event loop's thread only.

    Parameters
    ----------
    models : Models
    telemetry : Telemetry
    """

    def __init__(self, models: Models, telemetry: Telemetry) -> None:
        self.models = models
        self.telemetry = telemetry
        self.tracer: Tracer | None = None
        """Says which requests are traced; ``None`` if tracing is off."""
        self._on_demand = OnDemand(models)
        self._levels = models.settings.priority_levels
        self._told_of_priority = False

    def submit(
        self, request: InferRequest, done: Callable[[Outcome], None], trace: Trace | None = None
    ) -> Cancellable | None:
        """Start a request. ``done`` is called once with its outcome: at once if it is refused, then ``None`` is returned."""
        if trace is not None:
            trace.decoded()
        served: ServedVersion | None = None
        try:
            key = request.route_key if request.route_key is not None else request.id
            served = self.models.resolve(request.model, request.version, key)
            return self._schedule(request, served, done, trace)
        except ColdModel as cold:
            return self._later(request, cold, done, trace)
        except FairwayError as error:
            if served is None:
                self.telemetry.rejected[error.code] += 1
            else:
                served.stats.refused(error)
            done(error)
            return None
        except Exception:
            log.exception("request_not_scheduled")
            done(bug())
            return None

    async def infer(self, request: InferRequest, trace: Trace | None = None) -> InferResponse:
        """Answer a request, or raise its :class:`FairwayError`. Cancelling the call cancels the request."""
        future: asyncio.Future[InferResponse] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if future.done():
                return
            if isinstance(outcome, FairwayError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        ticket = self.submit(request, done, trace)
        try:
            return await future
        except asyncio.CancelledError:
            if ticket is not None:
                ticket.cancel()
            raise

    def _ignore_priority(self, model: str) -> None:
        """Say so, once: whoever sends priorities expects that they do something."""
        if not self._told_of_priority:
            self._told_of_priority = True
            advice = "set priority_levels in [serve] to run requests of higher priority first"
            log.warning("priority_ignored", extra={"model": model, "advice": advice})

    def _later(
        self, request: InferRequest, cold: ColdModel, done: Callable[[Outcome], None], trace: Trace | None
    ) -> Cancellable | None:
        """Answer when the version is loaded again."""
        ticket = Later()

        def failed(error: FairwayError) -> None:
            ticket.job = None
            self.telemetry.rejected[error.code] += 1
            done(error)

        def loaded(served: ServedVersion, took_s: float) -> None:
            if trace is not None:
                trace.loaded()
            ticket.job = self.submit(_later_form(request, served.version, took_s), done, trace)

        try:
            timeout_s = _timeout_s(request.parameters.get("timeout", 0)) if request.parameters else None
            ticket.job = self._on_demand.wait(cold, timeout_s, loaded, failed)
        except FairwayError as error:
            failed(error)
            return None
        return ticket

    def _schedule(
        self, request: InferRequest, served: ServedVersion, done: Callable[[Outcome], None], trace: Trace | None
    ) -> Ticket:
        parameters = request.parameters
        raw, timeout_s, priority = False, None, 0
        if parameters:
            priority = _priority(parameters.get("priority", 0))
            if priority and not self._levels:
                self._ignore_priority(request.model)
            raw = _raw(parameters.get("raw", False)) and served.processed
            timeout_s = _timeout_s(parameters.get("timeout", 0))
        signature = served.raw_signature if raw else served.signature
        rows = signature.check(request.inputs, request.finite)
        if request.outputs is not None:
            check_outputs(served.model.raw_outputs if raw else served.model.outputs, request.outputs)
        ticket = Ticket(request.inputs, rows, done, raw, request=request, version=served.version)
        key = _USUAL if signature.fixed and not raw else (raw, signature.of(request.inputs))
        served.front.submit(ticket, key, timeout_s=timeout_s, priority=priority)
        if trace is not None:
            trace.scheduled(served.version, rows, served.stats.seconds, ticket)
        return ticket


def bug() -> FairwayError:
    """What a caller is told when the fault is ours; the log has the rest."""
    return FairwayError("the server failed on this request; its log says why")


def _later_form(request: InferRequest, version: str, late_s: float) -> InferRequest:
    """The request ``late_s`` after it came, for the version that it has waited for."""
    parameters = request.parameters
    if timeout := parameters.get("timeout", 0):
        parameters = {**parameters, "timeout": max(1, int(timeout - late_s * 1e6))}
    return msgspec.structs.replace(request, version=version, parameters=parameters)


def _raw(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter 'raw' is {value!r}; it is true or false")
    return value


def _priority(value: object) -> int:
    """1 is the highest, and 0 the default, as in Triton."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise InvalidRequest(
            f"parameter 'priority' is {value!r}; it is a whole number, 1 for the highest, 0 for the default"
        )
    return value


def _timeout_s(value: object) -> float | None:
    """``timeout`` is in microseconds, and 0 is none, as in Triton."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise InvalidRequest(f"parameter 'timeout' is {value!r}; it is a whole number of microseconds, 0 for none")
    return value / 1e6 if value else None
