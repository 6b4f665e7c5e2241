"""What is on its way to one client: written once per turn of the loop, and no faster than the client allows."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from fairway.serving.transports.grpc.base import RESOURCE_EXHAUSTED, Metadata
from fairway.serving.transports.http2 import frames, framing
from fairway.serving.transports.http2.frames import ConnectionFault, StreamFault

if TYPE_CHECKING:
    from fairway.serving.transports.http2.stream import Stream

_WRITE_BYTES: Final = 256 * 1024
_COPIED_BYTES: Final = 32768  # in one piece, so much is sent sooner than in many
_DEFAULT_WINDOW: Final = 65535
_DEFAULT_FRAME: Final = 16384
_MIN_TABLE_BYTES: Final = 4096


class Outbox:
    """The sending side of one connection.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    transport : asyncio.Transport
    limit : int
        Bytes of answers that the client may leave unread before its calls are refused (``full``). At four times that,
        answers are replaced by RESOURCE_EXHAUSTED.

    Attributes
    ----------
    window : int
        Bytes that the client takes on the connection.
    stream_window : int
        The same for a new stream.
    slow : bool
        Whether answers have to queue: the socket is full, others wait, or a new client is owed a table update.
    unsent : int
        Bytes that wait for a window or the socket.
    answers : int
        Frames of DATA sent so far.
    progress : int
        Bytes handed to the socket so far.
    """

    __slots__ = (
        "_frame_bytes",
        "_held_bytes",
        "_limit",
        "_loop",
        "_owes_update",
        "_parts",
        "_paused",
        "_scheduled",
        "_shut",
        "_transport",
        "_waiting",
        "answers",
        "progress",
        "slow",
        "stream_window",
        "unsent",
        "window",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Any, limit: int) -> None:
        self._loop = loop
        self._transport = transport
        self._limit = limit
        self._parts: list[bytes | memoryview] = []
        self._held_bytes = 0  # in parts
        self._scheduled = False
        self._paused = False
        self._owes_update = False
        self._shut = False
        self._frame_bytes = _DEFAULT_FRAME
        self._waiting: dict[int, Stream] = {}
        self.slow = False
        self.window = _DEFAULT_WINDOW
        self.stream_window = _DEFAULT_WINDOW
        self.unsent = 0
        self.answers = 0
        self.progress = 0

    # -- answers

    def reply(self, stream: Stream, message: bytes) -> None:
        """The whole answer of a unary call."""
        size = len(message)
        data = size + framing.PREFIX_BYTES
        if not self.slow and data <= stream.window and data <= self.window and data <= self._frame_bytes:
            self.window -= data
            self.answers += 1
            self._parts += (framing.reply_head(stream.id, size), message, framing.reply_end(stream.id))
            self._held_bytes += data
            if not self._scheduled:
                self._schedule()
            stream.sent()
            return
        if self.unsent + size > 4 * self._limit:
            text = "this client leaves too many answers unread; read them, or ask for less at a time"
            self.end(stream, RESOURCE_EXHAUSTED, text)
            return
        self.message(stream, message)
        self.end(stream)

    def message(self, stream: Stream, message: bytes) -> None:
        """One message of an answer, with the headers if it is the first."""
        self._start(stream)
        size = len(message)
        prefix = framing.PREFIX.pack(0, size)
        if stream.unsent is None:
            stream.unsent = deque()
        if size < 1024:
            stream.unsent.append(memoryview(prefix + message))
        else:
            stream.unsent += (memoryview(prefix), memoryview(message))
        self.unsent += size + framing.PREFIX_BYTES
        self._waiting[stream.id] = stream
        self.pump()

    def end(self, stream: Stream, status: int = 0, text: str = "", metadata: Metadata = ()) -> None:
        """The trailers, after what waits of the answer."""
        block = framing.trailers(status, text, metadata) if status else framing.OK_TRAILERS
        if not stream.started:
            block = framing.RESPONSE + block
        self.refuse(stream, block)

    def refuse(self, stream: Stream, block: bytes) -> None:
        """A header block that ends the stream, after what waits of the answer."""
        stream.trailers = block
        if stream.unsent:
            self._waiting[stream.id] = stream
        else:
            self._finish(stream)

    def _start(self, stream: Stream) -> None:
        if not stream.started:
            stream.started = True
            self._headers(stream.id, framing.RESPONSE, end=False)

    def _finish(self, stream: Stream) -> None:
        assert stream.trailers is not None
        self._headers(stream.id, stream.trailers, end=True)
        stream.sent()

    def _headers(self, stream: int, block: bytes, *, end: bool) -> None:
        if self._owes_update:
            self._owes_update = False
            block = framing.TABLE_UPDATE + block
            self._look()
        self.put(framing.header_frames(stream, block, end=end, frame_bytes=self._frame_bytes))

    def forget(self, stream: Stream) -> None:
        """Send nothing more of ``stream``."""
        if self._waiting.pop(stream.id, None) is not None:
            self.unsent -= sum(map(len, stream.unsent or ()))
            stream.unsent = None
            self._look()

    @property
    def full(self) -> bool:
        """Whether the client leaves so much unread that it gets no new calls."""
        return self.unsent + self._held_bytes > self._limit

    # -- the socket

    def put(self, data: bytes) -> None:
        """Send ``data`` with the others of this turn."""
        self._parts.append(data)
        self._held_bytes += len(data)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.flush)

    def hold(self) -> None:
        """Whoever calls this calls :meth:`flush` at the end of its own work."""
        self._scheduled = True

    def flush(self) -> None:
        """Hand all to the socket."""
        self._scheduled = False
        if self._parts:
            parts, self._parts = self._parts, []
            size, self._held_bytes = self._held_bytes, 0
            self.progress += size
            if self._shut or self._transport.is_closing():
                return
            if size < _COPIED_BYTES:
                self._transport.write(b"".join(parts))
            else:
                self._transport.writelines(parts)

    def shut(self) -> None:
        """Hand all to the socket, and nothing after it."""
        self.flush()
        self._shut = True
        if not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self) -> None:
        """The socket is full."""
        self._paused = True
        self.slow = True

    def resume(self) -> None:
        """The socket has room again."""
        self._paused = False
        self._look()
        self.pump()

    # -- flow control

    def settings(self, setting: int, value: int, streams: dict[int, Stream]) -> None:
        """One of the client's settings that bear on sending. Raises ``ConnectionFault`` if it is out of range."""
        if setting == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
            change = value - self.stream_window
            self.stream_window = value
            for stream in streams.values():
                stream.window += change
                if stream.window > frames.MAX_WINDOW:
                    raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a stream's window is too large")
        elif setting == frames.MAX_FRAME_SIZE:
            if not _DEFAULT_FRAME <= value < 2**24:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
            self._frame_bytes = min(value, _WRITE_BYTES)
        elif setting == frames.HEADER_TABLE_SIZE and value < _MIN_TABLE_BYTES:
            self._owes_update = True
            self.slow = True

    def widen(self, stream: Stream | None, increment: int) -> None:
        """A WINDOW_UPDATE, of one stream or the connection."""
        if stream is None:
            if self.window + increment > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self.window += increment
        else:
            if stream.window + increment > frames.MAX_WINDOW:
                raise StreamFault(frames.FLOW_CONTROL_ERROR, "the stream's window is too large")
            stream.window += increment

    def pump(self) -> None:
        """Send what waits, a frame of each stream in turn, while windows and socket have room."""
        moved = True
        while moved and not self._paused:
            moved = False
            for stream in tuple(self._waiting.values()):
                if self._paused:
                    break
                if min(stream.window, self.window) > 0 or not stream.unsent:
                    moved = True
                    self._send_frame(stream)
        self._look()

    def _send_frame(self, stream: Stream) -> None:
        room = min(stream.window, self.window, self._frame_bytes)
        pieces = []
        size = 0
        unsent = stream.unsent
        while unsent and size < room:
            piece = unsent.popleft()
            if size + len(piece) > room:
                unsent.appendleft(piece[room - size :])
                piece = piece[: room - size]
            pieces.append(piece)
            size += len(piece)
        if size:
            stream.window -= size
            self.window -= size
            self.answers += 1
            self.unsent -= size
            self._parts += (framing.data_head(stream.id, size), *pieces)
            self._held_bytes += size
            if not self._scheduled:
                self._schedule()
        if not unsent:
            del self._waiting[stream.id]
            if stream.trailers is not None:
                self._finish(stream)
            else:
                stream.drained()
        if self._held_bytes >= _WRITE_BYTES:
            scheduled = self._scheduled
            self.flush()
            self._scheduled = scheduled  # a flush that is on its way finds nothing

    def _look(self) -> None:
        self.slow = self._paused or self._owes_update or bool(self._waiting)
