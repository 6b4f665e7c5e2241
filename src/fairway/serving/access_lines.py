"""The access log: one line per request, in ECS field names. Written so that a request of a small model hardly notices it.

Of a line, what is the same for many is made once: what it says of the request for each kind of request and client, and the time
for each millisecond.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import msgspec
import orjson

access = logging.getLogger("fairway.access")
_ROOT = logging.getLogger()
_FAIRWAY = logging.getLogger("fairway")


class Entry(msgspec.Struct, frozen=True, eq=False):
    """What is said of requests that are alike; ``texts`` stand before the duration, before the answer's size, and after it."""

    method: str
    path: str
    status: int
    client: str
    grpc_status: int | None
    texts: tuple[str, str, str]


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
    texts = (
        f'{_json(line)[1:-1]},"event":{{"duration":',
        f'}},"http":{{"request":{{"method":{_json(method)}}},"response":{{"body":{{"bytes":',
        f'}},"status_code":{status}}}}}}}',
    )
    return Entry(method, path, status, client, grpc_status, texts)


Answered: TypeAlias = tuple[Entry, float, int, tuple[str, str] | None]
"""One request: when it arrived, on :func:`time.perf_counter`; the answer's body bytes; the ids of its trace and of its span, of
which the latter is empty if only its caller traces it."""


class AnswerLog:
    """Logs the answers of one turn of an event loop together, after they have left. For its thread only."""

    def __init__(self) -> None:
        self._waiting: list[Answered] = []

    def add(
        self,
        loop: asyncio.AbstractEventLoop,
        entry: Entry,
        arrived: float,
        size: int,
        trace: tuple[str, str] | None = None,
    ) -> None:
        """One answer; see :class:`Answered`."""
        if not self._waiting:
            loop.call_soon(self._write)
        self._waiting.append((entry, arrived, size, trace))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        log_answers(waiting, time.perf_counter())


def log_answers(answers: Sequence[Answered], now: float) -> None:
    """A line for each of ``answers``, which left ``now``, on :func:`time.perf_counter`."""
    moment, handlers = _MOMENT, _ROOT.handlers
    if now >= moment.until or handlers is not moment.handlers or len(handlers) != 1:
        moment.renew(now)
    lines = moment.lines
    if lines is None:
        for entry, arrived, size, trace in answers:
            _record(entry, now - arrived, size, trace)
        return
    stamp = moment.text
    texts: list[str] = []
    for entry, arrived, size, trace in answers:
        before, between, after = entry.texts
        end = after if trace is None else f"{after[:-1]}{_ids(*trace)}}}"
        texts.append(f"{stamp}{before}{int((now - arrived) * 1e9 + 0.5)}{between}{size}{end}")
    lines.extend(texts)


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
    now = time.perf_counter()
    log_answers([(entry_of(method, path, status, client, grpc_status), now - seconds, size, trace)], now)


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
    before, between, after = entry.texts
    ids = _ids(said["trace.id"], said.get("span.id", "")) if "trace.id" in said else ""
    size = said["http.response.body.bytes"]
    return f"{_stamp(record.created)}{before}{said['event.duration']}{between}{size}{after[:-1]}{ids}}}"


class _Lines(Protocol):
    """Takes lines, and says whether they are what ends up in the log: JSON, all of them."""

    as_json: bool

    def extend(self, texts: Sequence[str]) -> None: ...


class _Moment:
    """What lines of one millisecond have in common: their time, and where they go.

    ``lines`` is ``None`` where records must be made, since others than :mod:`fairway.serving.logs` have a say in it, or nobody
    wants them: a record would take most of the time.
    """

    __slots__ = ("handlers", "lines", "text", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.text = ""
        self.handlers: list[logging.Handler] = []
        self.lines: _Lines | None = None

    def renew(self, now: float) -> None:
        """It is ``now``, on :func:`time.perf_counter`."""
        wall = time.time()
        self.text = _stamp(wall)
        self.until = now + (1.0 - wall * 1e3 % 1.0) / 1e3
        self.handlers = handlers = _ROOT.handlers
        others = access.handlers or access.filters or _FAIRWAY.handlers or not access.propagate
        alone = len(handlers) == 1 and not others and access.isEnabledFor(logging.INFO)
        handler: Any = handlers[0] if alone else None
        self.lines = handler if getattr(handler, "as_json", False) else None


_MOMENT = _Moment()


def _record(entry: Entry, seconds: float, size: int, trace: tuple[str, str] | None) -> None:
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
            "event.duration": int(seconds * 1e9 + 0.5),
            "client.address": entry.client,
        },
    )


def _stamp(at: float) -> str:
    """The beginning of a line written ``at`` seconds after 1970.

    Examples
    --------
    >>> _stamp(0.5)
    '{"@timestamp":"1970-01-01T00:00:00.500Z",'
    """
    seconds, fraction = divmod(int(at * 1e3), 1000)
    return f'{{"@timestamp":"{_second(seconds)}.{fraction:03d}Z",'


@lru_cache(4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _ids(trace: str, span: str) -> str:
    ids = f',"trace":{{"id":{_json(trace)}}}'
    return ids if not span else f'{ids},"span":{{"id":{_json(span)}}},"transaction":{{"id":{_json(span)}}}'


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(value)
