"""What waits in a scheduler: requests, in the order in which they are to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, Protocol, TypeAlias

import msgspec

from fairway.core.tensors import Tensors
from fairway.serving.joining import Answer, Run

LEVEL_S = 10.0
"""A request of one priority level lower waits as if it had come this many seconds later: so nobody waits for ever."""


class Cancellable(Protocol):
    """What somebody waits for, and may stop waiting for."""

    def cancel(self) -> None:
        """Whoever waited has left."""
        ...


class Traced(Protocol):
    """Whoever wants to know when a job ran."""

    def ran(self, run: Run, requests: int, rows: int, now: float, arrived: float) -> None:
        """One engine call ended, of so many requests and rows; the job had arrived at ``arrived``."""
        ...


class Owner(Protocol):
    """Whoever has taken a job."""

    def cancel(self, job: Job, /) -> None:
        """Forget it: it is not answered."""
        ...

    def watch(self, job: Job, trace: Traced, /) -> None:
        """Tell ``trace`` of each engine call that the job is part of."""
        ...


class TakesJobs(Protocol):
    """A scheduler, or what stands before one."""

    def submit(self, job: Job, signature: Hashable, *, timeout_s: float | None = None, priority: int = 0) -> None:
        """Take a job. It is answered once, not within this call and on the event loop, unless it is cancelled.

        Parameters
        ----------
        job : Job
        signature : hashable
            Jobs whose signatures differ never share an engine call.
        timeout_s : float, optional
            After which it is answered with an error.
        priority : int
            See :func:`level_of`.

        Raises
        ------
        Overloaded
            If the queue is full, or the job would wait too long in it.
        ModelNotReady
            If the version is being retired.
        """
        ...


class Job(msgspec.Struct, eq=False):  # a struct is made in a quarter of a class's time
    """One request for a scheduler. :meth:`cancel` it when the caller leaves.

    What follows ``raw`` is for whoever has taken it.
    """

    feed: Tensors
    rows: int
    done: Callable[[Any], None]
    raw: bool = False
    owner: Owner | None = None
    arrived: float = 0.0
    deadline: float | None = None
    level: int = 0
    taken: int = 0
    queued: bool = False
    settled: bool = False
    timer: asyncio.TimerHandle | None = None
    trace: Traced | None = None
    parts: dict[int, Tensors] | None = None
    began: float = 0.0

    @property
    def rank(self) -> float:
        """Lower runs first: the arrival, later by :data:`LEVEL_S` for each priority level."""
        return self.arrived + self.level * LEVEL_S

    def answered(self, answer: Answer) -> None:
        """Here is the answer."""
        self.done(answer)

    def cancel(self) -> None:
        """Forget this request: it will not run if it has not yet, and it is not answered."""
        if self.owner is not None:
            self.owner.cancel(self)


class Part(msgspec.Struct, eq=False):
    """``rows`` rows of one job from ``start`` on, not all of them."""

    job: Job
    start: int
    rows: int

    @property
    def feed(self) -> Tensors:
        """These rows."""
        return {name: array[self.start : self.start + self.rows] for name, array in self.job.feed.items()}

    @property
    def raw(self) -> bool:
        """As its job says."""
        return self.job.raw


Piece: TypeAlias = Job | Part
"""A member of a batch: a whole job, as most are, or a part of one."""


def job_of(piece: Piece) -> Job:
    """Whose piece it is."""
    return piece.job if isinstance(piece, Part) else piece


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
