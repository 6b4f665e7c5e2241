"""One connection of REST: requests in their turn, and clients that hold things up.

Connections, keep-alive and pipelining stay uvicorn's. An :class:`~fairway.serving.transports.exchange.Exchange` stands where
uvicorn keeps its request-response cycle, so both kinds queue behind each other in the order in which they came.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairway.core.errors import FairwayError, InvalidRequest
from fairway.serving.inference import Outcome
from fairway.serving.settings import ServeSettings
from fairway.serving.transports.exchange import Exchange
from fairway.serving.transports.heads import Head
from fairway.serving.transports.untaken import drop, in_kernel

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PARTING_S = 1.0
_PROGRESS_BYTES = 65536


class _Flow(FlowControl):
    """Reads no further while requests wait in the pipeline, or answers for their reader: both would grow without end."""

    def __init__(self, transport: Any, protocol: Connection) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if not self._protocol.pipeline and not self.write_paused:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """What is the same for every request. Subclasses read and answer."""

    settings: ServeSettings
    stopping: Callable[[], bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: Any = None  # the ASGI call that is to answer next; `cycle` may be one that waits behind it
        self._in_head = True
        self._begun = False  # a request that is not whole yet
        self._deaf = False
        self._held = False
        self._waiting_since: float | None = None
        self._answered = False
        self._answered_at = 0.0
        self._taken = True  # all answers, by the client's machine
        self._unread: int | None = None
        self._unread_since = 0.0
        self._parting_since: float | None = None

    @abstractmethod
    def answer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Encode and write."""

    @abstractmethod
    def _run(self, exchange: Exchange) -> None:
        """Answer a request that is whole, and whose turn has come."""

    @abstractmethod
    def _lost(self, exchange: Exchange) -> None:
        """The caller of a request has left before it was answered."""

    def connection_made(self, transport: Any) -> None:
        """A client connected, and now owes a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self.host = self.client[0] if self.client else ""
        self._waiting_since = self.loop.time()

    # -- requests in their turn

    def _queue(self, exchange: Exchange) -> None:
        """Begin an exchange, now or when those before it are answered."""
        previous, self.cycle = self.cycle, exchange  # type: ignore[assignment]
        if not self.pipeline and (previous is None or previous.response_complete):
            self._begin(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Also called by uvicorn for the next request of a pipeline."""
        if isinstance(cycle, Exchange):
            self.loop.call_soon(self._begin, cycle)  # not at once: a long pipeline would be a deep recursion
        else:
            if self.stopping():
                cycle.keep_alive = False
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    def _begin(self, exchange: Exchange) -> None:
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

    def _refuse(self, error: FairwayError, status: int = 0) -> None:
        """Answer what cannot be read any further, once all that came before it is answered, and close."""
        self._deaf = True
        self._waiting_since = None
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if cycle is None or self._in_head or not cycle.more_body:
            self._queue(self._refusal(error, status))
        elif isinstance(cycle, Exchange):
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

    def _refusal(self, error: FairwayError, status: int) -> Exchange:
        exchange = Exchange(self, Head("", None, self.url), keep_alive=False, arrived=time.perf_counter_ns())
        exchange.more_body = False
        exchange.refused, exchange.status = error, status
        return exchange

    def _part(self) -> None:
        """The last answer is written: close, or listen to a client that may still be sending, until it closes or a second long.

        To close on what it sends would reset the connection, which takes the answer from it (RFC 9112, 9.6).
        """
        if self._deaf and self.transport.can_write_eof():
            self.transport.write_eof()
            self._parting_since = self.loop.time()
        else:
            self.transport.close()

    # -- the client

    def eof_received(self) -> None:
        """The client sends no more. In the middle of a request, that is worth an answer."""
        if self._begun and not self._deaf:
            self._refuse(InvalidRequest("the request ended before it was whole; send all of it"))
        self._abandon()  # the transport closes now

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: its queued work is not done."""
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Exchange):
                cycle.disconnected = True
                self._lost(cycle)
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
        if self._parting_since is not None and not self.transport.get_write_buffer_size():
            if now - self._parting_since > _PARTING_S:
                self.transport.abort()
            return
        if self._answered:  # since the last look
            self._answered, self._answered_at, self._taken = False, now, False
        elif not self._taken:
            self._taken = not in_kernel(self.transport)
        held_up = self._parting_since is not None or self.transport.is_closing() or self.flow.write_paused
        if held_up or (self._waiting_since is None and not self._taken and now > self._answered_at):
            self._check_reader(now)
            return
        self._unread = None
        if self._waiting_since is None:
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
        unread = self.transport.get_write_buffer_size() + in_kernel(self.transport)
        if self._unread is None or unread <= self._unread - _PROGRESS_BYTES:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > self.settings.read_timeout_s:
            drop(self.transport)

    def _time_out(self) -> None:
        if not self._begun:  # it connected, and said nothing
            self.transport.close()
            return
        limit = self.settings.read_timeout_s
        text = (
            f"the request did not arrive whole within {limit:g} s; send it faster, or raise read_timeout_s in [serve]"
        )
        self._refuse(InvalidRequest(text), 408)
