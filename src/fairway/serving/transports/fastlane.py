"""Uvicorn's HTTP protocol with a lane of its own for infer requests, which never become ASGI calls.

Connections, keep-alive, pipelining and every other route stay uvicorn's. An :class:`_Exchange` stands where uvicorn keeps
its request-response cycle, so both kinds queue behind each other in the order in which they came.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fairway.core.errors import FairwayError, InvalidRequest, RequestTooLarge
from fairway.core.messages import InferResponse
from fairway.serving.inference import InferenceCore, Outcome, Ticket
from fairway.serving.logs import access, log_request
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.bodies import decompress, too_large
from fairway.serving.transports.rest import BINARY_HEADER, ROUTE_KEY, error_response, normal_version, refuse_binary
from fairway.serving.transports.v2json import decode_request, encode_error, encode_response

log = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OK = b"content-type: application/json\r\ncontent-length: "
_MAX_PATHS = 1024
_ROUTE_KEY = ROUTE_KEY.encode()
_BINARY = BINARY_HEADER.encode()
_NO_KEYS: dict[bytes, bytes] = {}


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


class _NoEvent:
    """Uvicorn wakes its cycles by an event; an exchange needs none."""

    def set(self) -> None:
        """Do nothing."""


_NO_EVENT = _NoEvent()


class _Exchange:
    """One infer request and its answer; has the attributes that uvicorn's protocol reads of a cycle."""

    __slots__ = (
        "arrived", "body", "current", "disconnected", "expect_continue", "headers", "keep_alive", "message_event",
        "model", "more_body", "outcome", "path", "refused", "response_complete", "route_version", "ticket",
    )  # fmt: skip

    def __init__(self, target: tuple[str, str | None], path: bytes, keep_alive: bool) -> None:
        self.model, self.route_version = target
        self.path = path
        self.keep_alive = keep_alive
        self.headers = _NO_KEYS
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.current = False
        self.expect_continue = False
        self.refused: FairwayError | None = None
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NO_EVENT
        self.ticket: Ticket | None = None
        self.arrived = time.perf_counter()


class FairwayProtocol(HttpToolsProtocol):
    """One connection. Use :func:`make_protocol`, which binds the server's parts."""

    core: InferenceCore
    settings: ServeSettings
    stopping: Callable[[], bool]
    paths: dict[bytes, tuple[str, str | None] | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._exchange: _Exchange | None = None
        self._drained = 0
        self._headers_size = 0

    # -- reading

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that grows without end is refused before it fills memory."""
        if self._in_head:
            if self._head_bytes > self.settings.max_header_bytes:
                self._refuse_head(431, "the request's headers are too large")
                return
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse_head(400, "this server does not upgrade connections; send plain HTTP/1.1")
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _BadHead):
                self._refuse_head(cause.status, str(cause))
            else:
                log.error("protocol_failed", exc_info=cause)
                self._refuse_head(500, "the server failed on this request; its log says why")
        except httptools.HttpParserError as error:
            self._refuse_head(400, f"this is not HTTP/1.1: {error}; the connection is closed")

    def on_message_begin(self) -> None:
        """A request starts; what only ASGI needs is made later, if at all."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = True
        self._head_bytes = 0
        self._headers_size = 0
        self._drained = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self.url += url
        if len(self.url) > self.settings.max_header_bytes:
            raise _BadHead(414, "the request's URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        super().on_header(name, value)
        self._headers_size += len(name) + len(value)
        if self._headers_size > self.settings.max_header_bytes:
            raise _BadHead(431, f"the request's headers have more than {self.settings.max_header_bytes:,} bytes")

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        self._in_head = False
        target = self._target() if self.settings.fast_lane and self.parser.get_method() == b"POST" else None
        if target is None:
            self._exchange = None
            self._to_asgi()
            return
        version = self.parser.get_http_version()
        exchange = _Exchange(target, self.url, version != "1.0" and self.parser.should_keep_alive())
        exchange.headers = headers = dict(self.headers)
        exchange.expect_continue = self.expect_100_continue
        declared = headers.get(b"content-length")
        if declared is not None and int(declared) > self.settings.max_body_bytes:
            exchange.refused = too_large(self.settings.max_body_bytes)
        previous, self.cycle = self.cycle, exchange  # type: ignore[assignment]
        self._exchange = exchange
        if previous is None or previous.response_complete:
            self._begin(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

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
        try:
            if exchange.refused is not None:
                raise exchange.refused
            headers, body = exchange.headers, exchange.body
            exchange.body = b""
            if _BINARY in headers:
                raise refuse_binary()
            encoding = headers.get(b"content-encoding")
            if encoding is not None:
                body = decompress(bytes(body), encoding, self.settings.max_body_bytes)
            key = headers.get(_ROUTE_KEY)
            request = decode_request(
                body, exchange.model, exchange.route_version, key.decode("latin-1") if key is not None else None
            )
        except FairwayError as error:
            self.core.telemetry.rejected[error.code] += 1
            self._answer(exchange, error)
            return
        except Exception:
            log.exception("decoding_failed")
            self._answer(exchange, FairwayError("the server failed on this request; its log says why"))
            return
        ticket = self.core.submit(request, lambda outcome: self._answer(exchange, outcome))
        if not exchange.response_complete:
            exchange.ticket = ticket

    def _answer(self, exchange: _Exchange, outcome: Outcome) -> None:
        """Encode and write."""
        exchange.ticket = (
            None  # it holds this exchange, through the callback: without the circle, both are freed at once
        )
        if exchange.disconnected:
            return
        status, extra = 200, b""
        if isinstance(outcome, InferResponse):
            try:
                body = encode_response(outcome)
            except FairwayError as error:
                outcome = error
            except Exception:
                log.exception("encoding_failed")
                outcome = FairwayError("the server failed on this answer; its log says why")
        if isinstance(outcome, FairwayError):
            status, headers, body = error_response(outcome)
            extra = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
        self._write(exchange, status, extra, body)

    def _write(self, exchange: _Exchange, status: int, extra: bytes, body: bytes) -> None:
        if exchange.keep_alive and self.stopping():
            exchange.keep_alive = False
        head = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        if not exchange.keep_alive:
            extra += b"connection: close\r\n"
        head += (extra, _OK, str(len(body)).encode(), b"\r\n\r\n", body)
        self.transport.write(b"".join(head))
        exchange.response_complete = True
        if self.settings.access_log and access.isEnabledFor(logging.INFO):
            self._log(exchange, status, len(body))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _log(self, exchange: _Exchange, status: int, size: int) -> None:
        log_request(
            "POST",
            exchange.path.decode("latin-1"),
            status,
            seconds=time.perf_counter() - exchange.arrived,
            size=size,
            client=self.client[0] if self.client else "",
        )

    # -- the connection

    def eof_received(self) -> None:
        """The client sends no more. In the middle of a body, that is worth an answer."""
        exchange = self._exchange
        if exchange is not None and exchange.current and exchange.more_body and not exchange.response_complete:
            exchange.keep_alive = False
            self._answer(exchange, InvalidRequest("the body ended before its Content-Length; send all of it"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: its queued work is not done."""
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, _Exchange):
                cycle.disconnected = True
                if cycle.ticket is not None:
                    cycle.ticket.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads too slowly: take no more requests from it."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client caught up."""
        super().resume_writing()
        self.flow.resume_reading()

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
            raise _BadHead(400, "the request's target is not a valid path; percent-encode it") from None
        super().on_headers_complete()

    def _refuse_head(self, status: int, text: str) -> None:
        """Answer what cannot be parsed any further, and close."""
        if self.transport.is_closing():
            return
        too_long = status in (413, 414, 431)
        body = encode_error(
            RequestTooLarge(text) if too_long else InvalidRequest(text) if status < 500 else FairwayError(text)
        )
        head = [STATUS_LINE[status]]
        head += (_OK, str(len(body)).encode(), b"\r\nconnection: close\r\n\r\n", body)
        self.transport.write(b"".join(head))
        self.transport.close()


class _BadHead(Exception):
    """A request whose head is refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def make_protocol(
    core: InferenceCore, settings: ServeSettings, *, stopping: Callable[[], bool]
) -> type[FairwayProtocol]:
    """The protocol class of one server."""

    class Bound(FairwayProtocol):
        pass

    Bound.core = core
    Bound.settings = settings
    Bound.stopping = staticmethod(stopping)
    Bound.paths = {}
    return Bound
