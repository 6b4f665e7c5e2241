"""One client's connection: its streams, its end, and its patience. What it reads is :mod:`.connection`'s."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from fairway.serving.transports.grpc.base import INTERNAL
from fairway.serving.transports.http2 import frames
from fairway.serving.transports.http2.frames import ConnectionFault
from fairway.serving.transports.http2.limits import Bucket
from fairway.serving.transports.http2.outbox import Outbox
from fairway.serving.transports.http2.stream import Stream
from fairway.serving.transports.untaken import drop, in_kernel

if TYPE_CHECKING:
    from fairway.serving.transports.http2.server import Http2

log = logging.getLogger(__name__)

DRAIN_PING: Final = b"fairway!"
_ALIVE_PING: Final = b"fairway?"
_OLD_S: Final = 0.1
_REMEMBERED: Final = 4096
_FINAL_S: Final = 1.0
_LINGER_S: Final = 1.0


class Link(asyncio.Protocol):
    """The socket's protocol, but for ``data_received``.

    Attributes
    ----------
    streams : dict of int to Stream
        Open ones.
    last_stream : int
        The highest number that the client used.
    now : float
        The loop's time when something last came.
    draining : bool
        The client was told, or says, that no new streams are to come soon.
    """

    def __init__(self, server: Http2) -> None:
        self._server = server
        self.loop = server.loop
        self.limits = limits = server.limits
        self.held = server.held
        self.max_message_bytes = server.settings.max_body_bytes
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0
        self.peer = ""
        self.draining = False
        self._final = False  # and none are taken
        self._closing = False
        self._reset: dict[int, None] = {}  # streams that this side reset: frames of theirs may still be on their way
        self._resets = Bucket(limits.resets, limits.resets_per_s)
        self.now = self.loop.time()
        self._buffer = bytearray()  # what came of a frame
        self._partial_since: float | None = self.now  # since when the client owes the rest of something
        self._idle_since = self.now
        self._pinged_at: float | None = None
        self._final_at = 0.0
        self._stuck: tuple[int, float] | None = None
        self._lingers_until = 0.0

    def connection_made(self, transport: Any) -> None:
        """A client connected: say what it may do."""
        self.transport = transport
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
        limits = self.limits
        self.outbox = Outbox(self.loop, transport, limits.unsent_bytes or self.max_message_bytes)
        self._server.connections.add(self)
        announced = {
            frames.MAX_CONCURRENT_STREAMS: limits.streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_FRAME_SIZE: limits.frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: self._server.header_bytes,
        }
        self.outbox.put(frames.settings(announced) + frames.window_update(0, limits.connection_window - 65535))

    def _take_reset(self, stream: Stream | None) -> None:
        if (stream is None or self.now - stream.began < _OLD_S) and not self._resets.take(self.now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many streams are reset")

    # -- for streams

    def window_update(self, stream: int, increment: int) -> None:
        """Let the client send more."""
        self.outbox.put(frames.window_update(stream, increment))

    def reset(self, number: int, code: int) -> None:
        """End one stream by RST_STREAM: its client broke a rule, or is refused."""
        stream = self.streams.pop(number, None)
        if stream is None or not stream.ended:
            self._remember(number)
        self.outbox.put(frames.rst_stream(number, code))
        if stream is not None:
            stream.cancel()
        self._take_reset(stream)
        self._after()

    def finished(self, stream: Stream) -> None:
        """The answer is written."""
        if self.streams.pop(stream.id, None) is None:
            return
        if not stream.ended:  # the client still sends what nobody will read
            self._remember(stream.id)
            self.outbox.put(frames.rst_stream(stream.id, frames.NO_ERROR))
        if not self.streams:
            self._after()

    def _remember(self, number: int) -> None:
        if len(self._reset) >= _REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = None

    def _after(self) -> None:
        """A stream ended."""
        if not self.streams:
            self._idle_since = self.now
            if self._final and not self._closing:
                self._linger()

    # -- the end

    def drain(self) -> None:
        """Take no new calls soon, answer those that are open, then close: a GOAWAY that warns, then one that is final."""
        if self.draining or self._closing:
            return
        self.draining = True
        self._final_at = self.loop.time() + _FINAL_S
        self.outbox.put(
            frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR) + frames.frame(frames.PING, 0, 0, DRAIN_PING)
        )

    def _finish_drain(self) -> None:
        if not self._final:
            self._final = True
            self.outbox.put(frames.goaway(self.last_stream, frames.NO_ERROR))
            self._after()

    def end(self, code: int, text: str = "") -> None:
        """GOAWAY, and close; what is open is cancelled."""
        if self._closing:
            return
        log.debug("http2_connection_ended", extra={"code": code, "reason": text, "peer": self.peer})
        self.outbox.put(frames.goaway(self.last_stream, code, text))
        self._cancel_all()
        self._close()

    def _linger(self) -> None:
        """Send no more, and let the client close: what it still sends, such as window updates, must not meet a closed
        socket, whose reset would take away the end of an answer that it has not read.
        """
        self._closing = True
        self._lingers_until = self.loop.time() + _LINGER_S
        self.outbox.shut()

    def _close(self) -> None:
        self._closing = True
        self.outbox.flush()
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self.transport.abort()

    def _cancel_all(self) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.cancel()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone: its calls are cancelled."""
        self._closing = True
        self._server.connections.discard(self)
        self._cancel_all()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.outbox.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self.outbox.resume()

    def eof_received(self) -> bool:
        """The client sends no more; what it asked for is still answered."""
        if self._buffer or not self.streams:
            return False
        self.draining = self._final = True
        for stream in [stream for stream in self.streams.values() if not stream.ended]:
            stream.fail(INTERNAL, "the connection ended before the request was whole; send all of it")
        return True

    # -- clients that hold things up

    def check(self, now: float) -> None:
        """End the connection if its client takes too long; called every now and then."""
        settings = self._server.settings
        self._check_reader(now, settings.read_timeout_s)
        if self._closing:
            return
        if self._partial_since is not None and now - self._partial_since > settings.read_timeout_s:
            self.end(frames.ENHANCE_YOUR_CALM, "a frame took too long to arrive")
        elif self.draining and not self._final and now > self._final_at:
            self._finish_drain()
        elif not self.streams:
            if now - self._idle_since > settings.keep_alive_s:
                self.drain()
        else:
            self._check_silence(now, settings.read_timeout_s)
            self._check_uploads(now, settings.read_timeout_s)

    def _check_reader(self, now: float, timeout_s: float) -> None:
        """Drop a client that does not take its answers."""
        buffered = self.transport.get_write_buffer_size() + (in_kernel(self.transport) if self._closing else 0)
        if not self.outbox.unsent + buffered:
            self._stuck = None
            if self._closing and now >= self._lingers_until:
                self.transport.abort()
            return
        taken = self.outbox.progress - buffered
        if self._stuck is None or taken > self._stuck[0]:
            self._stuck = taken, now
        elif now - self._stuck[1] > timeout_s:
            self._closing = True
            drop(self.transport)

    def _check_silence(self, now: float, timeout_s: float) -> None:
        """Ask a client with open calls that says nothing whether it is still there."""
        if now - self.now <= timeout_s:
            self._pinged_at = None
        elif self._pinged_at is None:
            self._pinged_at = now
            self.outbox.put(frames.frame(frames.PING, 0, 0, _ALIVE_PING))
        elif now - self._pinged_at > timeout_s:
            self.abort()

    def _check_uploads(self, now: float, timeout_s: float) -> None:
        for stream in tuple(self.streams.values()):
            if stream.overdue(now, timeout_s):
                stream.too_slow(timeout_s)
