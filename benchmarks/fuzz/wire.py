"""Clients that send anything and look closely at what comes back: over HTTP/1.1, and over HTTP/2 as gRPC."""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any, NamedTuple

import hpack
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

SOON_S = 20.0
ALLOWED = frozenset({501, 503, 504})
"""Answers above 499 that are documented: a method of HTTP that nobody knows, not ready, a deadline that passed."""
OUR_FAULT = "its log says why"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, {4: 2**20}).serialize()
_PING = PingFrame(0, b"thatsall").serialize()
_WITHOUT_BODY = frozenset({204, 304})


class Wrong(Exception):
    """What a server should not have done."""


class Answer(NamedTuple):
    """One answer over HTTP/1.1."""

    status: int
    headers: dict[str, str]
    body: bytes


def check(answer: Answer) -> None:
    """Raise :class:`Wrong` if a server should not answer so, whatever it was sent."""
    if answer.status >= 500 and answer.status not in ALLOWED:
        raise Wrong(f"status {answer.status}: {answer.body[:300]!r}")
    if answer.status < 400:
        return
    try:
        text = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        raise Wrong(f"status {answer.status} without an error in JSON: {answer.body[:300]!r}") from None
    if not isinstance(text, str) or not text or OUR_FAULT in text:
        raise Wrong(f"status {answer.status} with the error {text!r:.300}")


class Rest:
    """A connection that is kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._left = b""

    def ask(self, request: bytes) -> Answer:
        """Send one request and read its answer."""
        for fresh in (False, True):
            if self._socket is None:
                self._socket, self._left, fresh = connect(self._port), b"", True  # noqa: PLW2901
            try:
                self._socket.sendall(request)
                return self._read(self._socket)
            except OSError as error:
                self.close()
                if fresh:
                    raise Wrong(f"no answer: {error!r}") from None
            except EOFError:  # closed while idle, or a bad request before
                self.close()
                if fresh:
                    raise Wrong("the connection ended without an answer") from None
        raise AssertionError

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self, connection: socket.socket) -> Answer:
        while True:
            found = parse(self._left)
            if found is not None:
                answer, self._left = found
                if answer.status == 100:
                    continue
                if answer.headers.get("connection") == "close":
                    self.close()
                return answer
            received = connection.recv(2**18)
            if not received:
                raise EOFError
            self._left += received


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def parse(data: bytes) -> tuple[Answer, bytes] | None:
    """The first answer in ``data`` and what follows it; ``None`` if it is not whole yet."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        if data and not b"HTTP/1.1 ".startswith(data[:9]):
            raise Wrong(f"this is no answer: {data[:200]!r}")
        return None
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ", 2)
    if words[0] != b"HTTP/1.1" or len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise Wrong(f"this is no answer: {data[:200]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise Wrong(f"this is no header: {line!r}")
        headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
    status = int(words[1])
    if status < 200 or status in _WITHOUT_BODY:
        return Answer(status, headers, b""), rest
    if not headers.get("content-length", "").isdecimal():
        raise Wrong(f"an answer does not say how long it is: {head[:300]!r}")
    length = int(headers["content-length"])
    return (Answer(status, headers, rest[:length]), rest[length:]) if len(rest) >= length else None


def send_raw(port: int, pieces: list[bytes], patient: bool) -> None:
    """Send bytes on a connection of their own, end it, and check whatever comes until the server ends it too."""
    with connect(port) as connection:
        received = bytearray()
        try:
            for piece in pieces:
                connection.sendall(piece)
                _take(connection, received, 0.0)
            if patient:
                _take(connection, received, 0.02)
            connection.shutdown(socket.SHUT_WR)
            ends = time.monotonic() + SOON_S
            while _take(connection, received, max(0.0, ends - time.monotonic())):
                if time.monotonic() > ends:
                    raise Wrong("the connection is still open long after its client ended it")
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise Wrong("the server neither reads nor ends the connection") from None
    data = bytes(received)
    while data:
        found = parse(data)
        if found is None:
            return  # the connection was ended in the middle of it
        answer, data = found
        check(answer)


def _take(connection: socket.socket, received: bytearray, wait_s: float) -> bool:
    """Read what is there; whether more may come."""
    while select.select([connection], [], [], wait_s)[0]:
        data = connection.recv(2**18)
        if not data:
            return False
        received += data
    return True


class Call(NamedTuple):
    """The end of one call over gRPC."""

    status: int | None
    text: str
    messages: list[bytes]


class Http2:
    """A connection for gRPC. Its streams are asked one after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def call(self, path: bytes, body: bytes, extra: list[tuple[bytes, bytes]]) -> Call:
        """One call, from whole and correct frames."""
        for fresh in (False, True):
            if self._socket is None:
                self._open()
                fresh = True  # noqa: PLW2901
            stream = self._stream
            self._stream += 2
            block = self._encoder.encode([*head(path), *extra])
            frames: list[Frame] = [HeadersFrame(stream, block, flags=["END_HEADERS"])]
            cuts = range(0, max(len(body), 1), 16384)
            frames += [DataFrame(stream, body[at : at + 16384]) for at in cuts]
            frames[-1].flags.add("END_STREAM")
            try:
                assert self._socket is not None
                self._socket.sendall(b"".join(frame.serialize() for frame in frames))
                return self._until(stream)
            except (OSError, EOFError) as error:
                self.close()
                if fresh:
                    raise Wrong(f"no answer to a call: {error!r}") from None
        raise AssertionError

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        self._socket, self._buffer, self._stream = connect(self._port), b"", 1
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._socket.sendall(PREFACE + _window(0, 2**30))

    def _until(self, stream: int) -> Call:
        assert self._socket is not None
        lines: dict[str, str] = {}
        body = b""
        while True:
            found, self._buffer = frames_of(self._buffer)
            for frame in found:
                if isinstance(frame, GoAwayFrame) and frame.error_code:
                    self.close()
                    raise EOFError(f"GOAWAY {frame.error_code} {frame.additional_data!r:.200}")
                if isinstance(frame, HeadersFrame):
                    decoded = {str(n): str(v) for n, v in self._decoder.decode(frame.data)}
                    lines |= decoded if frame.stream_id == stream else {}
                if frame.stream_id != stream:
                    continue
                if isinstance(frame, DataFrame):
                    body += frame.data
                if isinstance(frame, RstStreamFrame):
                    check_call(lines)
                    return Call(None, f"RST_STREAM {frame.error_code}", [])
                if "END_STREAM" in frame.flags:
                    check_call(lines)
                    said = lines.get("grpc-status")
                    return Call(None if said is None else int(said), lines.get("grpc-message", ""), _messages(body))
            received = self._socket.recv(2**18)
            if not received:
                raise EOFError
            self._buffer += received


def head(path: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a call."""
    fixed = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"))
    return [*fixed, (b"te", b"trailers"), (b"content-type", b"application/grpc")]


def check_call(lines: dict[str, str]) -> None:
    """Raise :class:`Wrong` if these headers say that the server failed."""
    from urllib.parse import unquote

    status = lines.get(":status", "200")
    if status.startswith("5") and int(status) not in ALLOWED:
        raise Wrong(f":status {status}")
    text = unquote(lines.get("grpc-message", ""))
    if OUR_FAULT in text or lines.get("grpc-status") == "2":
        raise Wrong(f"grpc-status {lines.get('grpc-status')}: {text[:300]}")
    if lines.get("grpc-status", "0") != "0" and not text:
        raise Wrong(f"grpc-status {lines['grpc-status']} without a text")


def send_http2(port: int, pieces: list[bytes]) -> None:
    """Send bytes on a connection of their own, and check whatever comes back in a short time."""
    decoder = hpack.Decoder()
    received = bytearray()
    open_ = True
    with connect(port) as connection:
        try:
            for piece in [*pieces, _PING]:
                connection.sendall(piece)
                open_ = open_ and _take(connection, received, 0.0)
            ends = time.monotonic() + 0.06  # a mutated frame may have swallowed the ping
            while open_ and b"\x01\x00\x00\x00\x00thatsall" not in received and time.monotonic() < ends:
                open_ = _take(connection, received, 0.01)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise Wrong("the server neither reads nor ends the connection") from None
    if received.startswith(b"HTTP/1.1 "):
        return
    frames, _ = frames_of(bytes(received))
    for frame in frames:
        if isinstance(frame, HeadersFrame):
            check_call({str(name): str(value) for name, value in decoder.decode(frame.data)})
        if isinstance(frame, GoAwayFrame) and frame.error_code == 2:
            raise Wrong(f"GOAWAY INTERNAL_ERROR: {frame.additional_data!r:.200}")
        if isinstance(frame, RstStreamFrame) and frame.error_code == 2:
            raise Wrong("RST_STREAM INTERNAL_ERROR")


def frames_of(data: bytes) -> tuple[list[Any], bytes]:
    """Whole frames, and what is left."""
    view, at, found = memoryview(data), 0, []
    while len(data) - at >= 9:
        try:
            frame, size = Frame.parse_frame_header(view[at : at + 9])
            if len(data) - at - 9 < size:
                break
            frame.parse_body(view[at + 9 : at + 9 + size])
        except (HyperframeError, ValueError) as error:
            raise Wrong(f"these are no frames: {error!r} at {data[at : at + 30]!r}") from None
        found.append(frame)
        at += 9 + size
    return found, data[at:]


def _messages(body: bytes) -> list[bytes]:
    found = []
    while len(body) >= 5:
        size = int.from_bytes(body[1:5], "big")
        found.append(body[5 : 5 + size])
        body = body[5 + size :]
    return found


def _window(stream: int, size: int) -> bytes:
    from hyperframe.frame import WindowUpdateFrame

    return WindowUpdateFrame(stream, size).serialize()
