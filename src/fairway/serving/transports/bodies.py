"""Request bodies: their limit and their compression."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from fairway.core.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

COMPRESS_ABOVE = 1024
"""Bytes up to which an answer is not compressed: that costs more than it saves."""

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
