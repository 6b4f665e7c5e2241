"""Request bodies: their limit and their compression."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable

from fairway.core.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

COMPRESS_ABOVE = 1024
"""Bytes up to which an answer is not compressed: that costs more than it saves."""

_MAX_LAYERS = 4
LARGE = 2**18
"""Bytes from which on compressing and decompressing are done on a thread: the event loop would wait for milliseconds."""

_LEVEL = 1  # of 9: numbers hardly get smaller at higher ones, and the server waits
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
        If it is none of gzip, deflate and identity, or more than four of them.
    RequestTooLarge
        If the content has more than ``limit`` bytes; no more than that is ever held.
    InvalidRequest
        If the body is damaged.
    """
    layers = [name for part in encoding.split(b",") if (name := part.strip().lower()) not in (b"", b"identity")]
    if len(layers) > _MAX_LAYERS:  # each may be as large as the limit, and the loop waits for it
        raise UnsupportedEncoding(f"the body is encoded {len(layers)} times; at most {_MAX_LAYERS} times is read here")
    for name in reversed(layers):
        if name not in _WINDOW:
            raise UnsupportedEncoding(
                f"Content-Encoding {name.decode('latin-1')!r} is not read here; send gzip, deflate or no encoding"
            )
        body = _inflate(body, name, limit)
    return body


def decompress_small(body: bytes, encoding: bytes, limit: int) -> bytes | None:
    """As :func:`decompress`, but ``None`` where the body or its content is so large that it is work for a thread."""
    if len(body) > LARGE:
        return None
    try:
        return decompress(body, encoding, min(limit, LARGE))
    except RequestTooLarge:
        if limit <= LARGE:
            raise
        return None


async def decompressed(body: bytes, encoding: bytes, limit: int) -> bytes:
    """As :func:`decompress`, on a thread where that takes long."""
    content = decompress_small(body, encoding, limit)
    return await asyncio.to_thread(decompress, body, encoding, limit) if content is None else content


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


def chosen_encoding(accepts: bytes, size: int) -> bytes | None:
    """How to compress an answer of ``size`` bytes: ``gzip`` or ``deflate``, whichever an Accept-Encoding prefers, or not.

    Examples
    --------
    >>> chosen_encoding(b"deflate;q=0.5, gzip", 5000), chosen_encoding(b"gzip;q=0", 5000), chosen_encoding(b"gzip", 50)
    (b'gzip', None, None)
    """
    if not accepts or size <= COMPRESS_ABOVE:
        return None
    weights: dict[bytes, float] = {}
    for part in accepts.lower().split(b","):
        name, _, parameter = part.partition(b";")
        weights[name.strip().removeprefix(b"x-")] = _weight(parameter)
    rest = weights.get(b"*", 0.0)
    best = max((b"gzip", b"deflate"), key=lambda name: weights.get(name, rest))
    weight = weights.get(best, rest)
    return best if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def encoded(encoding: bytes) -> dict[bytes, bytes]:
    """The headers that tell of an answer's encoding."""
    return {b"content-encoding": encoding, b"vary": b"accept-encoding"}


def compress(parts: Iterable[bytes | bytearray | memoryview], encoding: bytes) -> bytes:
    """The content of ``parts`` as one, in ``encoding``: ``gzip`` or ``deflate``."""
    deflater = zlib.compressobj(_LEVEL, wbits=_WINDOW[encoding])
    pieces = [deflater.compress(part) for part in parts]
    return b"".join((*pieces, deflater.flush()))


def _weight(parameter: bytes) -> float:
    """Of ``q=0.5`` (RFC 9110, 12.4.2); none is 1, and one that cannot be read is 0."""
    name, _, value = parameter.partition(b"=")
    if name.strip() != b"q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
