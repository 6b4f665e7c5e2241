"""Listens to a server and keeps, per version and window, what happened: traffic exactly, features as sketches.

The event loop only hands over references; a thread of its own counts, closes windows and flushes them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from fairway.core.events import Served
from fairway.monitoring.baseline import DEFAULTS, Baseline
from fairway.monitoring.features import Feature
from fairway.monitoring.outbox import Outbox
from fairway.monitoring.settings import MonitorSettings
from fairway.monitoring.windows import Handover, OpenWindow
from fairway.registry.records import Window
from fairway.rollout.traffic import Traffic

log = logging.getLogger(__name__)

_TICK_S = 0.2


class WindowListener(Protocol):
    """Told of windows on the observer's thread; :class:`~fairway.monitoring.metrics.MonitorMetrics` is one."""

    def closed(self, window: Window, *, rows: int, counted: int, skipped: int) -> None:
        """A window of ``rows`` ended; the features of ``counted`` were counted, those of ``skipped`` not, for lack of room."""
        ...

    def dropped(self, windows: int) -> None:
        """``windows`` more were lost, because they could not be flushed for too long."""
        ...


class Observer:
    """An :class:`~fairway.core.events.EventSink` that turns served batches into windows.

    Parameters
    ----------
    flush : callable
        Stores one window, or raises; called on the observer's thread. A window is flushed again until it succeeds, so
        storing the same one twice must count once: the registry's ``add_window`` does that.
    replica : str
        Identifies this process. Two processes, or two lives of one, must not share it.
    baselines : callable
        The baseline of a model's version, or ``None``; called once per version on the observer's thread.
    settings : MonitorSettings
    clock : callable
        Seconds since the epoch.
    listener : WindowListener or None

    Notes
    -----
    :meth:`start` starts the thread and :meth:`close` flushes what is left; as a context manager it does both. Without
    the thread, :meth:`tick` does its work. What happened since the last closed window is lost if the process is killed.
    """

    def __init__(
        self,
        flush: Callable[[Window], object],
        *,
        replica: str,
        baselines: Callable[[str, str], Baseline | None] = lambda _model, _version: None,
        settings: MonitorSettings = DEFAULTS,
        clock: Callable[[], float] = time.time,
        listener: WindowListener | None = None,
    ) -> None:
        self._outbox = Outbox(flush, capacity=settings.max_pending_windows, max_backoff_s=settings.window_s)
        self._replica = replica
        self._baselines = baselines
        self._features: dict[tuple[str, str], tuple[Feature, ...] | None] = {}
        self._window_s = settings.window_s
        self._max_queued_bytes = settings.max_queue_mb * 1e6
        self._max_rows_per_s = settings.max_rows_per_s
        self._clock = clock
        self._listener = listener
        self._lock = threading.Lock()  # held for microseconds, by the event loop too
        self._working = threading.Lock()  # one tick at a time
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._complained = False
        self._queued_bytes = 0
        self._open: dict[tuple[str, str], OpenWindow] = {}
        self._ended: list[OpenWindow] = []
        self._ends = self._next_end(clock())
        Traffic()  # loads its native library now, not during the first request

    def served(self, event: Served) -> None:
        """Take note of one batch: some microseconds, never waits for storage, never raises."""
        try:
            self._note(event)
        except Exception:  # whatever is wrong with an event, its callers have their answer
            if not self._complained:
                self._complained = True
                log.exception("event_not_observed")

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="fairway-observer", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Count what is waiting, close windows that ended, and flush them."""
        with self._working:
            self._work(self._clock(), last=False)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the thread, then flush what is left, once each. If the thread hangs in a flush, give up after ``timeout_s``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if not self._working.acquire(blocking=False):
            log.error("windows_lost", extra={"reason": f"a flush did not return within {timeout_s} s"})
            return
        try:
            self._work(self._clock(), last=True)
        finally:
            self._working.release()
        if self._outbox:
            log.error("windows_lost", extra={"windows": len(self._outbox), "reason": "could not be flushed at close"})

    def __enter__(self) -> Observer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, event: Served) -> None:
        now = self._clock()
        with self._lock:
            if self._closed:
                return
            if now >= self._ends:
                self._rotate(now)
            key = (event.model, event.version)
            window = self._open.get(key)
            if window is None:
                window = self._open[key] = OpenWindow(*key, self._ends - self._window_s, self._max_rows_per_s)
            self._queued_bytes += window.note(event, now, self._max_queued_bytes - self._queued_bytes)

    def _run(self) -> None:
        pause = min(_TICK_S, self._window_s / 4)
        while not self._stopping.wait(pause):
            try:
                self.tick()
            except Exception:  # the thread must outlive whatever it meets
                log.exception("observer_tick_failed")

    def _work(self, now: float, *, last: bool) -> None:
        with self._lock:
            if last or now >= self._ends:
                self._rotate(now)
            ended, self._ended = self._ended, []
            given = [(window, window.swap()) for window in (*ended, *self._open.values())]
        for window, handover in given:
            self._count(window, handover)
        for window in ended:
            self._finish(window, now)
        self._outbox.send(now, impatient=last)

    def _rotate(self, now: float) -> None:
        self._ended += self._open.values()
        self._open = {}
        self._ends = self._next_end(now)

    def _next_end(self, now: float) -> float:
        index = now // self._window_s + 1
        if index * self._window_s <= now:  # rounding: else one window would be opened, and stored, twice
            index += 1
        return index * self._window_s

    def _count(self, window: OpenWindow, handover: Handover) -> None:
        try:
            window.count(
                handover,
                self._features_of(window.model, window.version) if handover.batches or handover.skipped else None,
            )
        except Exception:  # a batch that does not fit what its model declares must not stop the rest
            if not self._complained:
                self._complained = True
                log.exception("batch_not_counted", extra={"model": window.model, "version": window.version})
        with self._lock:
            self._queued_bytes -= handover.queued_bytes

    def _features_of(self, model: str, version: str) -> tuple[Feature, ...] | None:
        key = (model, version)
        if key not in self._features:
            try:
                baseline = self._baselines(model, version)
            except Exception as error:  # noqa: BLE001 (a damaged baseline stops drift detection, not traffic)
                log.warning("no_baseline", extra={"model": model, "version": version, "reason": str(error)})
                baseline = None
            self._features[key] = None if baseline is None else baseline.features
        return self._features[key]

    def _finish(self, window: OpenWindow, now: float) -> None:
        record = Window(
            model=window.model,
            version=int(window.version) if window.version.isdecimal() else 0,
            replica=self._replica,
            started_at=window.started_at,
            ended_at=max(window.started_at, min(now, window.started_at + self._window_s)),
            traffic=window.traffic.encode(),
            features=window.sketches.encode() if window.sketches is not None else b"",
        )
        dropped = self._outbox.dropped
        self._outbox.put(record)
        if self._listener is not None:
            self._listener.closed(record, rows=window.traffic.rows, counted=window.counted, skipped=window.skipped)
            if self._outbox.dropped > dropped:
                self._listener.dropped(self._outbox.dropped - dropped)
