"""Request bodies: their limit and their compression."""

from __future__ import annotations

import zlib

from fairway.core.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

_WINDOW = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # "deflate" means zlib (RFC 9110, 8.4.1.2)


def too_large(limit: int) -> RequestTooLarge:
    """The error for a body above ``limit`` bytes."""
    return RequestTooLarge(
        f"the body is larger than this server takes ({limit:,} bytes); send fewer rows at a time, or raise "
        "max_body_bytes in [serve]"
    )


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a Content-Encoding.

    Raises
    ------
    UnsupportedEncoding
        If it is none of gzip, deflate and identity.
    RequestTooLarge
        If the content has more than ``limit`` bytes; no more than that is ever held.
    InvalidRequest
        If the body is damaged.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(b",")]):
        if name in (b"", b"identity"):
            continue
        if name not in _WINDOW:
            raise UnsupportedEncoding(
                f"Content-Encoding {name.decode('latin-1')!r} is not read here; send gzip, deflate or no encoding"
            )
        body = _inflate(body, name, limit)
    return body


def _inflate(body: bytes, name: bytes, limit: int) -> bytes:
    said = name.decode()
    inflater = zlib.decompressobj(_WINDOW[name])
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {said}, which its Content-Encoding says: {error}") from None
    if len(content) > limit:
        raise too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequest(f"the {said} body is truncated or has bytes after its end; send it again")
    return content
