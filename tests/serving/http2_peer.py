"""A client that sends the HTTP/2 server any bytes, without a socket: each step is seen at once, and a clock can be set."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from fairway.serving.settings import ServeSettings
from fairway.serving.transports.http2.limits import Limits
from fairway.serving.transports.http2.server import make_http2
from tests.serving.http2_server import Service

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GREETING = PREFACE + SettingsFrame(0).serialize()
END_STREAM, END_HEADERS = "END_STREAM", "END_HEADERS"


class Transport:
    """Keeps what is written. ``full`` makes it behave like a socket whose other end does not read."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False
        self.full = False
        self.stuck = 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.closed
        if self.full:
            self.stuck += len(data)
        else:
            self.written += data

    def writelines(self, data: list[bytes | memoryview]) -> None:
        self.write(b"".join(data))

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write_eof(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def request_lines(path: bytes = b"/test/Echo", **changes: bytes | None) -> list[tuple[bytes, bytes]]:
    """The headers of a good call; ``changes`` replace one, or remove it."""
    lines = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    for name, value in changes.items():
        key = name.replace("_", "-").replace("pseudo-", ":").encode()
        if value is None:
            lines.pop(key)
        else:
            lines[key] = value
    return list(lines.items())


def message(payload: bytes, flag: int = 0) -> bytes:
    """A message of gRPC with its prefix."""
    return bytes((flag,)) + len(payload).to_bytes(4, "big") + payload


_loops: list[asyncio.AbstractEventLoop] = []


def shared_loop() -> asyncio.AbstractEventLoop:
    """One loop for all peers: making one costs more than most tests."""
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        atexit.register(_loops[0].close)
    return _loops[0]


class Clock:
    """The loop, with a time that is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._loop = loop
        self.now = now

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Peer:
    """One connection to a server of its own."""

    alive = 0

    def __init__(
        self, settings: ServeSettings | None = None, limits: Limits | None = None, *, greet: bool = True
    ) -> None:
        self.loop = shared_loop()
        Peer.alive += 1
        self.service = Service()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.transport = Transport()
        self.stopping = False

        async def make() -> Any:
            return make_http2(self.service.methods(), settings or ServeSettings(), lambda: self.stopping, limits)

        self.http2 = self.loop.run_until_complete(make())
        self.connection: Any = self.http2()
        self.connection.connection_made(self.transport)
        self._read = 0
        self.bodies: dict[int, bytes] = {}
        self.headers: dict[int, list[list[tuple[str, str]]]] = {}
        if greet:
            self.send(GREETING)

    def send(self, *what: Frame | bytes) -> list[Frame]:
        """Send frames or bytes in one piece; gives the frames that come back."""
        if not self.transport.closed:
            self.connection.data_received(b"".join(w if isinstance(w, bytes) else w.serialize() for w in what))
        return self.turn()

    def clock(self) -> Clock:
        """From now on, the connection's time is the clock's."""
        clock = Clock(self.loop, self.connection.now)
        self.connection.loop = clock
        return clock

    def turn(self, turns: int = 3) -> list[Frame]:
        """Let the loop run; gives the frames that came."""
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))
        return self._frames()

    def _frames(self) -> list[Frame]:
        found = []
        data = memoryview(bytes(self.transport.written))
        while self._read < len(data):
            frame, size = Frame.parse_frame_header(data[self._read : self._read + 9])
            frame.parse_body(data[self._read + 9 : self._read + 9 + size])
            assert self._read + 9 + size <= len(data), "half a frame"
            self._read += 9 + size
            found.append(frame)
            if isinstance(frame, DataFrame):
                self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
            elif isinstance(frame, HeadersFrame):
                assert END_HEADERS in frame.flags
                lines = [(str(name), str(value)) for name, value in self.decoder.decode(frame.data)]
                self.headers.setdefault(frame.stream_id, []).append(lines)
        return found

    def head(self, stream: int, lines: list[tuple[bytes, bytes]] | None = None, *flags: str) -> HeadersFrame:
        """HEADERS of a call."""
        block = self.encoder.encode(request_lines() if lines is None else lines)
        return HeadersFrame(stream, block, flags=[END_HEADERS, *flags])

    def block(self, lines: list[tuple[bytes, bytes]] | None = None) -> bytes:
        """A header block."""
        return bytes(self.encoder.encode(request_lines() if lines is None else lines))

    def call(self, stream: int, payload: bytes = b"hello", path: bytes = b"/test/Echo") -> bytes:
        """A whole call."""
        return bytes(self.head(stream, request_lines(path)).serialize() + data(stream, message(payload)).serialize())

    def status(self, stream: int) -> str | None:
        """The ``grpc-status`` that came."""
        lines = [line for block in self.headers.get(stream, []) for line in block]
        return dict(lines).get("grpc-status")

    def answer(self, stream: int) -> bytes:
        """The first message that came."""
        body = self.bodies[stream]
        assert len(body) == 5 + int.from_bytes(body[1:5], "big")
        return body[5:]

    def works(self, stream: int = 1001) -> bool:
        """Whether a good call works."""
        self.send(self.call(stream, b"still"))
        return not self.transport.closed and self.status(stream) == "0" and self.answer(stream) == b"still"

    def close(self) -> None:
        """End it, as a client that leaves."""
        Peer.alive -= 1
        self.connection.connection_lost(None)
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))
        assert Peer.alive or not asyncio.all_tasks(self.loop)
        assert not self.http2.connections
        assert self.http2.held.bytes == 0


def data(stream: int, payload: bytes = b"", *flags: str, end: bool = True) -> DataFrame:
    """DATA, most often with END_STREAM."""
    return DataFrame(stream, payload, flags=[*flags, *([END_STREAM] if end else [])])


@contextmanager
def peer(settings: ServeSettings | None = None, limits: Limits | None = None, *, greet: bool = True) -> Iterator[Peer]:
    """A peer, which leaves at the end: by then nothing may be held, and no task run."""
    made = Peer(settings, limits, greet=greet)
    try:
        yield made
    finally:
        made.close()


def goaway_code(frames: list[Frame]) -> int | None:
    """The code of the last GOAWAY."""
    return next((int(frame.error_code) for frame in reversed(frames) if isinstance(frame, GoAwayFrame)), None)


def reset_codes(frames: list[Frame]) -> dict[int, int]:
    """Codes of RST_STREAM by stream."""
    return {frame.stream_id: int(frame.error_code) for frame in frames if isinstance(frame, RstStreamFrame)}


__all__ = [
    "END_HEADERS",
    "END_STREAM",
    "GREETING",
    "PREFACE",
    "ContinuationFrame",
    "DataFrame",
    "Frame",
    "HeadersFrame",
    "Peer",
    "PingFrame",
    "RstStreamFrame",
    "SettingsFrame",
    "WindowUpdateFrame",
    "data",
    "goaway_code",
    "message",
    "peer",
    "request_lines",
    "reset_codes",
]
