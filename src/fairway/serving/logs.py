"""Logs for whoever runs a server: one line of JSON per event, in the Elastic Common Schema, on stderr.

The library never configures logging; the command line calls :func:`configure_logging`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fairway.serving.access_lines import access, line_of_record

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
        More lines than this do not wait; further ones are dropped. How many is told, in a line, once there is room again.
        What comes while none waits is taken whole.
    patience_s : float
        How long :meth:`close` waits for the reader to take what is left.
    write : callable
        Writes parts to the descriptor, as :func:`os.writev`, and says how many bytes it took.
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
        write: Callable[[int, Sequence[bytes]], int] = os.writev,
        lock: int | None = None,
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._limit = limit
        self._patience_s = patience_s
        self._write = write
        self._lock = lock
        self._parts: deque[tuple[bytes, int]] = deque()
        self._waiting = 0  # lines in all parts
        # Reentrant: memory made within may have something collected, whose end is logged, as an exception nobody took is.
        self._mutex = threading.RLock()
        self._dropped = 0
        self._last = b"\n"
        self._wake = threading.Event()
        self._asleep = self._closed = False
        self._thread = threading.Thread(target=self._run, name="fairway-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            self.line(self.format(record))
        except Exception:  # noqa: BLE001 (as logging's own handlers do)
            self.handleError(record)

    def share(self, lock: int | None) -> None:
        """From now on, or no longer: other processes write too, and lock this descriptor while they do."""
        self._lock = lock

    def line(self, text: str) -> None:
        """Queue a line that is formatted already."""
        self.extend(_encoded(text), 1)

    def extend(self, content: bytes, lines: int) -> None:
        """Queue ``lines`` that are formatted already, each with its end.

        They are one part here, and not made one on the thread: each time that one asks for the interpreter lock, it takes the
        lock from whoever answers, which costs more than a turn's lines.
        """
        with self._mutex:
            if self._waiting and self._waiting + lines > self._limit:
                self._dropped += lines
            else:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._parts.append((_encoded(self.format(_dropped(dropped))), 1))
                    self._waiting += 1
                self._parts.append((content, lines))
                self._waiting += lines
        if self._asleep:
            self._asleep = False
            self._wake.set()

    @property
    def as_json(self) -> bool:
        """Whether lines are in the Elastic Common Schema, and none is filtered."""
        return isinstance(self.formatter, _Formatter) and not self.formatter.as_text and not self.filters

    def close(self) -> None:
        """Write what is left, if somebody takes it."""
        self._closed = True
        self._wake.set()
        self._thread.join(self._patience_s)
        super().close()

    def _run(self) -> None:
        while self._wait():
            with self._alone():
                self._write_all(self._taken())
            if self._waiting < self._limit // 2 and not self._closed:
                time.sleep(_GATHER_S)

    def _wait(self) -> bool:
        """For a part; false at the end."""
        if not self._parts:
            self._asleep = True  # before the look: whoever adds a part after it sees this
            if not self._parts and not self._closed:
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
        return bool(self._parts) or not self._closed

    def _taken(self) -> list[bytes]:
        """The parts for one call."""
        found, size = list[bytes](), 0
        with self._mutex:
            while self._parts and size < _CALL_BYTES and len(found) < _CALL_PARTS:
                part, lines = self._parts.popleft()
                found.append(part)
                size += len(part)
                self._waiting -= lines
        return found

    def _write_all(self, parts: list[bytes]) -> None:
        if self._last != b"\n":  # the disk was full in the middle of a line
            parts = [b"\n", *parts]
        while parts:
            try:
                size = self._write(self._descriptor, parts)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:  # nobody reads, or the disk is full
                self._dropped += sum(part.count(b"\n") for part in parts)
                break
            else:
                if size == sum(map(len, parts)):
                    self._last = b"\n"
                    break
                content = b"".join(parts)
                self._last, parts = content[size - 1 : size] or self._last, [content[size:]]

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


_CALL_BYTES, _CALL_PARTS = 2**19, 512
"""Of one call; the kernel takes 1,024 parts at most."""
_GATHER_S = 0.02
"""Between writes: to be woken for each line would cost the server more than the line does."""


def _encoded(text: str) -> bytes:
    return f"{text}\n".encode(errors="backslashreplace")


def _dropped(count: int) -> logging.LogRecord:
    said = "log_lines_dropped"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, said, (), None)
    record.count = count
    return record


class _Formatter(logging.Formatter):
    """Writes the access log's lines itself: ``general`` takes 100 microseconds for one."""

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
        return line_of_record(record)


def _fields(record: logging.LogRecord) -> str:
    """What a call gave as ``extra``, as text."""
    return "".join(f" {key}={value!r}" for key, value in record.__dict__.items() if key not in _STANDARD)


_STANDARD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime"})
