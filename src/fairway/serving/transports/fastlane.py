"""A lane of its own for infer requests, which never become ASGI calls: decode, call the core, encode, write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from fairway.core.errors import FairwayError
from fairway.core.messages import InferResponse
from fairway.serving.access_lines import AnswerLog
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.tracer import Tracer, caller_ids
from fairway.serving.transports import traced
from fairway.serving.transports.bodies import (
    LARGE,
    chosen_encoding,
    compress,
    decompress,
    decompress_small,
    encoded,
)
from fairway.serving.transports.codec import Codec
from fairway.serving.transports.exchange import Exchange
from fairway.serving.transports.heads import ENCODING
from fairway.serving.transports.reading import Reading, TurnClock
from fairway.serving.transports.rest import error_response
from fairway.serving.transports.v2 import Buffer
from fairway.serving.transports.v2json import decode_request, encode_response

log = logging.getLogger(__name__)

_JSON = b"content-type: application/json\r\n"
_SMALL = 16384


class FairwayProtocol(Reading):
    """One connection. Use :func:`make_protocol`, which binds the server's parts."""

    core: InferenceCore
    codec: Codec
    tracer: Tracer | None
    answers: AnswerLog | None
    beginning: tuple[Any, bytes, bytes] = (None, b"", b"")

    def _run(self, exchange: Exchange) -> None:
        """Decode and submit."""
        tracer = self.tracer
        if tracer is not None and exchange.head.model and not exchange.inflated:
            parent = exchange.parent or exchange.head.parent
            exchange.trace = tracer.begin(exchange.head.model, parent, exchange.arrived / 1e9)
        try:
            if exchange.refused is not None:
                raise exchange.refused
            head, body = exchange.head, exchange.body
            exchange.body = b""
            if head.plain:
                elsewhere = self.codec.elsewhere
                request, reply = decode_request(body, head.model, head.version, head.route_key, elsewhere)
                if reply is not None:
                    request, exchange.reply = self.codec.labelled(request, reply)
            elif head.json_size:
                decode = self.codec.decode_binary
                request, exchange.reply = decode(body, head.json_size, head.model, head.version, head.route_key)
            else:
                codec = self.codec
                if not exchange.inflated and (encoding := head.headers.get(ENCODING)) is not None:
                    content = decompress_small(bytes(body), encoding, self.settings.max_body_bytes)
                    if content is None:
                        self._inflate(exchange, bytes(body), encoding)
                        return
                    body = content
                request, exchange.reply = codec.decode(body, head.headers, head.model, head.version, head.route_key)
        except FairwayError as error:
            self.core.telemetry.rejected[error.code] += 1
            self.answer(exchange, error)
            return
        except Exception:
            log.exception("decoding_failed")
            self.answer(exchange, FairwayError("the server failed on this request; its log says why"))
            return
        ticket = self.core.submit(request, exchange.answered, exchange.trace)
        if not exchange.response_complete:
            exchange.ticket = ticket

    def _inflate(self, exchange: Exchange, body: bytes, encoding: bytes) -> None:
        """Decompress a large body on a thread. Meanwhile it is still this exchange's turn."""
        limit = self.settings.max_body_bytes
        self._on_thread(exchange, partial(decompress, body, encoding, limit), self._inflated)

    def _inflated(self, exchange: Exchange, content: bytes | FairwayError) -> None:
        exchange.inflated = True
        if isinstance(content, FairwayError):
            exchange.refused = content
        else:
            exchange.body = content
        self._run(exchange)

    def _on_thread(
        self, exchange: Exchange, call: Callable[[], bytes], then: Callable[[Exchange, bytes | FairwayError], None]
    ) -> None:
        """Have ``call`` made, and go on with what it gives unless the client has left."""

        def done(working: asyncio.Future[bytes]) -> None:
            exchange.ticket = None
            if working.cancelled() or exchange.disconnected:
                return
            error = working.exception()
            if error is None:
                then(exchange, working.result())
            elif isinstance(error, FairwayError):
                then(exchange, error)
            else:
                log.error("body_failed", exc_info=error)
                then(exchange, FairwayError("the server failed on this request; its log says why"))

        exchange.ticket = working = self.loop.run_in_executor(None, call)
        working.add_done_callback(done)

    def answer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Encode and write."""
        exchange.ticket = None  # it holds this exchange: without the circle, both are freed at once
        # What broke the connection is told only after this turn of the loop.
        if exchange.response_complete or exchange.disconnected or self.transport.is_closing():
            return
        if exchange.trace is not None:
            exchange.trace.answered()
        status, extra = 200, _JSON
        rest: Sequence[Buffer] = ()
        if isinstance(outcome, InferResponse):
            try:
                if exchange.reply is None and not exchange.head.accepts:
                    body = encode_response(outcome)
                else:
                    fields, body, rest = self.codec.encode(outcome, exchange.reply)
                    size = len(body) + sum(map(len, rest))
                    if encoding := chosen_encoding(exchange.head.accepts, size):
                        fields |= encoded(encoding)
                        if size > LARGE:
                            self._deflate(exchange, fields, (body, *rest), encoding)
                            return
                        body, rest = compress((body, *rest), encoding), ()
                    extra = b"".join(b"%b: %b\r\n" % field for field in fields.items())
            except FairwayError as error:
                outcome = error
            except Exception:
                log.exception("encoding_failed")
                outcome = FairwayError("the server failed on this answer; its log says why")
        if isinstance(outcome, FairwayError):
            status, headers, body = error_response(outcome)
            status = exchange.status or status
            extra = _JSON + b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
            rest = ()
            if exchange.trace is not None:
                exchange.trace.failed(outcome)
        self._write(exchange, status, extra, body, rest)

    def _deflate(
        self, exchange: Exchange, fields: dict[bytes, bytes], parts: Sequence[Buffer], encoding: bytes
    ) -> None:
        """Compress a large answer on a thread, and write it."""
        extra = b"".join(b"%b: %b\r\n" % field for field in fields.items())

        def deflated(exchange: Exchange, body: bytes | FairwayError) -> None:
            if isinstance(body, FairwayError):
                self.answer(exchange, body)
            elif not self.transport.is_closing():
                self._write(exchange, 200, extra, body, ())

        self._on_thread(exchange, partial(compress, parts, encoding), deflated)

    def _write(self, exchange: Exchange, status: int, extra: bytes, body: bytes, rest: Sequence[Buffer]) -> None:
        """``body`` and ``rest``: the body in pieces, which are not copied unless they are small."""
        size = len(body) + sum(map(len, rest)) if rest else len(body)
        if rest and size <= _SMALL:  # one piece is written with less ado
            body, rest = b"".join((body, *rest)), ()
        if exchange.keep_alive and self.stopping():
            exchange.keep_alive = False
        if not exchange.keep_alive:
            extra += b"connection: close\r\n"
        said, usual, defaults = self.beginning
        if said is not self.server_state.default_headers:  # uvicorn makes them anew each second, for the date
            said = self.server_state.default_headers
            defaults = b"".join(b"%b: %b\r\n" % header for header in said)
            usual = b"%b%b%bcontent-length: " % (STATUS_LINE[200], defaults, _JSON)
            type(self).beginning = said, usual, defaults
        if status == 200 and extra is _JSON:
            self.transport.write(b"%b%d\r\n\r\n%b" % (usual, size, body))
        else:
            parts = STATUS_LINE[status], defaults, extra, size, body
            self.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % parts)
        if rest:
            self.transport.writelines(rest)
        exchange.response_complete = True
        answers, head = self.answers, exchange.head
        if answers is not None and head.model:
            followed = exchange.trace is not None or exchange.parent or head.parent
            trace = _ids(exchange) if followed else None
            if not answers.waiting:
                self.loop.call_soon(answers.write)
            answers.waiting.append((self.host, head.path, status, exchange.arrived, size, trace))
        if exchange.trace is not None:
            exchange.trace.finish(self._seen(exchange, status))
            exchange.trace = None
        if exchange.keep_alive:
            self._go_on()
        else:
            self._part()

    def _seen(self, exchange: Exchange, status: int) -> dict[str, Any]:
        """What a span says of HTTP."""
        head = exchange.head
        return traced.attributes(
            head.path.decode("latin-1"),
            status,
            host=head.headers.get(b"host", b""),
            client=self.client,
            versioned=head.version,
        )

    def _lost(self, exchange: Exchange) -> None:
        """Its queued work is not done."""
        if exchange.trace is not None:
            exchange.trace.lost(self._seen(exchange, 499))
            exchange.trace = None
        if exchange.ticket is not None:
            exchange.ticket.cancel()


def _ids(exchange: Exchange) -> tuple[str, str] | None:
    """Of its trace, or of its caller's."""
    if exchange.trace is not None:
        return exchange.trace.ids
    parent = exchange.parent or exchange.head.parent
    return caller_ids(parent) if parent else None


def make_protocol(
    core: InferenceCore,
    settings: ServeSettings,
    *,
    stopping: Callable[[], bool],
    memory: SharedMemory | None = None,
) -> type[FairwayProtocol]:
    """The protocol class of one server."""

    class Bound(FairwayProtocol):
        pass

    Bound.core = core
    Bound.settings = settings
    Bound.codec = Codec(core, settings, memory)
    Bound.stopping = staticmethod(stopping)
    Bound.paths = {}
    Bound.heads = {}
    Bound.answers = AnswerLog() if settings.access_log else None
    Bound.clock = TurnClock() if settings.access_log or core.tracer is not None else None
    Bound.tracer = core.tracer
    return Bound
