"""One client's connection: its frames, in order, each checked and handed on (RFC 9113)."""

# ruff: noqa: ARG002 (what handles a frame takes the same arguments for each kind of frame)

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fairway.serving.transports.grpc.base import Unary
from fairway.serving.transports.http2 import frames, framing
from fairway.serving.transports.http2.frames import HEAD, ConnectionFault, StreamFault
from fairway.serving.transports.http2.headers import HeaderBlocks
from fairway.serving.transports.http2.limits import Bucket
from fairway.serving.transports.http2.link import DRAIN_PING, Link
from fairway.serving.transports.http2.request import Head, check_trailers
from fairway.serving.transports.http2.stream import Stream, UnaryCall
from fairway.serving.transports.http2.streaming import StreamingCall

if TYPE_CHECKING:
    from fairway.serving.transports.http2.server import Http2

log = logging.getLogger(__name__)

_HTTP1: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ")
_NO_HTTP1: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 68\r\n\r\n"
    b"this port speaks gRPC (HTTP/2); for REST use the server's HTTP port\n"
)


class Connection(Link):
    """The protocol of one connection. :class:`~fairway.serving.transports.http2.server.Http2` makes them."""

    def __init__(self, server: Http2) -> None:
        super().__init__(server)
        limits = self.limits
        self._blocks: HeaderBlocks[Head] = HeaderBlocks(server.read_head, 4 * server.header_bytes)
        self._heads = self._blocks.kept
        self._need = frames.HEAD_BYTES  # bytes in the buffer before it is worth a look
        self._begun = False  # the preface is there
        self._greeted = False  # and the client's SETTINGS
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, what came of a header block
        self._continuations = 0
        self._room = limits.connection_window
        self._skipped: list[range] = []
        self._controls = Bucket(limits.controls, limits.controls_per_s)
        self._dribbles = Bucket(limits.dribbles, limits.dribbles_per_s)
        self._answers_at_ping = 0
        self._answers_at_update = 0

    def data_received(self, data: bytes) -> None:
        """Read the frames that are whole."""
        if self._closing:
            return
        self.now = self.loop.time()
        outbox = self.outbox
        outbox.hold()
        try:
            if not self._begun:
                data = bytes(self._buffer) + data
                self._buffer.clear()
                start = self._preface(data)
            else:
                start = self._complete(data) if self._buffer else 0
            at = self._read(data, start) if self._begun and start < len(data) and not self._closing else start
            if at < len(data) and not self._closing:
                self._buffer += memoryview(data)[at:]
            if self._buffer or self._block is not None:
                self._note_owed(at > start)
            else:
                self._partial_since = None
        except ConnectionFault as fault:
            self.end(fault.code, str(fault))
        except Exception:
            log.exception("http2_failed")
            self.end(frames.INTERNAL_ERROR)
        outbox.flush()

    def _complete(self, data: bytes) -> int:
        """Fill up the frame that came in part; gives where the rest of ``data`` begins."""
        buffer, at = self._buffer, 0
        while buffer:
            missing = self._need - len(buffer)
            buffer += memoryview(data)[at : at + missing]
            at = min(at + missing, len(data))
            if len(buffer) < self._need:
                break
            frame = bytes(buffer)
            buffer.clear()
            if self._read(frame, 0) == 0:  # only its head is there, and says what it needs
                buffer += frame
            elif self._block is None:
                self._partial_since = None
        return at

    def _note_owed(self, moved: bool) -> None:
        """Since when the client owes the rest of a frame, or of a header block."""
        if self._partial_since is None or (moved and self._block is None):
            self._partial_since = self.now

    def _preface(self, data: bytes) -> int:
        """Where frames begin."""
        size = len(frames.PREFACE)
        if data[:size] != frames.PREFACE[: len(data)]:
            if data.startswith(_HTTP1):
                self.outbox.flush()
                self._closing = True
                self.transport.write(_NO_HTTP1)
                self.transport.close()
                return len(data)
            raise ConnectionFault(frames.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(data) < size:
            return 0
        self._begun = True
        return size

    def _read(self, data: bytes, at: int) -> int:
        """Handle whole frames from ``at`` on; gives where the rest begins, and sets how much of it is needed."""
        end = len(data)
        limit = self.limits.frame_bytes
        unpack = HEAD.unpack_from
        while end - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            size = high << 8 | low
            if size > limit:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame has more than {limit:,} bytes")
            start = at + 9
            stop = start + size
            if self._block is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block is interrupted")
            if not self._greeted and kind != frames.SETTINGS:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame has to be SETTINGS")
            if stop > end:
                self._need = 9 + size
                return at
            stream &= 0x7FFFFFFF
            try:
                if kind < 10:
                    _HANDLERS[kind](self, data, start, stop, flags, stream)
                else:
                    self._control()
            except StreamFault as fault:
                self.reset(stream, fault.code)
            at = stop
            if self._closing:
                return end
        self._need = 9
        return at

    # -- frames

    def _on_data(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        size = stop - start
        room = self._room = self._room - size
        if room < self.limits.connection_window // 2:
            if room < 0:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
            self.window_update(0, self.limits.connection_window - room)
            self._room = self.limits.connection_window
        if flags & frames.PADDED:
            start, stop = self._unpad(data, start, stop)
        stream = self.streams.get(number)
        if stream is None:
            self._unknown(number)
            return
        if start == stop and not flags & frames.END_STREAM:
            self._control()
        stream.data(data, start, stop, size, bool(flags & frames.END_STREAM))

    def _on_headers(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if flags != frames.END_HEADERS:
            if number == 0:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS of stream 0")
            if flags & frames.PADDED:
                start, stop = self._unpad(data, start, stop)
            if flags & frames.PRIORITIZED:
                if stop - start < 5:
                    raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS without room for their priority")
                start += 5
            if not flags & frames.END_HEADERS:
                self._block = number, flags, bytearray(memoryview(data)[start:stop])
                self._continuations = 0
                return
        self._headers(data[start:stop], flags, number)

    def _on_continuation(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if self._block is None or self._block[0] != number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, block = self._block
        block += memoryview(data)[start:stop]
        self._continuations += 1
        if self._continuations > self.limits.continuations or len(block) > 4 * self._server.header_bytes:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "the request's headers are far too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers(bytes(block), first_flags, number)

    def _headers(self, block: bytes, flags: int, number: int) -> None:
        """A whole header block."""
        if number <= self.last_stream or not number & 1:
            self._late_headers(block, flags, number)
            return
        previous, self.last_stream = self.last_stream, number
        if number > previous + 2:
            self._skip(range(previous + 2 if previous else 1, number))
        head = self._heads.get(block)
        if head is None:
            head = self._blocks(block)
        outbox = self.outbox
        if len(self.streams) >= self.limits.streams or outbox.full or self._final:
            raise StreamFault(frames.REFUSED_STREAM, "too many streams")
        method = head.method
        stream: Stream = (UnaryCall if type(method) is Unary or method is None else StreamingCall)(
            self,
            number,
            head,
            outbox.stream_window,
            head.metadata,
            head.deadline_s,
            self.peer,
            self.now,
            self.limits.stream_window,
        )
        self.streams[number] = stream
        if flags & frames.END_STREAM:
            if head.content_length:
                raise StreamFault(frames.PROTOCOL_ERROR, "a content-length, and no DATA")
            stream.ended = True
        if method is None:
            self._refuse(stream, head)
            return
        if isinstance(stream, StreamingCall):
            stream.start()
        elif stream.ended:
            stream.end()

    def _refuse(self, stream: Stream, head: Head) -> None:
        block, grpc = head.refusal
        stream.closed = True
        self.outbox.refuse(stream, framing.RESPONSE + block if grpc else block)

    def _late_headers(self, block: bytes, flags: int, number: int) -> None:
        """Trailers, or HEADERS where none may be."""
        if not number & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        lines = self._blocks.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            self._unknown(number)
            return
        if stream.ended:
            raise StreamFault(frames.STREAM_CLOSED, "HEADERS after END_STREAM")
        if not flags & frames.END_STREAM:
            raise StreamFault(frames.PROTOCOL_ERROR, "trailers without END_STREAM")
        check_trailers(lines)
        if stream.head.content_length not in (None, stream.received):
            raise StreamFault(frames.PROTOCOL_ERROR, "DATA and content-length differ")
        stream.end()

    def _on_priority(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY of stream 0")
        self._control()
        if stop - start != 5:
            raise StreamFault(frames.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")

    def _on_rst_stream(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if stop - start != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
        stream = self.streams.pop(number, None)
        if stream is None:
            if number == 0 or number > self.last_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "RST_STREAM of an idle stream")
            self._reset.pop(number, None)
            self._control()
            return
        self._take_reset(stream)
        stream.cancel()
        self._after()

    def _on_settings(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        size = stop - start
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & frames.ACK:
            if size:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS with ACK are empty")
            if not self._greeted:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame has to be SETTINGS")
            self._control()
            return
        if size % 6:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS have 6 bytes each")
        self._control()
        self._greeted = True
        for at in range(start, stop, 6):
            setting, value = frames.SETTING.unpack_from(data, at)
            if setting == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is 0 or 1")
            self.outbox.settings(setting, value, self.streams)
        self.outbox.put(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.outbox.pump()

    def _on_push_promise(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "clients do not push")

    def _on_ping(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING of a stream")
        if stop - start != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING has 8 bytes")
        self._measure()
        payload = data[start:stop]
        if not flags & frames.ACK:
            self.outbox.put(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == DRAIN_PING and self.draining:
            self._finish_drain()

    def _on_goaway(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY of a stream")
        if stop - start < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY has 8 bytes and more")
        self._control()
        self.draining = True
        self._finish_drain()

    def _on_window_update(self, data: bytes, start: int, stop: int, flags: int, number: int) -> None:
        if stop - start != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        increment = frames.U32.unpack_from(data, start)[0] & 0x7FFFFFFF
        if increment < 256:
            self._dribble()
        stream = None
        if number:
            stream = self.streams.get(number)
            if stream is None:
                if number > self.last_stream:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of an idle stream")
                return
        if increment == 0:
            if number:
                raise StreamFault(frames.PROTOCOL_ERROR, "a window update of 0")
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a window update of 0")
        self.outbox.widen(stream, increment)
        if self.outbox.slow:
            self.outbox.pump()

    # -- rules that several frames share

    def _unpad(self, data: bytes, start: int, stop: int) -> tuple[int, int]:
        if start == stop or data[start] >= stop - start:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the padding is longer than its frame")
        return start + 1, stop - data[start]

    def _unknown(self, number: int) -> None:
        """DATA or HEADERS of a stream that is not open: it was closed, or never opened."""
        if number == 0 or number > self.last_stream or not number & 1 or any(number in gap for gap in self._skipped):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame of an idle stream")
        if number not in self._reset:
            raise ConnectionFault(frames.STREAM_CLOSED, "a frame of a closed stream")
        self._control()

    def _skip(self, gap: range) -> None:
        if len(self._skipped) < 100:
            self._skipped.append(gap)

    def _control(self) -> None:
        """A frame that carries no call onward."""
        if not self._controls.take(self.now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def _measure(self) -> None:
        """A PING. Clients that measure the line send one for each piece of an answer: those cost nothing, if they read."""
        before, self._answers_at_ping = self._answers_at_ping, self.outbox.answers
        if self.outbox.slow or before == self.outbox.answers:
            self._control()

    def _dribble(self) -> None:
        """A small window update: one for each small answer is honest, many for nothing make the server send crumbs."""
        before, self._answers_at_update = self._answers_at_update, self.outbox.answers
        if (self.outbox.slow or before == self.outbox.answers) and not self._dribbles.take(self.now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many small window updates")


_HANDLERS: Final = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_rst_stream,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window_update,
    Connection._on_continuation,
)
"""By the frame's type."""
