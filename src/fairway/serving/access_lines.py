"""The access log: one line per request, in ECS field names. Written so that a request of a small model hardly notices it.

Of a line, what is the same for many is made once: what it says of the request for each kind of request and client, and the time
for each millisecond.
"""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import msgspec
import orjson

access = logging.getLogger("fairway.access")
_ROOT = logging.getLogger()
_FAIRWAY = logging.getLogger("fairway")


class Entry(msgspec.Struct, frozen=True, eq=False):
    """What is said of requests that are alike: ``line`` but for its time, the duration and the answer's size.

    ``traced`` is a line that also has the ids of a trace.
    """

    method: str
    path: str
    status: int
    client: str
    grpc_status: int | None
    line: bytes
    traced: bytes


@lru_cache(1024)
def entry_of(method: str, path: str, status: int, client: str, grpc_status: int | None = None) -> Entry:
    """What lines of such requests have in common."""
    said = f"{method} {path} {status}" if grpc_status is None else f"{method} {path} {status} grpc {grpc_status}"
    line: dict[str, Any] = {
        "log.level": "info",
        "message": said,
        "client": {"address": client},
        "ecs.version": "1.6.0",
        "log": {"logger": access.name},
        "process": {"pid": os.getpid()},
        "url": {"path": path},
    }
    if grpc_status is not None:
        line["rpc"] = {"grpc": {"status_code": grpc_status}}
    begin = f'{_json(line)[1:-1]},"event":{{"duration":'.replace("%", "%%")
    middle = f'}},"http":{{"request":{{"method":{_json(method)}}},"response":{{"body":{{"bytes":'.replace("%", "%%")
    template = f'{begin}%d{middle}%d}},"status_code":{status}}}}}'
    plain, traced = (f"{template}{end}}}\n".encode(errors="backslashreplace") for end in ("", "%b"))
    return Entry(method, path, status, client, grpc_status, plain, traced)


Answered: TypeAlias = tuple[str, bytes, int, int, int, tuple[str, str] | None]
"""One request: its client, path and status; when it arrived, on :func:`time.perf_counter_ns`; the answer's body bytes; the ids
of its trace and of its span, of which the latter is empty if only its caller traces it."""


class AnswerLog:
    """Logs the answers of one turn of an event loop together, after they have left. For its thread only.

    What can be done for all of them is done here, once for those that are alike.
    """

    def __init__(self) -> None:
        self.waiting: list[Answered] = []
        """Whoever adds the first has the loop call :meth:`write` soon."""

    def write(self) -> None:
        """Log what waits."""
        waiting, self.waiting = self.waiting, []
        now = time.perf_counter_ns()
        lines, stamp = _MOMENT.at(now)
        made: dict[Answered, bytes] = {}
        said: list[bytes] = []
        for answered in waiting:
            line = made.get(answered)
            if line is None:  # rarely, as one turn reads many requests at one time
                client, path, status, arrived, size, trace = answered
                entry = entry_of("POST", path.decode("latin-1"), status, client)
                if lines is None:
                    _record(entry, now - arrived, size, trace)
                    continue
                line = made[answered] = _line(entry, now - arrived, size, trace)
            said.append(line)
        if lines is not None:
            lines.extend(stamp + stamp.join(said), len(said))


def log_request(
    method: str,
    path: str,
    status: int,
    *,
    seconds: float,
    size: int,
    client: str,
    grpc_status: int | None = None,
    trace: tuple[str, str] | None = None,
) -> None:
    """One line, of a request that took ``seconds`` to its answer just now; see :class:`Answered`."""
    entry, took_ns = entry_of(method, path, status, client, grpc_status), int(seconds * 1e9 + 0.5)
    lines, stamp = _MOMENT.at(time.perf_counter_ns())
    if lines is None:
        _record(entry, took_ns, size, trace)
    else:
        lines.extend(stamp + _line(entry, took_ns, size, trace), 1)


def _line(entry: Entry, took_ns: int, size: int, trace: tuple[str, str] | None) -> bytes:
    """The line but for its time."""
    if trace is None:
        return entry.line % (took_ns, size)
    return entry.traced % (took_ns, size, _ids(*trace).encode(errors="backslashreplace"))


def line_of_record(record: logging.LogRecord) -> str:
    """The same line, where a record was made for it."""
    said = record.__dict__
    entry = entry_of(
        said["http.request.method"],
        said["url.path"],
        said["http.response.status_code"],
        said["client.address"],
        said.get("rpc.grpc.status_code"),
    )
    ids = _ids(said["trace.id"], said.get("span.id", "")) if "trace.id" in said else ""
    values = said["event.duration"], said["http.response.body.bytes"], ids.encode(errors="backslashreplace")
    return ((_stamp(int(record.created * 1e3)) + entry.traced) % values)[:-1].decode()


class _Lines(Protocol):
    """Takes lines, and says whether they are what ends up in the log: JSON, all of them."""

    as_json: bool

    def extend(self, content: bytes, lines: int) -> None: ...


class _Moment:
    """What lines of one millisecond have in common: where they go, and how they begin."""

    def __init__(self) -> None:
        self._until = 0
        self._looks = 0
        self._stamp = b""
        self._handlers: list[logging.Handler] = []
        self._lines: _Lines | None = None

    def at(self, now: int) -> tuple[_Lines | None, bytes]:
        """Of a line made ``now``, on :func:`time.perf_counter_ns`.

        No lines: records must be made, since others than :mod:`fairway.serving.logs` have a say in it, or nobody wants them.
        A record would take most of the time.
        """
        handlers = _ROOT.handlers
        if now >= self._until:
            wall = time.time_ns()
            self._stamp = _stamp(wall // 1_000_000)
            self._until = now + 1_000_000 - wall % 1_000_000
        if now >= self._looks or handlers is not self._handlers or len(handlers) != 1:
            self._looks = now + _LOOKS_NS
            self._handlers = handlers
            self._lines = self._taker()
        return self._lines, self._stamp

    def look(self) -> None:
        """What is logged, or how, was set."""
        self._looks = 0

    def _taker(self) -> _Lines | None:
        handlers = self._handlers
        others = access.handlers or access.filters or _FAIRWAY.handlers or not access.propagate
        alone = len(handlers) == 1 and not others and access.isEnabledFor(logging.INFO)
        handler: Any = handlers[0] if alone else None
        return handler if getattr(handler, "as_json", False) else None


_LOOKS_NS = 100_000_000
"""Between looks at the loggers: each time costs what some lines do."""
_MOMENT = _Moment()


look_again = _MOMENT.look


def _record(entry: Entry, took_ns: int, size: int, trace: tuple[str, str] | None) -> None:
    grpc_status = entry.grpc_status
    access.info(
        "%s %s %d" if grpc_status is None else f"%s %s %d grpc {grpc_status}",
        entry.method,
        entry.path,
        entry.status,
        extra={
            **({} if grpc_status is None else {"rpc.grpc.status_code": grpc_status}),
            **({} if trace is None else {"trace.id": trace[0]} | ({"span.id": trace[1]} if trace[1] else {})),
            "http.request.method": entry.method,
            "url.path": entry.path,
            "http.response.status_code": entry.status,
            "http.response.body.bytes": size,
            "event.duration": took_ns,
            "client.address": entry.client,
        },
    )


def _stamp(at: int) -> bytes:
    """The beginning of a line written ``at`` milliseconds after 1970.

    Examples
    --------
    >>> _stamp(500)
    b'{"@timestamp":"1970-01-01T00:00:00.500Z",'
    """
    seconds, fraction = divmod(at, 1000)
    return b'%b%03dZ",' % (_second(seconds), fraction)


@lru_cache(4)
def _second(seconds: int) -> bytes:
    return f'{{"@timestamp":"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.'.encode()


def _ids(trace: str, span: str) -> str:
    ids = f',"trace":{{"id":{_json(trace)}}}'
    return ids if not span else f'{ids},"span":{{"id":{_json(span)}}},"transaction":{{"id":{_json(span)}}}'


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(value)
