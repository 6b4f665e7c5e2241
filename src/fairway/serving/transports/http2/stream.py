"""Calls: one stream each, from its headers to its trailers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from fairway.core.errors import FairwayError
from fairway.serving.transports.bodies import decompress
from fairway.serving.transports.grpc.base import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Metadata,
    Unary,
    failure,
)
from fairway.serving.transports.http2.frames import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, StreamFault
from fairway.serving.transports.http2.framing import PREFIX, PREFIX_BYTES
from fairway.serving.transports.http2.pieces import LARGE_BYTES, Pieces
from fairway.serving.transports.http2.request import Head

if TYPE_CHECKING:
    from fairway.serving.transports.http2.link import Link

log = logging.getLogger(__name__)

FAILED: Final = "the server failed on this call; its log says why"


class Stream(msgspec.Struct, eq=False):
    """What all calls have. ``metadata``, ``deadline_s``, ``peer`` and ``on_cancel`` are those of ``Call``.

    Attributes
    ----------
    window : int
        Bytes that the client takes on this stream.
    room : int
        Bytes that the client may send on this stream.
    held : bytearray or None
        What came of a message that is not whole.
    pieces, missing, flag
        The same of a large one; bytes that it lacks; its compressed flag.
    counted : int
        Bytes of this stream in the server's account of what it holds.
    received : int
        Bytes of DATA, to be compared with a declared content-length.
    ended : bool
        The client sent END_STREAM.
    started, trailers, unsent
        The answer: whether its headers are sent, how it ends, and what waits of it.
    closed : bool
        Nothing more is to be sent.
    """

    connection: Link
    id: int
    head: Head
    window: int
    metadata: Mapping[bytes, bytes]
    deadline_s: float | None
    peer: str
    began: float
    room: int
    on_cancel: Callable[[], None] | None = None
    held: bytearray | None = None
    pieces: Pieces | None = None
    missing: int = 0
    flag: int = 0
    counted: int = 0
    received: int = 0
    ended: bool = False
    started: bool = False
    trailers: bytes | None = None
    unsent: deque[memoryview] | None = None
    closed: bool = False

    # -- what the client sends

    def data(self, payload: bytes, start: int, stop: int, size: int, ended: bool) -> None:
        """One DATA frame: ``payload[start:stop]``, and ``size`` with its padding, for flow control."""
        if self.ended:
            raise StreamFault(STREAM_CLOSED, "DATA after END_STREAM")
        self.room -= size
        if self.room < 0:
            raise StreamFault(FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        self.received += stop - start
        length = self.head.content_length
        if length is not None and (self.received > length or (ended and self.received != length)):
            raise StreamFault(PROTOCOL_ERROR, "DATA and content-length differ")
        self.ended = ended
        if not self.closed:
            self._keep(payload, start, stop)
        if ended:
            self.end()

    def _keep(self, payload: bytes, start: int, stop: int) -> None:
        """Take the messages that are whole, keep the rest."""
        if not self._count(stop - start):
            return
        if self.pieces is not None:
            start = self._keep_large(self.pieces, payload, start, stop)
        if start < stop and not self.closed:
            self._keep_small(payload, start, stop)
        if self.closed:
            self._let_go()
        self.refill()

    def _keep_large(self, pieces: Pieces, payload: bytes, start: int, stop: int) -> int:
        """Add to a large message; gives where the next one begins."""
        end = min(stop, start + self.missing)
        pieces.add(payload, start, end)
        self.missing -= end - start
        if not self.missing:
            self.pieces = None
            self._whole(pieces.join(), self.flag)
        return end

    def _keep_small(self, payload: bytes, start: int, stop: int) -> None:
        if self.held is None:
            self.held = bytearray()
        held = self.held
        held += memoryview(payload)[start:stop]
        at, limit = 0, self.connection.max_message_bytes
        while len(held) - at >= PREFIX_BYTES and not self.closed:
            flag, size = PREFIX.unpack_from(held, at)
            if size > limit:
                self.fail(
                    RESOURCE_EXHAUSTED,
                    f"the message is larger than this server takes ({limit:,} bytes); send fewer rows at a time, or "
                    "raise max_body_bytes in [serve]",
                )
                return
            if flag > 1 or (flag and self.head.encoding is None):
                self.fail(INTERNAL, "a message's compressed flag is set, but no grpc-encoding says how; set both")
                return
            if len(held) - at - PREFIX_BYTES >= size:
                at += PREFIX_BYTES
                with memoryview(held) as view:
                    message = bytes(view[at : at + size])
                at += size
                self._whole(message, flag)
            else:
                if size >= LARGE_BYTES:
                    self.pieces, self.flag = Pieces(), flag
                    self.pieces.add(held, at + PREFIX_BYTES, len(held))
                    self.missing = size - (len(held) - at - PREFIX_BYTES)
                    at = len(held)
                break
        del held[:at]

    def _whole(self, message: bytes, flag: int) -> None:
        self._let_go(len(message) + PREFIX_BYTES)
        if flag:
            assert self.head.encoding is not None
            try:
                message = decompress(message, self.head.encoding, self.connection.max_message_bytes)
            except FairwayError as error:
                said = failure(error)
                self.fail(said.status, said.text)
                return
        self.message(message)

    def _count(self, size: int) -> bool:
        """Add to the account of what the server holds; fail the call if that is too much."""
        account = self.connection.held
        self.counted += size
        account.bytes += size
        if account.bytes <= account.limit:
            return True
        self.fail(
            RESOURCE_EXHAUSTED,
            f"this server already holds {account.limit:,} bytes of unfinished requests; try again soon",
            ((b"retry-after", b"1"),),
        )
        return False

    def _let_go(self, size: int | None = None) -> None:
        """Take ``size`` bytes off the account; all, and what is held, without one."""
        if size is None:
            size = self.counted
            self.held = self.pieces = None
        self.counted -= size
        self.connection.held.bytes -= size

    def refill(self) -> None:
        """Let the client send on, if there is room for more."""
        window = self.connection.limits.stream_window
        if not self.ended and not self.closed and self.room <= window // 2 and self.wants_more():
            self.connection.window_update(self.id, window - self.room)
            self.room = window

    def end(self) -> None:
        """END_STREAM."""
        self.ended = True

    @property
    def unfinished(self) -> bool:
        """Whether a message is on its way."""
        return bool(self.held) or self.pieces is not None

    def wants_more(self) -> bool:
        """Whether the client may send more."""
        return True

    def overdue(self, now: float, timeout_s: float) -> bool:
        """Whether the client owes the rest of a message for too long; asked every now and then."""
        raise NotImplementedError

    def too_slow(self, timeout_s: float) -> None:
        """It does."""
        text = f"the request did not arrive whole within {timeout_s:g} s; send it faster, or raise read_timeout_s in [serve]"
        self.fail(DEADLINE_EXCEEDED, text)

    def message(self, message: bytes) -> None:
        """A whole message."""
        raise NotImplementedError

    # -- what it gets

    def fail(self, status: int, text: str, metadata: Metadata = ()) -> None:
        """End with a status other than OK."""
        if not self.closed:
            self.closed = True
            self.on_cancel = None
            self.connection.outbox.end(self, status, text, metadata)

    def sent(self) -> None:
        """The trailers are written."""
        if self.counted:
            self._let_go()
        self.connection.finished(self)

    def drained(self) -> None:
        """All that waited is written, and no trailers are there."""

    def cancel(self) -> None:
        """The client left, or broke a rule."""
        self.closed = True
        self.connection.outbox.forget(self)
        if self.counted:
            self._let_go()


class UnaryCall(Stream):
    """One message each way. It is the ``Call`` of its handler."""

    whole: bytes | None = None

    def data(self, payload: bytes, start: int, stop: int, size: int, ended: bool) -> None:
        """One DATA frame; most often the only one, with the only message."""
        if (
            ended
            and self.held is None
            and self.pieces is None
            and not self.closed
            and not self.ended
            and size == stop - start >= PREFIX_BYTES
        ):
            flag, length = PREFIX.unpack_from(payload, start)
            head = self.head
            if not flag and length == size - PREFIX_BYTES and head.content_length in (None, size):
                self.ended = True
                if length <= self.connection.max_message_bytes:
                    self._run(payload[start + PREFIX_BYTES : stop])
                    return
                self.ended = False
        Stream.data(self, payload, start, stop, size, ended)

    def message(self, message: bytes) -> None:
        """The message, which waits for END_STREAM: a second one is an error."""
        if self.whole is not None:
            self.fail(UNIMPLEMENTED, "this method takes one message, and more came")
        elif self._count(len(message)):
            self.whole = message

    def end(self) -> None:
        """The request is whole."""
        self.ended = True
        message, self.whole = self.whole, None
        if self.closed:
            return
        if message is None or self.unfinished:
            self.fail(INTERNAL, "the request ended before its message was whole; send all of it")
            return
        if self.counted:
            self._let_go()
        self._run(message)

    def _run(self, message: bytes) -> None:
        method = self.head.method
        assert isinstance(method, Unary)
        try:
            method.call(message, self)
        except Exception:
            log.exception("call_failed")
            self.fail(INTERNAL, FAILED)

    def reply(self, message: bytes) -> None:
        """Answer."""
        if not self.closed:
            self.closed = True
            self.on_cancel = None
            self.connection.outbox.reply(self, message)

    def overdue(self, now: float, timeout_s: float) -> bool:
        """Whether the request takes too long to arrive."""
        return not self.ended and now - self.began > timeout_s

    async def send(self, message: bytes) -> None:  # noqa: ARG002
        """Only streams send."""
        raise TypeError("a unary call has one answer: use reply")

    def cancel(self) -> None:
        """Tell the handler that nobody waits for its answer."""
        told, self.on_cancel = None if self.closed else self.on_cancel, None
        Stream.cancel(self)
        if told is not None:
            told()
