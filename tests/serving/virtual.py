"""An event loop whose clock jumps to the next timer: hours pass in milliseconds, the same way every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Instead of waiting for as long as the loop asks, moves its clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left that could happen: somebody waits for ever")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs without waiting and without threads."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made; they pass only while nothing is ready to run."""
        return self._virtual.now


class VirtualExecutor(Executor):
    """A pool of any number of threads, whose work takes virtual time and is done at its end.

    ``seconds`` says how long, from the arguments of the work.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: Callable[..., float]) -> None:
        self._loop = loop
        self._seconds = seconds

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        self._loop.call_later(self._seconds(*args), lambda: future.set_result(fn(*args, **kwargs)))
        return future


def play(story: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a story on a fresh virtual loop. Raises what its callbacks raised."""
    raised: list[BaseException] = []
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _, context: raised.append(context.get("exception") or RuntimeError(str(context))))
    try:
        told = loop.run_until_complete(story(loop))
    finally:
        loop.close()
    if raised:
        raise raised[0]
    return told
