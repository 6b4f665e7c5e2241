"""Calls with any number of messages each way."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from fairway.core.errors import FairwayError
from fairway.serving.transports.grpc.base import DEADLINE_EXCEEDED, INTERNAL, Metadata, Streaming, failure
from fairway.serving.transports.http2.framing import PREFIX_BYTES
from fairway.serving.transports.http2.stream import FAILED, Stream

log = logging.getLogger(__name__)

_TURN_BYTES = 65536


class StreamingCall(Stream):
    """A call whose handler runs in a task. It is the handler's ``Call``, and the iterator of its messages.

    Attributes
    ----------
    inbox : deque of bytes
        Whole messages that the handler has not taken.
    task : asyncio.Task or None
    arrival, departure : asyncio.Future or None
        What the handler waits for: a message, or room for its own.
    timer : asyncio.TimerHandle or None
        Ends the call at its deadline.
    late : bool
        The deadline passed.
    written : int
        Bytes sent since the loop was last given to others.
    arrived : int
        Messages that came whole.
    owed : tuple of int and float, or None
        Which message is on its way, and when it was first seen to be.
    """

    inbox: deque[bytes] | None = None
    task: asyncio.Task[None] | None = None
    arrival: asyncio.Future[None] | None = None
    departure: asyncio.Future[None] | None = None
    timer: asyncio.TimerHandle | None = None
    late: bool = False
    written: int = 0
    arrived: int = 0
    owed: tuple[int, float] | None = None

    def start(self) -> None:
        """Run the handler."""
        self.inbox = deque()
        loop = self.connection.loop
        self.task = loop.create_task(self._run())
        if self.deadline_s is not None:
            self.timer = loop.call_later(self.deadline_s, self._expire)

    async def _run(self) -> None:
        method = self.head.method
        assert isinstance(method, Streaming)
        try:
            await method.handler(self, self)
        except FairwayError as error:
            said = failure(error)
            self.fail(said.status, said.text, said.metadata)
        except asyncio.CancelledError:
            if self.late:
                self.fail(DEADLINE_EXCEEDED, "the call's deadline passed")
            elif not self.closed:
                self.fail(INTERNAL, "the server ended this call")
        except Exception:
            log.exception("call_failed")
            self.fail(INTERNAL, FAILED)
        else:
            if not self.closed:
                self.closed = True
                self.connection.outbox.end(self)
        finally:
            self.task = None

    def _expire(self) -> None:
        self.late = True
        self.timer = None
        if self.task is not None:
            self.task.cancel()

    # -- messages in

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself: there is one reader."""
        return self

    async def __anext__(self) -> bytes:
        """The next message; no more after the client's END_STREAM."""
        while not self.inbox:
            if self.closed:
                raise asyncio.CancelledError
            if self.ended:
                if self.unfinished:
                    raise _truncated()
                raise StopAsyncIteration
            self.arrival = self.connection.loop.create_future()
            try:
                await self.arrival
            finally:
                self.arrival = None
        message = self.inbox.popleft()
        if not self.closed:
            self._let_go(len(message) + PREFIX_BYTES)
            self.refill()
        return message

    def message(self, message: bytes) -> None:
        """A whole message, for the handler to take."""
        assert self.inbox is not None
        self.arrived += 1
        if self._count(len(message) + PREFIX_BYTES):
            self.inbox.append(message)
            self._wake()

    def end(self) -> None:
        """The client sends no more."""
        self.ended = True
        self._wake()

    def wants_more(self) -> bool:
        """Not while the handler has messages to take: an unfinished one is let in all the same."""
        return not self.inbox or (self.counted < self.connection.limits.stream_window // 2)

    def overdue(self, now: float, timeout_s: float) -> bool:
        """Whether one message takes too long: a stream may be quiet, but not within a message that the server would take."""
        if self.ended or not self.unfinished or not self.wants_more():
            self.owed = None
        elif self.owed is None or self.owed[0] != self.arrived:
            self.owed = self.arrived, now
        else:
            return now - self.owed[1] > timeout_s
        return False

    def _wake(self) -> None:
        if self.arrival is not None and not self.arrival.done():
            self.arrival.set_result(None)

    # -- messages out

    async def send(self, message: bytes) -> None:
        """Send one message, and wait for room for another."""
        if self.closed:
            raise asyncio.CancelledError
        outbox = self.connection.outbox
        outbox.message(self, message)
        if self.unsent:
            self.departure = self.connection.loop.create_future()
            try:
                await self.departure
            finally:
                self.departure = None
        self.written += len(message)
        if self.written >= _TURN_BYTES:  # others want the loop as well
            self.written = 0
            await asyncio.sleep(0)

    def drained(self) -> None:
        """Room for another message."""
        if self.departure is not None and not self.departure.done():
            self.departure.set_result(None)

    def reply(self, message: bytes) -> None:  # noqa: ARG002
        """Only unary calls reply."""
        raise TypeError("a stream sends its messages: use send")

    # -- the end

    def fail(self, status: int, text: str, metadata: Metadata = ()) -> None:
        """End with a status other than OK, and end the handler."""
        Stream.fail(self, status, text, metadata)
        if self.task is not None and self.task is not asyncio.current_task(self.connection.loop):
            self.task.cancel()

    def sent(self) -> None:
        """The trailers are written."""
        self._stop_timer()
        Stream.sent(self)

    def cancel(self) -> None:
        """The client left, or broke a rule."""
        self._stop_timer()
        Stream.cancel(self)
        if self.task is not None:
            self.task.cancel()

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _truncated() -> FairwayError:
    from fairway.core.errors import InvalidRequest

    return InvalidRequest("the request ended in the middle of a message; send all of it")
