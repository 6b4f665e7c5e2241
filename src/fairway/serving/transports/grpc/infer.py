"""``ModelInfer`` and ``ModelStreamInfer``: decode, call the core, encode."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from fairway.core.errors import DeadlineExceeded, FairwayError, InvalidRequest, ModelNotReady
from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.queues import Cancellable
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.tracer import Trace
from fairway.serving.transports.grpc import base, messages
from fairway.serving.transports.grpc.accesslog import LoggedCall
from fairway.serving.transports.grpc.decoding import Decoder
from fairway.serving.transports.grpc.encoding import Encoder, parameter_fields
from fairway.serving.transports.grpc.wireform import delimited
from fairway.serving.transports.pinning import pinned
from fairway.serving.transports.rest import ROUTE_KEY
from fairway.serving.transports.traced import PARENT
from fairway.serving.transports.v2 import OutputOptions

log = logging.getLogger(__name__)

Encode: TypeAlias = Callable[[InferResponse, bytes], bytes]
"""An answer to bytes, with more fields for it."""

IN_FLIGHT = 64
"""Requests of one stream that may run at the same time."""

_ROUTE_KEY = ROUTE_KEY.encode()
_UNARY = f"{messages.INFERENCE}/ModelInfer"
_STREAM = f"{messages.INFERENCE}/ModelStreamInfer"
_ERRORS_END = b"triton_grpc_error"


class Infer:
    """The handlers of inference.

    Parameters
    ----------
    core : InferenceCore
    shared_memory : SharedMemory or None
        ``None``: requests that use it are refused.
    """

    def __init__(self, core: InferenceCore, shared_memory: SharedMemory | None = None) -> None:
        self._core = core
        self._decoder = Decoder(shared_memory)
        self._encoder = Encoder(shared_memory)
        self._encode: Encode = self._encoder.encode
        self._request = messages.message("inference.ModelInferRequest")
        self._reading: set[asyncio.Task[None]] = set()
        self._finished = False
        self._final = parameter_fields({"triton_final_response": True})

    def unary(self, message: bytes, call: base.Call) -> None:
        """``ModelInfer``. Makes no task: the scheduler's callback answers."""
        deadline_s = call.deadline_s
        arrived = 0.0 if self._core.tracer is None else time.perf_counter()
        trace: Trace | None = None
        try:
            if deadline_s is not None and deadline_s <= 0:
                raise DeadlineExceeded("the call's deadline had passed when it arrived; allow more time")
            request, options = self._decoder.decode(message, route_key(call), deadline_s)
            if arrived:
                trace = self._begin(call, request.model, arrived)
            encode = self._encode
            if options is not None:
                request, encode = self._special(request, options)
        except FairwayError as error:
            self._core.telemetry.rejected[error.code] += 1
            if arrived:
                trace = trace or self._begin(call, "", arrived)
            self._fail(call, error, trace)
            return
        ticket = self._core.submit(request, partial(self._answer, call, encode, trace), trace)
        if ticket is not None:
            call.on_cancel = ticket.cancel if trace is None else partial(_left, ticket, trace, call)

    async def stream(self, incoming: AsyncIterator[bytes], call: base.Call) -> None:
        """``ModelStreamInfer``. Requests run at the same time; their answers come in the order of the requests."""
        if self._finished:
            raise stopping()
        waiting: asyncio.Queue[_Streamed | None] = asyncio.Queue()
        room = asyncio.Semaphore(IN_FLIGHT)
        reading = asyncio.create_task(self._read(incoming, waiting, room, call))
        reading.add_done_callback(lambda _: waiting.put_nowait(None))  # also of one that is cancelled before it began
        self._reading.add(reading)
        errors_end = call.metadata.get(_ERRORS_END) == b"true"
        streamed: _Streamed | None = None
        try:
            while (streamed := await waiting.get()) is not None:
                outcome = await streamed.outcome
                if streamed.trace is not None:
                    streamed.trace.answered()
                    if isinstance(outcome, FairwayError):
                        streamed.trace.failed(outcome)
                if errors_end and isinstance(outcome, FairwayError):
                    raise outcome
                await call.send(self._streamed(streamed, outcome))
                if streamed.trace is not None:
                    streamed.trace.finish(_seen(call, _STREAM, _status(outcome)))
                    streamed.trace = None
                room.release()
            if reading.cancelled():
                raise stopping()
            await reading  # what ended it
        finally:
            reading.cancel()
            self._reading.discard(reading)
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # it is raised above, unless something else ended the stream first
            for each in (streamed, *(waiting.get_nowait() for _ in range(waiting.qsize()))):
                if each is not None:
                    each.cancel()
                    if each.trace is not None:
                        each.trace.lost(_seen(call, _STREAM, base.CANCELLED))

    def finish(self) -> None:
        """Take no more requests from streams, nor any new stream, and end each when what it has taken is answered."""
        self._finished = True
        for reading in self._reading:
            reading.cancel()

    async def _read(
        self,
        incoming: AsyncIterator[bytes],
        waiting: asyncio.Queue[_Streamed | None],
        room: asyncio.Semaphore,
        call: base.Call,
    ) -> None:
        """Start each request as it comes, as long as there is room for its answer; a ``None`` follows the last."""
        async for message in incoming:
            await room.acquire()
            waiting.put_nowait(self._start(message, call))

    def _start(self, message: bytes, call: base.Call) -> _Streamed:
        started = _Streamed(self._encode, asyncio.get_running_loop().create_future())
        arrived = 0.0 if self._core.tracer is None else time.perf_counter()
        try:
            request, options = self._decoder.decode(message, route_key(call))
            started.identity = request.id or ""
            if arrived:
                started.trace = self._begin(call, request.model, arrived)
            if options is not None:
                request, started.encode = self._special(request, options)
        except FairwayError as error:
            self._core.telemetry.rejected[error.code] += 1
            with contextlib.suppress(InvalidRequest):  # not even a message
                started.identity = messages.parse(self._request, message).id
            started.done(error)
            return started
        started.ticket = self._core.submit(request, started.done, started.trace)
        return started

    def _special(self, request: InferRequest, options: Sequence[OutputOptions]) -> tuple[InferRequest, Encode]:
        """The request for the very version whose labels are used, and how its answer is encoded."""
        request, known = pinned(self._core.models, request, options)
        encode = partial(self._encoder.encode_special, options=options, labels=known.labels, batched=known.batching)
        return request, encode

    def _answer(self, call: base.Call, encode: Encode, trace: Trace | None, outcome: Outcome) -> None:
        if trace is not None:
            trace.answered()
        encoded = _encoded(encode, outcome, b"")
        if not isinstance(encoded, bytes):
            self._fail(call, encoded, trace)
            return
        call.reply(encoded)
        if trace is not None:
            trace.finish(_seen(call, _UNARY, base.OK))

    def _fail(self, call: base.Call, error: FairwayError, trace: Trace | None) -> None:
        fail(call, error)
        if trace is not None:
            trace.failed(error)
            trace.finish(_seen(call, _UNARY, base.failure(error).status))

    def _begin(self, call: base.Call, model: str, arrived: float) -> Trace | None:
        tracer = self._core.tracer
        assert tracer is not None
        trace = tracer.begin(model, call.metadata.get(PARENT), arrived)
        if trace is not None:
            trace.decoding = arrived  # the model was not known before
            if isinstance(call, LoggedCall):
                call.trace = trace.ids
        return trace

    def _streamed(self, streamed: _Streamed, outcome: Outcome) -> bytes:
        encoded = _encoded(streamed.encode, outcome, self._final)
        if isinstance(encoded, bytes):
            return delimited(2, encoded)
        text = str(encoded).encode(errors="replace")
        identity = streamed.identity.encode()
        return delimited(1, text) + delimited(2, delimited(3, identity) if identity else b"")


class _Streamed(msgspec.Struct, eq=False):
    """One request of a stream."""

    encode: Encode
    outcome: asyncio.Future[Outcome]
    identity: str = ""
    ticket: Cancellable | None = None
    trace: Trace | None = None

    def done(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def cancel(self) -> None:
        if self.ticket is not None:
            self.ticket.cancel()


def route_key(call: base.Call) -> str | None:
    """Whose callers stay with one version."""
    key = call.metadata.get(_ROUTE_KEY)
    return None if key is None else key.decode("latin-1")


def fail(call: base.Call, error: FairwayError) -> None:
    """End a unary call with an error."""
    how = base.failure(error)
    call.fail(how.status, how.text, how.metadata)


def _seen(call: base.Call, method: str, status: int) -> dict[str, Any]:
    """A server span's attributes, by OpenTelemetry's semantic conventions for RPC."""
    address, _, port = call.peer.rpartition(":")
    said: dict[str, Any] = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": base.STATUS_NAMES[status],
    }
    if port.isdecimal():
        said |= {"client.address": address.strip("[]"), "client.port": int(port)}
    return said


def _status(outcome: Outcome) -> int:
    return base.failure(outcome).status if isinstance(outcome, FairwayError) else base.OK


def _left(ticket: Cancellable, trace: Trace, call: base.Call) -> None:
    """The caller of a traced request has left."""
    ticket.cancel()
    if not trace.ended:
        trace.lost(_seen(call, _UNARY, base.CANCELLED))


def stopping() -> FairwayError:
    """What the callers of streams are told when the server ends."""
    return ModelNotReady("the server is stopping; open the stream anew, on another")


def bug() -> FairwayError:
    """What a caller is told when the fault is ours; the log has the rest."""
    return FairwayError("the server failed on this request; its log says why")


def _encoded(encode: Encode, outcome: Outcome, extra: bytes) -> bytes | FairwayError:
    if isinstance(outcome, FairwayError):
        return outcome
    try:
        return encode(outcome, extra)
    except FairwayError as error:
        return error
    except Exception:
        log.exception("answer_not_encoded")
        return bug()
