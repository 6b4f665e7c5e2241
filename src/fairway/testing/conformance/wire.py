"""HTTP/1.1 by hand, for requests that no client library sends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fairway.testing.conformance.case import Unmet


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    strict: bool = False
    """Whether a refusal must say whose fault it was."""

    @property
    def json(self) -> Any:
        """The body, which must be JSON (bare NaN and Infinity are read)."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Unmet(f"the body is not JSON: {error}") from None

    @property
    def error(self) -> str:
        """The text under ``error`` of a refusal, which must have one."""
        body = self.json
        if not isinstance(body, dict) or not isinstance(body.get("error"), str) or not body["error"]:
            raise Unmet('a refusal\'s body must be {"error": "text"}')
        return str(body["error"])

    def shown(self) -> str:
        """The beginning, for people."""
        text = self.body[:400].decode("utf-8", "backslashreplace")
        return f"{self.status} {text}" + (f" … ({len(self.body)} bytes)" if len(self.body) > 400 else "")


class Connection:
    """One TCP connection: bytes out, answers in, each within ``timeout_s``."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout_s = timeout_s
        self._buffer = b""

    def send(self, data: bytes, *, pause_s: float = 0.0) -> None:
        """Write; then let the pieces arrive one by one."""
        self._socket.sendall(data)
        if pause_s:
            time.sleep(pause_s)

    def reply(self, *, to_head: bool = False) -> Reply:
        """The next answer, interim ones (1xx) among them; ``to_head``: it has no body whatever its length says."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if to_head or status < 200 or status in (204, 304):
            return Reply(status, headers)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Reply(status, headers, self._chunks())
        return Reply(status, headers, self._exactly(int(headers.get("content-length", "0"))))

    def closed(self) -> bool:
        """Whether the server closed, or closes within the timeout; what it still sends is dropped."""
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close."""
        self._socket.close()

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            body += self._exactly(size)
            self._exactly(2)
        self._until(b"\r\n")
        return body

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(end)
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return body

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise Unmet(f"no answer came within {self._timeout_s:g} s") from None
        except OSError as error:
            raise Unmet(f"the connection broke before the answer was whole: {error}") from None
        if not data:
            raise Unmet("the server closed the connection before the answer was whole")
        self._buffer += data


@contextmanager
def connected(host: str, port: int, timeout_s: float) -> Iterator[Connection]:
    """A connection, closed in the end."""
    connection = Connection(host, port, timeout_s)
    try:
        yield connection
    finally:
        connection.close()
