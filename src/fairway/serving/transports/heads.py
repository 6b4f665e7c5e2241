"""What the head of an infer request says. Read once: the next request with the same head, byte for byte, says the same."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from fairway.serving.routing import normal_version
from fairway.serving.transports import traced
from fairway.serving.transports.elsewhere import BINARY_HEADER
from fairway.serving.transports.rest import ROUTE_KEY

ENCODING = b"content-encoding"
_MAX_DIGITS = 18  # of a number of bytes
_ROUTE_KEY = ROUTE_KEY.encode()
_BINARY = BINARY_HEADER.encode()
_ACCEPTS = b"accept-encoding"
_CHUNKED = b"transfer-encoding"


class Head(msgspec.Struct, frozen=True, eq=False):
    """What the head of an infer request says.

    ``plain``: its body is V2 JSON as it stands; ``length`` is -1 if not told; ``accepts``: encodings of the answer;
    ``parent``: its ``traceparent``; ``json_size``: how much of its body, which is binary and as it stands, is JSON, 0 if
    that is still to be found out.
    """

    model: str
    version: str | None
    path: bytes
    headers: dict[bytes, bytes] = {}
    length: int = -1
    route_key: str | None = None
    plain: bool = True
    accepts: bytes = b""
    parent: bytes | None = None
    json_size: int = 0


def head_of(model: str, version: str | None, path: bytes, lines: list[tuple[bytes, bytes]]) -> Head:
    """From an infer route's path, its model and version, and the header's lines with names in lower case."""
    headers = dict(lines)
    for listed in (ENCODING, _ACCEPTS):  # lines of one name are one list (RFC 9110, 5.3)
        if listed in headers:
            headers[listed] = b",".join(value for name, value in lines if name == listed)
    key = headers.get(_ROUTE_KEY)
    length = -1 if _CHUNKED in headers else int(headers.get(b"content-length", -1))
    plain = _BINARY not in headers and ENCODING not in headers
    json_size = headers.get(_BINARY, b"") if ENCODING not in headers else b""
    route_key = None if key is None else key.decode("latin-1")
    return Head(
        model,
        version,
        path,
        headers,
        length,
        route_key,
        plain,
        headers.get(_ACCEPTS, b""),
        traced.parent(lines),
        int(json_size) if json_size.isdigit() and len(json_size) <= _MAX_DIGITS else 0,
    )


def infer_target(path: bytes) -> tuple[str, str | None] | None:
    """Model and version of an infer route's path, ``None`` for any other path.

    Examples
    --------
    >>> infer_target(b"/v2/models/digits/versions/01/infer")
    ('digits', '1')
    >>> infer_target(b"/v2/models/digits") is None
    True
    """
    try:
        parts = path.decode("ascii").split("/")
    except UnicodeDecodeError:
        return None
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer" or not all(parts[3:]):
        return None
    if len(parts) == 5:
        return unquote(parts[3]), None
    if len(parts) == 7 and parts[4] == "versions":
        return unquote(parts[3]), normal_version(unquote(parts[5]))
    return None
