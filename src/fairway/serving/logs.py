"""Logs for whoever runs a server: one line of JSON per event, in the Elastic Common Schema, on stderr.

The library never configures logging; the command line calls :func:`configure_logging`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import orjson

access = logging.getLogger("fairway.access")
FORMATS = ("default", "ISO8601")


def configure_logging(level: int = logging.INFO, *, lock: int | None = None) -> None:
    """Send Fairway's logs at ``level`` and above, and every other library's warnings, to stderr as ECS JSON lines.

    ``lock``: a file descriptor to lock while lines are written, where several processes write to one stderr.
    """
    import ecs_logging

    handler = _handler(lock)
    general = ecs_logging.StdlibFormatter(
        exclude_fields=["process.name", "process.thread", "log.origin", "log.original"]
    )
    handler.setFormatter(_Formatter(general))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fairway").setLevel(level)


def set_log_format(name: str) -> bool:
    """Write lines as one of :data:`FORMATS`: JSON, or text for people. False if :func:`configure_logging` was not called."""
    found = [handler.formatter for handler in logging.getLogger().handlers if isinstance(handler.formatter, _Formatter)]
    for formatter in found:
        formatter.as_text = name == FORMATS[1]
    return bool(found)


def _handler(lock: int | None) -> logging.Handler:
    try:
        return QueuedLines(sys.stderr.fileno(), lock=lock)
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return logging.StreamHandler(sys.stderr) if sys.stderr is not None else logging.NullHandler()


class QueuedLines(logging.Handler):
    """Lines to a file descriptor, written by a thread: whoever logs never waits for whoever reads the log.

    Parameters
    ----------
    descriptor : int
    limit : int
        With so many lines unwritten, further ones are dropped. How many is told, in a line, once there is room again.
    patience_s : float
        How long :meth:`close` waits for the reader to take what is left.
    write : callable
        Writes bytes to the descriptor and says how many it took.
    lock : int, optional
        Another descriptor, to lock while lines are written: a write longer than a pipe's atomic one (4 KiB) would else be cut
        by those of other processes.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        limit: int = 10_000,
        patience_s: float = 1.0,
        write: Callable[[int, bytes], int] = os.write,
        lock: int | None = None,
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._limit = limit
        self._patience_s = patience_s
        self._write = write
        self._lock = lock
        self._lines: SimpleQueue[str | Answered | None] = SimpleQueue()
        self._dropped = 0
        self._last = b"\n"
        self._thread = threading.Thread(target=self._run, name="fairway-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if self._has_room():
            try:
                self._lines.put(self.format(record))
            except Exception:  # noqa: BLE001 (as logging's own handlers do)
                self.handleError(record)

    def _has_room(self) -> bool:
        if self._lines.qsize() >= self._limit:
            self._dropped += 1
            return False
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._lines.put(self.format(_dropped(dropped)))
        return True

    def share(self, lock: int | None) -> None:
        """From now on, or no longer: other processes write too, and lock this descriptor while they do."""
        self._lock = lock

    def line(self, text: str) -> None:
        """Queue a line that is formatted already."""
        if self._lines.qsize() < self._limit:
            self._lines.put(text)

    def answered(self, request: Answered) -> None:
        """Queue a line of the access log, which the writing thread formats."""
        if self._has_room():
            self._lines.put(request)

    @property
    def as_json(self) -> bool:
        """Whether lines are in the Elastic Common Schema, and none is filtered."""
        return isinstance(self.formatter, _Formatter) and not self.formatter.as_text and not self.filters

    def close(self) -> None:
        """Write what is left, if somebody takes it."""
        self._lines.put(None)
        self._thread.join(self._patience_s)
        super().close()

    def _run(self) -> None:
        ended = False
        while not ended:
            lines: list[str | Answered | None] = [self._lines.get()]
            time.sleep(_GATHER_S)  # to be woken for each line would cost the server more than the line does
            while lines[-1] is not None and len(lines) < _LINES_PER_WRITE:
                try:
                    lines.append(self._lines.get_nowait())
                except Empty:
                    break
            ended = lines[-1] is None
            texts = [line if isinstance(line, str) else line_of(line) for line in lines if line is not None]
            content = "".join(f"{text}\n" for text in texts).encode(errors="backslashreplace")
            with self._alone():
                self._write_all(content)

    def _write_all(self, content: bytes) -> None:
        if content and self._last != b"\n":  # the disk was full in the middle of a line
            content = b"\n" + content
        while content:
            try:
                size = self._write(self._descriptor, content)
                self._last, content = content[size - 1 : size], content[size:]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:  # nobody reads, or the disk is full
                self._dropped += content.count(b"\n")
                break

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes; the kernel gives the lock back if this one is killed."""
        lock = self._lock
        if lock is None:
            yield
            return
        fcntl.lockf(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(lock, fcntl.LOCK_UN)


_LINES_PER_WRITE = 1000
_GATHER_S = 0.02


def _dropped(count: int) -> logging.LogRecord:
    said = "log_lines_dropped"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, said, (), None)
    record.count = count
    return record


class Answered(NamedTuple):
    """One request, for the access log: ``at`` is in seconds since 1970; the others are :func:`log_request`'s."""

    at: float
    method: str
    path: str
    status: int
    seconds: float
    size: int
    client: str
    grpc_status: int | None = None
    trace: tuple[str, str] | None = None


def line_of(request: Answered) -> str:
    """The access log's line, in ECS field names.

    Examples
    --------
    >>> line_of(Answered(0.5, "GET", "/v2", 200, 0.001, 12, "::1"))[:54]
    '{"@timestamp":"1970-01-01T00:00:00.500Z","log.level":"'
    """
    seconds, fraction = divmod(int(request.at * 1e3), 1000)
    same = _same(request.method, request.path, request.status, request.client, request.grpc_status)
    trace = "" if request.trace is None else _trace(*request.trace)
    return (
        f'{{"@timestamp":"{_second(seconds)}.{fraction:03d}Z",{same},"event":{{"duration":{int(request.seconds * 1e9)}}},'
        f'"http":{{"request":{{"method":{_json(request.method)}}},'
        f'"response":{{"body":{{"bytes":{request.size}}},"status_code":{request.status}}}}}{trace}}}'
    )


@lru_cache(1024)
def _same(method: str, path: str, status: int, client: str, grpc_status: int | None) -> str:
    """What the lines of many requests have in common: to write it for each would take ten times as long."""
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
    return _json(line)[1:-1]


@lru_cache(4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _trace(trace: str, span: str) -> str:
    ids = f',"trace":{{"id":{_json(trace)}}}'
    return ids if not span else f'{ids},"span":{{"id":{_json(span)}}},"transaction":{{"id":{_json(span)}}}'


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(value)


class _Formatter(logging.Formatter):
    """Writes the lines of :func:`log_request` itself: ``general`` takes 100 microseconds for one."""

    def __init__(self, general: logging.Formatter) -> None:
        super().__init__()
        self._general = general
        self._text = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self._text.converter = time.gmtime
        self.as_text = False

    def format(self, record: logging.LogRecord) -> str:
        if self.as_text:
            return self._text.format(record) + _fields(record)
        if record.name != access.name:
            return self._general.format(record)
        said = record.__dict__
        return line_of(
            Answered(
                record.created,
                said["http.request.method"],
                said["url.path"],
                said["http.response.status_code"],
                said["event.duration"] / 1e9,
                said["http.response.body.bytes"],
                said["client.address"],
                said.get("rpc.grpc.status_code"),
                (said["trace.id"], said.get("span.id", "")) if "trace.id" in said else None,
            )
        )


def _fields(record: logging.LogRecord) -> str:
    """What a call gave as ``extra``, as text."""
    return "".join(f" {key}={value!r}" for key, value in record.__dict__.items() if key not in _STANDARD)


_STANDARD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime"})


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
    """One line per request, in ECS field names.

    ``seconds`` is the time to the answer, ``size`` the answer's body bytes, ``trace`` the ids of its trace and of its span; the
    latter is empty if only its caller traces it.
    """
    lines = _direct()
    if lines is not None:
        lines.answered(Answered(time.time(), method, path, status, seconds, size, client, grpc_status, trace))
        return
    access.info(
        "%s %s %d" if grpc_status is None else f"%s %s %d grpc {grpc_status}",
        method,
        path,
        status,
        extra={
            **({} if grpc_status is None else {"rpc.grpc.status_code": grpc_status}),
            **({} if trace is None else {"trace.id": trace[0]} | ({"span.id": trace[1]} if trace[1] else {})),
            "http.request.method": method,
            "url.path": path,
            "http.response.status_code": status,
            "http.response.body.bytes": size,
            "event.duration": int(seconds * 1e9),
            "client.address": client,
        },
    )


def _direct() -> QueuedLines | None:
    """Where the access log's lines end up, if nothing but :func:`configure_logging` has a say in it.

    Then no log record is made: it would take most of the time.
    """
    handlers = _ROOT.handlers
    if len(handlers) != 1 or access.handlers or access.filters or _FAIRWAY.handlers or not access.propagate:
        return None
    handler = handlers[0]
    return handler if isinstance(handler, QueuedLines) and handler.as_json else None


_ROOT = logging.getLogger()
_FAIRWAY = logging.getLogger("fairway")
