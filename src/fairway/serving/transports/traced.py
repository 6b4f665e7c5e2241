"""What HTTP says about a trace: where it comes from, and what its span tells of the request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

PARENT, STATE = b"traceparent", b"tracestate"
LINES = frozenset({PARENT, STATE})

_NAME = b"raceparent: 00-"
_BEFORE = (b"\r\nt", b"\r\nT")
_VALUE_BYTES = 55
_OF_VALUE = b"0123456789abcdef-"
_STATE_LINE = re.compile(rb"\r\n[Tt]racestate: [!-~][ -~]*(?=\r\n[^ \t])")


def without_parent(head: bytes) -> tuple[bytes, bytes | None, int]:
    r"""A request's head without its ``traceparent`` and ``tracestate``, the former's value, and how many lines that were.

    They are another for each request, and the rest of the head is not. What is not written in the usual way stays.

    Examples
    --------
    >>> line = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    >>> without_parent(b"POST / HTTP/1.1\r\nhost: a\r\n" + line + b"\r\n\r\n")[::2]
    (b'POST / HTTP/1.1\r\nhost: a\r\n\r\n', 1)
    """
    name = head.find(_NAME)
    if name < 0 or head[name - 3 : name] not in _BEFORE:
        return head, None, 0
    start = name + len(_NAME) - 3
    end = start + _VALUE_BYTES
    value = head[start:end]
    if value.translate(None, _OF_VALUE) or head[end : end + 2] != b"\r\n" or head[end + 2 : end + 3] in (b" ", b"\t"):
        return head, None, 0
    head = head[: name - 3] + head[end:]
    cut = 1
    if b"racestate: " in head:
        head, states = _STATE_LINE.subn(b"", head, 1)
        cut += states
    return head, value, cut


def parent(lines: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The ``traceparent`` among lower-case header lines, if there is one, and no other."""
    found = [value for name, value in lines if name == PARENT]
    return found[0] if len(found) == 1 else None


def attributes(
    path: str, status: int, *, host: bytes, client: Sequence[Any] | None, versioned: str | None
) -> dict[str, Any]:
    """A server span's attributes, by OpenTelemetry's semantic conventions for HTTP. 499: the client left.

    Examples
    --------
    >>> said = attributes("/v2/models/a/infer", 200, host=b"b:8000", client=None, versioned=None)
    >>> said["http.route"], said["server.address"], said["server.port"]
    ('/v2/models/{model}/infer', 'b', 8000)
    """
    name, colon, port = host.decode("latin-1").rpartition(":")
    said: dict[str, Any] = {
        "http.request.method": "POST",
        "http.route": f"/v2/models/{{model}}{'' if versioned is None else '/versions/{version}'}/infer",
        "url.path": path,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    if status != 499:
        said["http.response.status_code"] = status
    if colon and port.isdecimal():
        said |= {"server.address": name.strip("[]"), "server.port": int(port)}
    elif host:
        said["server.address"] = host.decode("latin-1")
    if client:
        said |= {"client.address": client[0], "client.port": client[1]}
    return said
