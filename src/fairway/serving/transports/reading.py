"""Reads the requests of one connection, and chooses their lane: infer requests never become ASGI calls."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import httptools
import msgspec

from fairway.core.errors import FairwayError, InvalidRequest, RequestTooLarge
from fairway.serving.transports import traced
from fairway.serving.transports.bodies import too_large
from fairway.serving.transports.bulk import Bulk
from fairway.serving.transports.connection import Connection
from fairway.serving.transports.exchange import BadHead, Exchange
from fairway.serving.transports.heads import Head, head_of, infer_target

log = logging.getLogger(__name__)

_LARGE = 2**17
"""Bytes from which on what is left of a body is read without the parser."""
_MAX_PATHS = 1024
_MAX_HEADS = 1024
_MAX_HEAD = 2048
_MAX_LINES = 32  # of a head that is kept: hundreds of tiny ones take a hundred times their bytes


class TurnClock:
    """One time for the small requests that one turn of the loop reads: asking for each costs half a percent of a tiny one.

    They had all come when the turn began to read.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0
        """On :func:`time.perf_counter_ns`, or 0: to be :meth:`read`."""

    def read(self, loop: asyncio.AbstractEventLoop) -> int:
        """The time, kept until what this turn has the loop do soon begins."""
        self.now = now = time.perf_counter_ns()
        loop.call_soon(self._end)
        return now

    def _end(self) -> None:
        self.now = 0


class Reading(Connection):
    """The half of a connection that comes from the client."""

    paths: dict[bytes, tuple[str, str | None] | None]
    heads: dict[bytes, Head]
    clock: TurnClock | None  # where somebody wants to know when requests came

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange: Exchange | None = None
        self._head_bytes = 0
        self._headers_size = 0
        self._drained = 0
        self._said = b"\0"  # which begins no request
        self._said_head: Head | None = None
        self._unseen: bytes | None = None
        self._cut = 0

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
        exchange = self._exchange
        if exchange is not None and exchange.more_body and exchange.head.length - len(exchange.body) >= _LARGE:
            self._read_on(exchange)

    def _read_on(self, exchange: Exchange) -> None:
        """Read the rest of a large body without the parser."""
        if exchange.refused is not None or self._deaf or self.flow.read_paused or self.transport.is_closing():
            return

        def whole() -> None:
            if self._deaf:  # it took too long, and was refused
                return
            self.parser = httptools.HttpRequestParser(self)  # the one before still waits for this body
            self.on_message_complete()

        exchange.body = bytearray(exchange.body)
        Bulk(self, self.transport, exchange.body, exchange.head.length, whole)

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
        before = self.cycle
        rests = not self.pipeline and (before is None or before.response_complete)
        if head is None or head.length != len(data) - head_size or not rests:
            self._unseen = unseen if head is None else None
            return False
        self._waiting_since = None
        exchange = self._exchange = Exchange(self, head, True, data[head_size:], False, True)
        if parent is not None:
            exchange.parent = parent
        clock = self.clock
        if clock is not None:
            exchange.arrived = clock.now or clock.read(self.loop)
        self.cycle = exchange  # type: ignore[assignment]
        self._run(exchange)
        return True

    def _feed(self, data: bytes) -> bytes:
        """Parse, and give what is to be parsed again."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, BadHead):
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
            raise BadHead(RequestTooLarge("the request's URL is too long"), 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._headers_size += len(name) + len(value)
        if self._headers_size > self.settings.max_header_bytes:
            limit = self.settings.max_header_bytes
            raise BadHead(RequestTooLarge(f"the request's headers have more than {limit:,} bytes"), 431)

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
        head = head_of(*target, self.url, self.headers)
        keep_alive = self.parser.should_keep_alive()
        if b"connection" in head.headers and self.parser.get_http_version() == "1.0":
            keep_alive = False
        exchange = Exchange(self, head, keep_alive, arrived=time.perf_counter_ns())
        exchange.expect_continue = self.expect_100_continue
        if head.length > self.settings.max_body_bytes:
            exchange.refused = too_large(self.settings.max_body_bytes)
        elif unseen is not None and head.length >= 0 and keep_alive and not self.expect_100_continue:
            self._remember(unseen, head)
        self._exchange = exchange
        self._queue(exchange)

    def _remember(self, said: bytes, head: Head) -> None:
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
            raise BadHead(InvalidRequest(text)) from None
        super().on_headers_complete()
        if expect:  # an answer without "100 Continue" leaves open whether the body follows
            self.cycle.keep_alive = False
