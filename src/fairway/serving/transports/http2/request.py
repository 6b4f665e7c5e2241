"""The head of a request: checked, and made into what a call needs (RFC 9113, 8; gRPC's PROTOCOL-HTTP2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from fairway.serving.transports.grpc.base import (
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Method,
)
from fairway.serving.transports.http2.frames import PROTOCOL_ERROR, StreamFault
from fairway.serving.transports.http2.framing import http_status, parse_timeout, trailers
from fairway.serving.transports.http2.hpack import Lines

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?![ \t])[^\x00\r\n]*(?<![ \t])")
_GRPC: Final = re.compile(rb"application/grpc(\+proto)?(;.*)?", re.IGNORECASE)
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_FORBIDDEN: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_ENCODINGS: Final = frozenset({b"identity", b"gzip", b"deflate"})


class Head(msgspec.Struct, frozen=True, eq=False):
    """One request's head. Requests with equal headers share it.

    Attributes
    ----------
    method : Unary, Streaming or None
        What answers it; ``None`` if ``refusal`` does.
    metadata : mapping of bytes to bytes
    deadline_s : float or None
    encoding : bytes or None
        Of compressed messages.
    content_length : int or None
    refusal : tuple of bytes and bool
        The header block that refuses it, empty if nothing does; whether it is one of gRPC (and so wants the rest of its
        headers before it).
    """

    method: Method | None
    metadata: Mapping[bytes, bytes]
    deadline_s: float | None = None
    encoding: bytes | None = None
    content_length: int | None = None
    refusal: tuple[bytes, bool] = (b"", False)


def head_reader(methods: Mapping[bytes, Method], max_bytes: int) -> Callable[[Lines], Head]:
    """What makes a :class:`Head` of decoded headers; raises ``StreamFault`` if they are malformed."""

    def read(lines: Lines) -> Head:
        pseudo, metadata = _fields(lines)
        length = _content_length(metadata)
        method = pseudo.get(b":method")
        path = pseudo.get(b":path", b"")
        if method is None or (method != b"CONNECT" and (not path or b":scheme" not in pseudo)):
            raise _malformed("lacks one of :method, :scheme and :path")
        if b"host" in metadata and metadata[b"host"] != pseudo.get(b":authority", metadata[b"host"]):
            raise _malformed("has a host other than its :authority")

        def refuse(block: bytes, *, grpc: bool = True) -> Head:
            return Head(None, metadata, content_length=length, refusal=(block, grpc))

        if method != b"POST":
            return refuse(http_status(405), grpc=False)
        if not _GRPC.fullmatch(metadata.get(b"content-type", b"")):
            return refuse(http_status(415), grpc=False)
        if sum(len(name) + len(value) + 32 for name, value in lines) > max_bytes:
            return refuse(trailers(RESOURCE_EXHAUSTED, f"the metadata is larger than {max_bytes:,} bytes; send less"))
        if path not in methods:
            said = path[:200].decode("utf-8", "replace")
            return refuse(trailers(UNIMPLEMENTED, f"this server has no method {said}"))
        encoding = metadata.get(b"grpc-encoding", b"identity")
        if encoding not in _ENCODINGS:
            said = encoding[:200].decode("utf-8", "replace")
            return refuse(
                trailers(UNIMPLEMENTED, f"grpc-encoding {said!r} is not read here; send identity, gzip or deflate")
            )
        timeout = metadata.get(b"grpc-timeout")
        deadline_s = None if timeout is None else parse_timeout(timeout)
        if timeout is not None and deadline_s is None:
            return refuse(
                trailers(INVALID_ARGUMENT, "grpc-timeout is malformed; send up to 8 digits and one of HMSmun")
            )
        compressed = encoding if encoding != b"identity" else None
        return Head(methods[path], metadata, deadline_s, compressed, length)

    return read


def _fields(lines: Lines) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    pseudo: dict[bytes, bytes] = {}
    metadata: dict[bytes, bytes] = {}
    for name, value in lines:
        if not _VALUE.fullmatch(value):
            raise _malformed("has a header value with forbidden characters")
        if name[:1] == b":":
            if metadata or name in pseudo or name not in _PSEUDO:
                raise _malformed("has a pseudo-header that is unknown, doubled or late")
            pseudo[name] = value
            continue
        check_field(name, value)
        if name not in metadata:
            metadata[name] = value
        elif name == b"content-length" and metadata[name] != value:
            raise _malformed("has two different content-length")
        elif name != b"content-length":
            metadata[name] += (b"; " if name == b"cookie" else b",") + value
    return pseudo, metadata


def check_field(name: bytes, value: bytes) -> None:
    """Raise ``StreamFault`` for a field that HTTP/2 forbids (RFC 9113, 8.2)."""
    if not _NAME.fullmatch(name):
        raise _malformed("has a header name with forbidden characters")
    if name in _FORBIDDEN or (name == b"te" and value.lower() != b"trailers"):
        raise _malformed(f"has the header {name.decode()}, which is about an HTTP/1 connection")


def check_trailers(lines: Lines) -> None:
    """Raise ``StreamFault`` if a client's trailers are malformed."""
    for name, value in lines:
        if not _VALUE.fullmatch(value):
            raise _malformed("has a trailer value with forbidden characters")
        check_field(name, value)


def _content_length(metadata: Mapping[bytes, bytes]) -> int | None:
    value = metadata.get(b"content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise _malformed("has a content-length that is no number")
    return int(value)


def _malformed(what: str) -> StreamFault:
    return StreamFault(PROTOCOL_ERROR, f"the request {what}")
