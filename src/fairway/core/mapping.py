"""Work in parts that do not depend on each other: one after another, on threads, or elsewhere. The answer is the same."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Protocol, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


class Mapper(Protocol):
    """Calls a function once for each part of some work.

    ``function`` must give the same result wherever and however often it is called: it keeps no state, and draws random
    numbers from a generator of the part's own. Then the results do not depend on the mapper.
    """

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The results, in the order of ``parts``.

        Parts are taken as results are, a few ahead, so that neither need fit into memory. The first call that raises ends it,
        in that order; so does closing the iterator.
        """
        ...


class InOrder:
    """One part after another, in the thread that asks."""

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """See :class:`Mapper`."""
        return map(function, parts)


class Threads:
    """On threads of this process: for work that releases the interpreter's lock, as NumPy and the engines do.

    Parameters
    ----------
    count : int, default 0
        0 is as many as this process may use cores.

    Examples
    --------
    >>> list(Threads(2).map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count or cores()

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """See :class:`Mapper`."""
        waiting = iter(parts)
        first = list(islice(waiting, 2))
        if self.count == 1 or len(first) < 2:
            yield from map(function, chain(first, waiting))
            return
        pool = ThreadPoolExecutor(self.count, thread_name_prefix="fairway-map")
        running: deque[Future[Result]] = deque(pool.submit(function, part) for part in first)
        try:
            running.extend(pool.submit(function, part) for part in islice(waiting, 2 * self.count - len(first)))
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(function, part) for part in islice(waiting, 1))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


IN_ORDER = InOrder()
THREADS = Threads()
