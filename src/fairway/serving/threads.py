"""Threads that engine calls run on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias

log = logging.getLogger(__name__)

_Work: TypeAlias = "SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]"


class RunsCalls(Protocol):
    """As :class:`Threads`, or an executor of the standard library."""

    def submit(self, call: Callable[..., Any], /, *args: Any) -> object:
        """Run ``call(*args)`` soon. Raises ``RuntimeError`` if there is no thread that could."""
        ...


class Threads:
    """Up to ``most`` threads, started as they are needed; calls are taken in their order.

    After a model of many milliseconds nothing is left in the processor's caches, and each step between a call's end and its
    answer takes several times as long as otherwise. So there are no futures, no locks of their own, nothing but a queue.
    ``submit`` and ``close`` are for one thread, the event loop's.

    Parameters
    ----------
    most : int
    name : str
        What the threads are called.
    begin : callable, optional
        Called by each as it starts.

    Examples
    --------
    >>> done = SimpleQueue()
    >>> threads = Threads(1, "engine")
    >>> threads.submit(done.put, "ran")
    >>> threads.close()
    >>> done.get()
    'ran'
    """

    def __init__(self, most: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        self._most, self._name, self._begin = most, name, begin
        self._work: _Work = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[..., Any], /, *args: Any) -> None:
        """Run ``call(*args)`` soon.

        Raises
        ------
        RuntimeError
            If not even one thread can be started. The call is then not kept.
        """
        if len(self._threads) < self._most:
            self._start()
        self._work.put((call, args))

    def close(self) -> None:
        """Wait for what was submitted, and end."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        # A daemon: a call that never ends must not keep the process from ending.
        thread = threading.Thread(target=_run, args=(self._work, self._begin), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)


def _run(work: _Work, begin: Callable[[], None]) -> None:
    begin()
    while (todo := work.get()) is not None:
        call, args = todo
        try:
            call(*args)
        except BaseException:  # whatever it is, the thread goes on
            log.exception("call_failed")
        todo = call = args = None  # type: ignore[assignment]  # no request is held until the next one comes
