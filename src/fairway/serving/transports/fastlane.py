"""Uvicorn's HTTP protocol with a lane of its own for infer requests, which never become ASGI calls.

Connections, keep-alive, pipelining and every other route stay uvicorn's. An :class:`_Exchange` stands where uvicorn keeps
its request-response cycle, so both kinds queue behind each other in the order in which they came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fairway.core.errors import FairwayError, InvalidRequest, RequestTooLarge
from fairway.core.messages import InferResponse
from fairway.serving.access_lines import AnswerLog, Entry, entry_of
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.queues import Cancellable
from fairway.serving.routing import normal_version
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.tracer import Trace, Tracer, caller_ids
from fairway.serving.transports import traced
from fairway.serving.transports.bodies import (
    LARGE,
    chosen_encoding,
    compress,
    decompress,
    decompress_small,
    encoded,
    too_large,
)
from fairway.serving.transports.codec import Codec
from fairway.serving.transports.elsewhere import BINARY_HEADER
from fairway.serving.transports.rest import ROUTE_KEY, error_response
from fairway.serving.transports.v2 import Buffer, Reply
from fairway.serving.transports.v2json import decode_request, encode_response

log = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = b"content-type: application/json\r\n"
_MAX_PATHS = 1024
_MAX_HEADS = 1024
_MAX_HEAD = 2048
_MAX_DIGITS = 18  # of a number of bytes
_MAX_LINES = 32  # of a head that is kept: hundreds of tiny ones take a hundred times their bytes
_PROGRESS_BYTES = 65536
_ROUTE_KEY = ROUTE_KEY.encode()
_BINARY = BINARY_HEADER.encode()
_ENCODING = b"content-encoding"
_ACCEPTS = b"accept-encoding"
_CHUNKED = b"transfer-encoding"


def infer_target(path: bytes) -> tuple[str, str | None] | None:
    """Model and version of an infer route's path, ``None`` for any other path.

    Examples
    --------
    >>> infer_target(b"/v2/models/digits/versions/01/infer")
    ('digits', '1')
    >>> infer_target(b"/v2/models/digits") is None
    True
    """
    try:
        parts = path.decode("ascii").split("/")
    except UnicodeDecodeError:
        return None
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer" or not all(parts[3:]):
        return None
    if len(parts) == 5:
        return unquote(parts[3]), None
    if len(parts) == 7 and parts[4] == "versions":
        return unquote(parts[3]), normal_version(unquote(parts[5]))
    return None


def _head(model: str, version: str | None, path: bytes, lines: list[tuple[bytes, bytes]]) -> _Head:
    headers = dict(lines)
    for listed in (_ENCODING, _ACCEPTS):  # lines of one name are one list (RFC 9110, 5.3)
        if listed in headers:
            headers[listed] = b",".join(value for name, value in lines if name == listed)
    key = headers.get(_ROUTE_KEY)
    length = -1 if _CHUNKED in headers else int(headers.get(b"content-length", -1))
    plain = _BINARY not in headers and _ENCODING not in headers
    json_size = headers.get(_BINARY, b"") if _ENCODING not in headers else b""
    route_key = None if key is None else key.decode("latin-1")
    return _Head(
        model,
        version,
        path,
        headers,
        length,
        route_key,
        plain,
        headers.get(_ACCEPTS, b""),
        traced.parent(lines),
        int(json_size) if json_size.isdigit() and len(json_size) <= _MAX_DIGITS else 0,
    )


class _NoEvent:
    """Uvicorn wakes its cycles by an event; an exchange needs none."""

    def set(self) -> None:
        """Do nothing."""


_NO_EVENT = _NoEvent()


class _Head(msgspec.Struct, frozen=True, eq=False):
    """What the head of an infer request says.

    ``plain``: its body is V2 JSON as it stands; ``length`` is -1 if not told; ``accepts``: encodings of the answer;
    ``parent``: its ``traceparent``; ``json_size``: how much of its body, which is binary and as it stands, is JSON, 0 if
    that is still to be found out.
    """

    model: str
    version: str | None
    path: bytes
    headers: dict[bytes, bytes] = {}
    length: int = -1
    route_key: str | None = None
    plain: bool = True
    accepts: bytes = b""
    parent: bytes | None = None
    json_size: int = 0


class _Exchange(msgspec.Struct, eq=False):
    """One infer request and its answer; has the attributes that uvicorn's protocol reads of a cycle."""

    protocol: FairwayProtocol
    head: _Head
    keep_alive: bool
    body: bytes | bytearray = b""
    more_body: bool = True
    current: bool = False
    expect_continue: bool = False
    refused: FairwayError | None = None
    status: int = 0  # of the refusal, where it is not the one of its error
    response_complete: bool = False
    disconnected: bool = False
    message_event: _NoEvent = _NO_EVENT
    ticket: Cancellable | asyncio.Future[bytes] | None = None
    inflated: bool = False
    reply: Reply | None = None  # how the answer is wanted, if not as plain JSON
    parent: bytes | None = None  # its traceparent, if the head was found without
    trace: Trace | None = None
    arrived: float = 0.0  # where somebody wants to know

    def answered(self, outcome: Outcome) -> None:
        """The core answers."""
        self.protocol._answer(self, outcome)


class _Flow(FlowControl):
    """Reads no further while requests wait in the pipeline, or answers for their reader: both would grow without end."""

    def __init__(self, transport: Any, protocol: FairwayProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.pipeline and not self.write_paused:
            super().resume_reading()


class FairwayProtocol(HttpToolsProtocol):
    """One connection. Use :func:`make_protocol`, which binds the server's parts."""

    core: InferenceCore
    settings: ServeSettings
    codec: Codec
    tracer: Tracer | None
    stopping: Callable[[], bool]
    paths: dict[bytes, tuple[str, str | None] | None]
    heads: dict[bytes, _Head]
    answers: AnswerLog | None
    timed: bool
    beginning: tuple[Any, bytes, bytes] = (None, b"", b"")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._exchange: _Exchange | None = None
        self._running: Any = None  # the ASGI call that is to answer next; `cycle` may be one that waits behind it
        self._drained = 0
        self._headers_size = 0
        self._begun = False
        self._waiting_since: float | None = None
        self._unread_since = 0.0
        self._answered_at = 0.0
        self._answered = False
        self._said = b"\0"  # which begins no request
        self._said_head: _Head | None = None
        self._entry: Entry | None = None
        self._logged: _Head | None = None
        self._unread: int | None = None
        self._deaf = False
        self._held = False
        self._unseen: bytes | None = None
        self._cut = 0

    # -- reading

    def connection_made(self, transport: Any) -> None:
        """A client connected, and now owes a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self._waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that grows without end is refused before it fills memory."""
        if self._deaf:
            return
        if not self._begun and self._known(data):
            return
        if self._waiting_since is None:
            self._waiting_since = self.loop.time()
        if self._in_head:
            if self._head_bytes > self.settings.max_header_bytes:
                self._refuse(RequestTooLarge("the request's headers are too large"), 431)
                return
            self._head_bytes += len(data)
        while data:
            data = self._feed(data)

    def _known(self, data: bytes) -> bool:
        """Run ``data`` if it is one request whose head is known, and its turn has come."""
        parent = unseen = None
        if data.startswith(self._said):  # with the head of this connection's last request
            head, head_size = self._said_head, len(self._said)
        else:
            head_size = data.find(b"\r\n\r\n") + 4
            said = data[:head_size]
            head = self.heads.get(said)
            if head is not None:
                self._said, self._said_head = said, head
            elif head_size < _MAX_HEAD:
                unseen, parent, self._cut = traced.without_parent(said)
                head = self.heads.get(unseen) if parent is not None else None
        if head is None or head.length != len(data) - head_size or not self._rests():
            self._unseen = unseen if head is None else None
            return False
        self._waiting_since = None
        exchange = self._exchange = _Exchange(self, head, True, data[head_size:], False, True)
        if parent is not None:
            exchange.parent = parent
        if self.timed:
            exchange.arrived = time.perf_counter()
        self.cycle = exchange  # type: ignore[assignment]
        self._run(exchange)
        return True

    def _rests(self) -> bool:
        """Whether every request before is answered."""
        cycle = self.cycle
        return not self.pipeline and (cycle is None or cycle.response_complete)

    def _feed(self, data: bytes) -> bytes:
        """Parse, and give what is to be parsed again."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _BadHead):
                self._refuse(cause.error, cause.status)
            else:
                log.error("protocol_failed", exc_info=cause)
                self._refuse(FairwayError("the server failed on this request; its log says why"))
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"this is not HTTP/1.1: {error}; the connection is closed"))
        return b""

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Read a request as if it asked for no upgrade, as RFC 9110, 7.8 allows: some clients always offer HTTP/2 so.

        The parser takes no body after one that does.
        """
        if self.parser.get_method() == b"CONNECT":
            self._refuse(InvalidRequest("this server is no proxy; send requests for its own paths"))
            return b""
        kept = [line for line in self.headers if line[0] not in (b"connection", b"upgrade", b"http2-settings")]
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in kept:
            head += (name, b": ", value, b"\r\n")
        self.parser = httptools.HttpRequestParser(self)
        self._in_head = True
        return b"".join([*head, b"\r\n", rest])

    def on_message_begin(self) -> None:
        """A request starts; what only ASGI needs is made later, if at all."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._begun = True
        self._waiting_since = self.loop.time()
        self._in_head = True
        self._head_bytes = 0
        self._headers_size = 0
        self._drained = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self.url += url
        if len(self.url) > self.settings.max_header_bytes:
            raise _BadHead(RequestTooLarge("the request's URL is too long"), 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._headers_size += len(name) + len(value)
        if self._headers_size > self.settings.max_header_bytes:
            limit = self.settings.max_header_bytes
            raise _BadHead(RequestTooLarge(f"the request's headers have more than {limit:,} bytes"), 431)

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        if self.parser.should_upgrade():
            return  # and on to _without_upgrade
        self._in_head = False
        unseen, self._unseen = self._unseen, None
        target = self._target() if self.settings.fast_lane and self.parser.get_method() == b"POST" else None
        if target is None:
            self._exchange = None
            self._to_asgi()
            return
        head = _head(*target, self.url, self.headers)
        keep_alive = self.parser.should_keep_alive()
        if b"connection" in head.headers and self.parser.get_http_version() == "1.0":
            keep_alive = False
        exchange = _Exchange(self, head, keep_alive, arrived=time.perf_counter())
        exchange.expect_continue = self.expect_100_continue
        if head.length > self.settings.max_body_bytes:
            exchange.refused = too_large(self.settings.max_body_bytes)
        elif unseen is not None and head.length >= 0 and keep_alive and not self.expect_100_continue:
            self._remember(unseen, head)
        self._exchange = exchange
        self._queue(exchange)

    def _remember(self, said: bytes, head: _Head) -> None:
        """So that the next request with the same head, byte for byte, need not be parsed: clients repeat theirs.

        Only where ``said`` is this message's head and nothing else, which the number of its lines tells. Its ``traceparent`` is
        cut out of it, as it is another each time.
        """
        lines = len(self.headers) + 2 - self._cut
        if self._cut:
            if head.parent is None:  # more than one
                return
            kept = {name: value for name, value in head.headers.items() if name not in traced.LINES}
            head = msgspec.structs.replace(head, parent=None, headers=kept)
        if (
            len(self.headers) <= _MAX_LINES
            and said.startswith(b"POST ")
            and said.count(b"\r\n") == said.count(b"\n") == lines
        ):
            if len(self.heads) >= _MAX_HEADS:
                self.heads.clear()
            self.heads[said] = head

    def on_body(self, body: bytes) -> None:
        """A piece of the body, kept while it is within the limit."""
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
            return
        if exchange.refused is not None:
            self._drained += len(body)
            if self._drained > 16 * self.settings.max_body_bytes:
                self.transport.close()
            return
        if not exchange.body:
            exchange.body = body
        else:
            if isinstance(exchange.body, bytes):
                exchange.body = bytearray(exchange.body)
            exchange.body += body
        if len(exchange.body) > self.settings.max_body_bytes:
            exchange.body = b""
            exchange.refused = too_large(self.settings.max_body_bytes)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._in_head:
            return  # it asks for an upgrade
        self._begun = False
        self._waiting_since = None
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
            return
        exchange.more_body = False
        if exchange.current and not exchange.response_complete:
            self._run(exchange)

    # -- answering

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Also called by uvicorn for the next request of a pipeline."""
        if isinstance(cycle, _Exchange):
            self.loop.call_soon(self._begin, cycle)  # not at once: a long pipeline would be a deep recursion
        else:
            if self.stopping():
                cycle.keep_alive = False
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    def _begin(self, exchange: _Exchange) -> None:
        if exchange.disconnected:
            return
        exchange.current = True
        if not exchange.more_body:
            self._run(exchange)
        elif exchange.expect_continue:
            if exchange.refused is None:
                self.transport.write(_CONTINUE)
            else:  # the client now need not send the body, so what follows on this connection is unclear
                exchange.keep_alive = False
                self._run(exchange)

    def _run(self, exchange: _Exchange) -> None:
        """Decode and submit."""
        tracer = self.tracer
        if tracer is not None and exchange.head.model and not exchange.inflated:
            parent = exchange.parent or exchange.head.parent
            exchange.trace = tracer.begin(exchange.head.model, parent, exchange.arrived)
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
                if not exchange.inflated and (encoding := head.headers.get(_ENCODING)) is not None:
                    content = decompress_small(bytes(body), encoding, self.settings.max_body_bytes)
                    if content is None:
                        self._inflate(exchange, bytes(body), encoding)
                        return
                    body = content
                request, exchange.reply = codec.decode(body, head.headers, head.model, head.version, head.route_key)
        except FairwayError as error:
            self.core.telemetry.rejected[error.code] += 1
            self._answer(exchange, error)
            return
        except Exception:
            log.exception("decoding_failed")
            self._answer(exchange, FairwayError("the server failed on this request; its log says why"))
            return
        ticket = self.core.submit(request, exchange.answered, exchange.trace)
        if not exchange.response_complete:
            exchange.ticket = ticket

    def _inflate(self, exchange: _Exchange, body: bytes, encoding: bytes) -> None:
        """Decompress a large body on a thread. Meanwhile it is still this exchange's turn."""
        limit = self.settings.max_body_bytes
        self._on_thread(exchange, partial(decompress, body, encoding, limit), self._inflated)

    def _inflated(self, exchange: _Exchange, content: bytes | FairwayError) -> None:
        exchange.inflated = True
        if isinstance(content, FairwayError):
            exchange.refused = content
        else:
            exchange.body = content
        self._run(exchange)

    def _on_thread(
        self, exchange: _Exchange, call: Callable[[], bytes], then: Callable[[_Exchange, bytes | FairwayError], None]
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

    def _answer(self, exchange: _Exchange, outcome: Outcome) -> None:
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
        self, exchange: _Exchange, fields: dict[bytes, bytes], parts: Sequence[Buffer], encoding: bytes
    ) -> None:
        """Compress a large answer on a thread, and write it."""
        extra = b"".join(b"%b: %b\r\n" % field for field in fields.items())

        def deflated(exchange: _Exchange, body: bytes | FairwayError) -> None:
            if isinstance(body, FairwayError):
                self._answer(exchange, body)
            elif not self.transport.is_closing():
                self._write(exchange, 200, extra, body, ())

        self._on_thread(exchange, partial(compress, parts, encoding), deflated)

    def _write(self, exchange: _Exchange, status: int, extra: bytes, body: bytes, rest: Sequence[Buffer]) -> None:
        """``body`` and ``rest``: the body in pieces, of which only the first is copied."""
        size = len(body) + sum(map(len, rest)) if rest else len(body)
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
        if self.answers is not None and exchange.head.model:
            self._log(exchange, status, size, self.answers)
        if exchange.trace is not None:
            exchange.trace.finish(self._seen(exchange, status))
            exchange.trace = None
        if exchange.keep_alive:
            self._go_on()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """One answer of an ASGI call is written."""
        if not self.transport.is_closing():
            self._go_on()

    def _go_on(self) -> None:
        """Go on with the next request, unless the client does not take its answers."""
        self._answered = (
            True  # `check` ends idle connections: to look at the clock, or set a timer, for each would cost more
        )
        if self.pipeline:
            self._next()
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def _next(self) -> None:
        """Start the next request of the pipeline."""
        self._held = self.flow.write_paused
        if not self._held:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            self.flow.resume_reading()  # the last of them may not be whole yet

    def _log(self, exchange: _Exchange, status: int, size: int, answers: AnswerLog) -> None:
        head, entry, trace = exchange.head, self._entry, None
        if entry is None or head is not self._logged or status != entry.status:
            client = self.client[0] if self.client else ""
            entry = self._entry = entry_of("POST", head.path.decode("latin-1"), status, client)
            self._logged = head
        if exchange.trace is not None:
            trace = exchange.trace.ids
        elif parent := exchange.parent or head.parent:
            trace = caller_ids(parent)
        answers.add(self.loop, entry, exchange.arrived, size, trace)

    def _seen(self, exchange: _Exchange, status: int) -> dict[str, Any]:
        """What a span says of HTTP."""
        head = exchange.head
        return traced.attributes(
            head.path.decode("latin-1"),
            status,
            host=head.headers.get(b"host", b""),
            client=self.client,
            versioned=head.version,
        )

    # -- the connection

    def eof_received(self) -> None:
        """The client sends no more. In the middle of a request, that is worth an answer."""
        if self._begun and not self._deaf:
            self._refuse(InvalidRequest("the request ended before it was whole; send all of it"))
        self._abandon()  # the transport closes now

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: its queued work is not done."""
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, _Exchange):
                cycle.disconnected = True
                if cycle.trace is not None:
                    cycle.trace.lost(self._seen(cycle, 499))
                    cycle.trace = None
                if cycle.ticket is not None:
                    cycle.ticket.cancel()
        self.pipeline.clear()
        self._abandon()
        super().connection_lost(exc)

    def _abandon(self) -> None:
        """An ASGI call that is still running has nobody to write to: without being told, it would fail where it tries."""
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def pause_writing(self) -> None:
        """The client reads too slowly: take no more requests from it."""
        super().pause_writing()
        self.flow.pause_reading()  # and start no more: see _next

    def resume_writing(self) -> None:
        """The client caught up."""
        super().resume_writing()
        if self._held and self.pipeline:
            self._next()
        else:
            self.flow.resume_reading()

    # -- clients that hold things up

    def check(self, now: float) -> None:
        """End the connection if its client takes too long; called every now and then, ``now`` being the loop's time."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._check_reader(now)
            return
        self._unread = None
        if self._waiting_since is None:
            if self._answered:  # since the last look
                self._answered, self._answered_at = False, now
            idle = self.cycle is not None and self.cycle.response_complete
            if idle and now - self._answered_at > self.settings.keep_alive_s:
                self.transport.close()
            return
        if self.flow.read_paused:  # then it is the server that keeps the client waiting
            self._waiting_since = now
        elif now - self._waiting_since > self.settings.read_timeout_s:
            self._time_out()

    def _check_reader(self, now: float) -> None:
        """Drop a client that takes its answers too slowly, or never."""
        unread = self.transport.get_write_buffer_size()
        if self._unread is None or unread <= self._unread - _PROGRESS_BYTES:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > self.settings.read_timeout_s:
            self.transport.abort()

    def _time_out(self) -> None:
        if not self._begun:  # it connected, and said nothing
            self.transport.close()
            return
        limit = self.settings.read_timeout_s
        text = (
            f"the request did not arrive whole within {limit:g} s; send it faster, or raise read_timeout_s in [serve]"
        )
        self._refuse(InvalidRequest(text), 408)

    def _target(self) -> tuple[str, str | None] | None:
        paths = self.paths
        if self.url in paths:
            return paths[self.url]
        target = infer_target(self.url)
        if target is not None and len(paths) < _MAX_PATHS and len(self.url) < 1024:
            paths[self.url] = target
        return target

    def _to_asgi(self) -> None:
        """Make what uvicorn makes at the start of a message, then go on as it does."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        try:
            httptools.parse_url(url).path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, AttributeError):
            text = "the request's target is not a valid path; percent-encode it"
            raise _BadHead(InvalidRequest(text)) from None
        super().on_headers_complete()
        if expect:  # an answer without "100 Continue" leaves open whether the body follows
            self.cycle.keep_alive = False

    def _refuse(self, error: FairwayError, status: int = 0) -> None:
        """Answer what cannot be read any further, once all that came before it is answered, and close."""
        self._deaf = True
        self._waiting_since = None
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if cycle is None or self._in_head or not cycle.more_body:
            self._queue(self._refusal(error, status))
        elif isinstance(cycle, _Exchange):
            cycle.refused = cycle.refused or error
            cycle.status = status if cycle.refused is error else 0
            cycle.body, cycle.more_body, cycle.keep_alive = b"", False, False
            if cycle.current:
                self._run(cycle)
        elif self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            self._queue(self._refusal(error, status))
        else:  # its handler waits for the rest of the body, and notices the end of the connection
            if not cycle.response_started:
                cycle.response_started = True
                self._begin(self._refusal(error, status))
            self.transport.close()
            self._abandon()

    def _refusal(self, error: FairwayError, status: int) -> _Exchange:
        exchange = _Exchange(self, _Head("", None, self.url), keep_alive=False, arrived=time.perf_counter())
        exchange.more_body = False
        exchange.refused, exchange.status = error, status
        return exchange

    def _queue(self, exchange: _Exchange) -> None:
        """Begin an exchange, now or when those before it are answered."""
        previous, self.cycle = self.cycle, exchange  # type: ignore[assignment]
        if not self.pipeline and (previous is None or previous.response_complete):
            self._begin(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]


class _BadHead(Exception):
    """A request whose head is refused."""

    def __init__(self, error: FairwayError, status: int = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


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
    Bound.timed = settings.access_log or core.tracer is not None
    Bound.tracer = core.tracer
    return Bound
