"""gRPC over HTTP/2: what is always the same bytes, and what is escaped or parsed (the protocol's PROTOCOL-HTTP2 document).

Nothing here uses the client's dynamic table, so that a header block is a constant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from struct import Struct
from typing import Final

from fairway.serving.transports.http2.frames import END_HEADERS, END_STREAM, HEADERS, U32, frame

PREFIX: Final = Struct(">BL")
"""Compressed flag and length: what stands before every message."""
PREFIX_BYTES: Final = 5
_MAX_TEXT_BYTES: Final = 2048
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def line(name: bytes, value: bytes) -> bytes:
    """One header line, literal and never indexed by the peer."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 0x7F:
        return bytes((size,)) + text
    size -= 0x7F
    head = bytearray(b"\x7f")
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + text


RESPONSE: Final = (
    b"\x88"  # :status: 200
    + line(b"content-type", b"application/grpc")
    + line(b"grpc-accept-encoding", b"identity,deflate,gzip")
)
"""The block of headers before an answer."""
OK_TRAILERS: Final = line(b"grpc-status", b"0")
TABLE_UPDATE: Final = b"\x20"
"""Says that this side's table has no entries: owed once to a client that allows fewer bytes than the default."""

_HEADERS_HEAD: Final = frame(HEADERS, END_HEADERS, 0, RESPONSE)[:5]
_TRAILERS_HEAD: Final = frame(HEADERS, END_HEADERS | END_STREAM, 0, OK_TRAILERS)[:5]
_REPLY: Final = Struct(f">5sL{len(RESPONSE)}sHBHLBL")
_END: Final = Struct(f">5sL{len(OK_TRAILERS)}s")


def reply_head(stream: int, size: int) -> bytes:
    """All that stands before an answer of ``size`` bytes which fits one DATA frame."""
    data = size + PREFIX_BYTES
    return _REPLY.pack(_HEADERS_HEAD, stream, RESPONSE, data >> 8, data & 0xFF, 0, stream, 0, size)


def reply_end(stream: int) -> bytes:
    """All that stands after an answer: status OK."""
    return _END.pack(_TRAILERS_HEAD, stream, OK_TRAILERS)


def http_status(status: int) -> bytes:
    """The block of an answer that is not gRPC: its HTTP status alone."""
    return line(b":status", b"%d" % status)


def trailers(status: int, text: str, metadata: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The block of trailers for a status other than OK."""
    block = line(b"grpc-status", b"%d" % status)
    if text:
        block += line(b"grpc-message", escape(text))
    return block + b"".join(line(name, value) for name, value in metadata)


def escape(text: str) -> bytes:
    """Percent-encode a ``grpc-message``, and shorten it to what every client takes.

    Examples
    --------
    >>> escape("50 % of naïve")
    b'50 %25 of na%C3%AFve'
    """
    pieces = []
    left = _MAX_TEXT_BYTES
    for character in text:
        piece = b"".join(bytes((b,)) if b in _PLAIN else b"%%%02X" % b for b in character.encode("utf-8", "replace"))
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
    return b"".join(pieces)


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a ``grpc-timeout``, ``None`` if it is malformed.

    Examples
    --------
    >>> parse_timeout(b"250m"), parse_timeout(b"1 hour") is None
    (0.25, True)
    """
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else None


def header_frames(stream: int, block: bytes, *, end: bool, frame_bytes: int) -> bytes:
    """A HEADERS frame for ``block``, with CONTINUATION frames if it is larger than the client's frames."""
    flags = END_STREAM if end else 0
    if len(block) <= frame_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    whole = [frame(HEADERS, flags, stream, block[:frame_bytes])]
    for at in range(frame_bytes, len(block), frame_bytes):
        last = END_HEADERS if at + frame_bytes >= len(block) else 0
        whole.append(frame(9, last, stream, block[at : at + frame_bytes]))
    return b"".join(whole)


def data_head(stream: int, size: int) -> bytes:
    """The head of a DATA frame that does not end its stream."""
    return b"%c%b\x00\x00%b" % (size >> 16, (size & 0xFFFF).to_bytes(2, "big"), U32.pack(stream))
