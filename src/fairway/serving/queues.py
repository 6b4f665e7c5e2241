"""What waits in a scheduler: requests, in the order in which they are to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Protocol, TypeAlias

import msgspec

from fairway.core.tensors import Tensors
from fairway.serving.joining import Answer, Run

Done: TypeAlias = Callable[[Answer], None]

LEVEL_S = 10.0
"""A request of one priority level lower waits as if it had come this many seconds later: so nobody waits for ever."""


class Cancellable(Protocol):
    """What somebody waits for, and may stop waiting for."""

    def cancel(self) -> None:
        """Whoever waited has left."""
        ...


class Canceller(Protocol):
    """Whoever a job belongs to."""

    def cancel(self, job: Job) -> None:
        """Forget a job."""
        ...


class Traced(Protocol):
    """Whoever wants to know when a job ran."""

    def ran(self, run: Run, requests: int, rows: int, now: float, arrived: float) -> None:
        """One engine call ended, of so many requests and rows; the job had arrived at ``arrived``."""
        ...


class Job(msgspec.Struct, eq=False):  # a struct is made in a quarter of a class's time
    """One request in the scheduler. :meth:`cancel` it when the caller leaves."""

    scheduler: Canceller
    feed: Tensors
    rows: int
    raw: bool
    deadline: float | None
    callback: Done
    arrived: float
    level: int = 0
    taken: int = 0
    parts: dict[int, Tensors] = {}
    queued: bool = True
    settled: bool = False
    timer: asyncio.TimerHandle | None = None
    began: float = 0.0
    trace: Traced | None = None

    @property
    def rank(self) -> float:
        """Lower runs first: the arrival, later by :data:`LEVEL_S` for each priority level."""
        return self.arrived + self.level * LEVEL_S

    def cancel(self) -> None:
        """Forget this request: it will not run if it has not yet, and its callback is never called."""
        self.scheduler.cancel(self)


class Piece(msgspec.Struct, eq=False):
    """``rows`` rows of one job from ``start`` on; ``whole`` if these are all."""

    job: Job
    start: int
    rows: int
    whole: bool

    def feed(self) -> Tensors:
        """These rows."""
        if self.whole:
            return self.job.feed
        return {name: array[self.start : self.start + self.rows] for name, array in self.job.feed.items()}


class Line(Protocol):
    """Requests that may share an engine call, the next one first: a ``deque``, or :class:`Ranked`."""

    def append(self, job: Job, /) -> None: ...  # noqa: D102
    def extendleft(self, jobs: Iterable[Job], /) -> None: ...  # noqa: D102
    def popleft(self) -> Job: ...  # noqa: D102
    def __getitem__(self, index: int, /) -> Job: ...
    def __iter__(self) -> Iterator[Job]: ...
    def __len__(self) -> int: ...


class Ranked:
    """A line with priorities: by rank, and first in, first out where ranks are equal."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._last = self._first = 0
        for job in jobs:
            self.append(job)

    def append(self, job: Job) -> None:
        """Add a job behind those of its rank."""
        self._last += 1
        heappush(self._heap, (job.rank, self._last, job))

    def extendleft(self, jobs: Iterable[Job]) -> None:
        """Put jobs back, each before those of its rank."""
        for job in jobs:
            self._first -= 1
            heappush(self._heap, (job.rank, self._first, job))

    def popleft(self) -> Job:
        """Take the next job."""
        return heappop(self._heap)[2]

    def __getitem__(self, index: int) -> Job:
        """Only ``[0]``, the next job, has a meaning."""
        return self._heap[index][2]

    def __iter__(self) -> Iterator[Job]:
        """All jobs, in the order in which they would be taken."""
        return (job for _, _, job in sorted(self._heap, key=lambda entry: entry[:2]))

    def __len__(self) -> int:
        return len(self._heap)


def level_of(priority: int, levels: int, default: int) -> int:
    """The level, from 0 (the highest), of a request's ``priority``: 1 is the highest, 0 and what does not exist the default.

    Examples
    --------
    >>> [level_of(priority, levels=3, default=0) for priority in (1, 3, 0, 9)]
    [0, 2, 1, 1]
    """
    if not 1 <= priority <= levels:
        priority = default if 1 <= default <= levels else (levels + 1) // 2
    return priority - 1
