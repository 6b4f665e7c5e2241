"""Frames of HTTP/2: their numbers, their heads, and those that are sent as they are (RFC 9113, 4 to 7)."""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x01
ACK: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
PRIORITIZED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

HEAD: Final = Struct(">HBBBL")
"""Length (16 high bits, 8 low bits), type, flags, stream."""
SETTING: Final = Struct(">HL")
U32: Final = Struct(">L")
_WITH_U32: Final = Struct(">HBBBLL")
_GOAWAY: Final = Struct(">HBBBLLL")


class ConnectionFault(Exception):
    """The client broke a rule that ends its connection: a GOAWAY with ``code``."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """The client broke a rule that ends one stream: a RST_STREAM with ``code``."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    r"""One whole frame.

    Examples
    --------
    >>> frame(SETTINGS, ACK, 0)
    b'\x00\x00\x00\x04\x01\x00\x00\x00\x00'
    """
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*item) for item in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return _WITH_U32.pack(0, 4, WINDOW_UPDATE, 0, stream, increment)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return _WITH_U32.pack(0, 4, RST_STREAM, 0, stream, code)


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame; ``text`` is for whoever reads a capture."""
    said = text.encode()[:200]
    return _GOAWAY.pack(0, 8 + len(said), GOAWAY, 0, 0, last_stream, code) + said
