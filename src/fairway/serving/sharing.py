"""Stands before a scheduler: equal requests are answered from the cache, and those in flight share one run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Protocol

import msgspec

from fairway.core.errors import DeadlineExceeded, FairwayError
from fairway.core.feeds import digest
from fairway.core.tensors import Tensors
from fairway.serving.batching import Scheduler
from fairway.serving.cache import ResponseCache, private
from fairway.serving.joining import Answer, Run
from fairway.serving.queues import Job, Traced

log = logging.getLogger(__name__)


class CacheListener(Protocol):
    """Called on the event loop; must not raise."""

    def hit(self, feed: Tensors, answer: Tensors, rows: int, raw: bool, took_s: float) -> None:
        """A request was answered without a run of its own."""
        ...

    def missed(self, took_s: float) -> None:
        """A request was not found; looking took so long."""
        ...

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        """A request that shared a run got an error."""
        ...


def identity(seed: bytes, job: Job) -> bytes:
    """The same for equal requests of the version whose digest is ``seed``, and for no others."""
    return digest(seed, job.feed, job.raw)


class SharingScheduler:
    """Answers as its scheduler does, and keeps what it answered. Errors are never kept. For the event loop's thread only.

    Parameters
    ----------
    scheduler : Scheduler
    cache : ResponseCache
    identify : callable
        Gives a job's key, by which equal ones are known; see :func:`identity`.
    loop : asyncio.AbstractEventLoop
    listener : CacheListener
    used : callable, optional
        Called when a request was answered from the cache.
    clock : callable, optional
        The scheduler's.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        cache: ResponseCache,
        identify: Callable[[Job], bytes],
        *,
        loop: asyncio.AbstractEventLoop,
        listener: CacheListener,
        used: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.scheduler = scheduler
        self.cache = cache
        self.loop = loop
        self.listener = listener
        self.clock = clock
        self._used = used
        self.flights: dict[bytes, _Flight] = {}
        self.identify = identify

    def submit(self, job: Job, signature: Hashable, *, timeout_s: float | None = None, priority: int = 0) -> None:
        """See :class:`~fairway.serving.queues.TakesJobs`.

        A shared run has its first caller's priority, and each caller its own timeout.
        """
        job.arrived = arrived = self.clock()
        key = self.identify(job)
        answer = self.cache.get(key)
        if answer is not None:
            job.owner = _Kept(self.loop.call_soon(job.answered, answer))  # not within submit: callers count on that
            self.listener.hit(job.feed, answer, job.rows, job.raw, self.clock() - arrived)
            self._used()
            return
        flight = self.flights.get(key)
        if flight is None:
            flight = _Flight(self, key, job)
            self.scheduler.submit(flight.run, signature, timeout_s=timeout_s, priority=priority)
            self.flights[key] = flight
            self.listener.missed(self.clock() - arrived)
        flight.join(job, None if timeout_s is None else arrived + timeout_s)


class _Kept:
    """Has a job whose answer was in the cache."""

    def __init__(self, handle: asyncio.Handle) -> None:
        self._handle = handle

    def cancel(self, _: Job) -> None:
        self._handle.cancel()

    def watch(self, _: Job, __: Traced) -> None:
        """There is no engine call to tell of."""


class _Flight:
    """One run, and all whose jobs wait for it."""

    def __init__(self, owner: SharingScheduler, key: bytes, first: Job) -> None:
        # A copy: the connection may reuse its buffer before the run.
        self.run = Job(private(first.feed), first.rows, self.landed, first.raw)
        self._feed = self.run.feed
        self._owner = owner
        self._key = key
        self._members: list[Job] = []

    def join(self, job: Job, deadline: float | None) -> None:
        job.owner, job.deadline = self, deadline
        self._members.append(job)
        if len(self._members) > 1 and not self.run.settled:
            self._share_deadlines()

    def watch(self, _: Job, trace: Traced) -> None:
        """``trace`` is told when the run has ended, like those of others who wait for it."""
        self.run.trace = trace if self.run.trace is None else _Both(trace, self.run.trace)

    def cancel(self, job: Job) -> None:
        """The others still get their answer; without others the run is cancelled."""
        if job not in self._members:
            return
        self._members.remove(job)
        if job.timer is not None:
            job.timer.cancel()
        if not self._members:
            self._end()
            self.run.cancel()

    def landed(self, answer: Answer) -> None:
        """The run ended. Its first caller is whom the scheduler has counted."""
        self._end()
        members, self._members = self._members, []
        if not isinstance(answer, FairwayError):
            try:
                answer = private(answer)
                self._owner.cache.put(self._key, answer)
            except Exception:  # of memory, say: it is an answer all the same
                log.exception("answer_not_kept")
        for place, job in enumerate(members):
            if job.timer is not None:
                job.timer.cancel()
            if place:
                self._count(job, answer)
            try:
                job.answered(answer)
            except Exception:  # whoever it is, the others get their answers
                log.exception("answer_not_delivered")

    def _count(self, job: Job, answer: Answer) -> None:
        took_s = self._owner.clock() - job.arrived
        if isinstance(answer, FairwayError):
            self._owner.listener.refused(answer, took_s)
        else:
            self._owner.listener.hit(self._feed, answer, job.rows, job.raw, took_s)

    def _end(self) -> None:
        self.run.done = _nobody  # without the circle, both are freed at once
        if self._owner.flights.get(self._key) is self:
            del self._owner.flights[self._key]

    def _share_deadlines(self) -> None:
        """From now on each caller has its own timer, and the run is worth it until the last of them."""
        run = self.run
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        deadlines = [job.deadline for job in self._members]
        known = [deadline for deadline in deadlines if deadline is not None]
        run.deadline = max(known) if len(known) == len(deadlines) else None
        for job in self._members:
            if job.deadline is not None and job.timer is None:
                self._wake_at(job, job.deadline)

    def _wake_at(self, job: Job, deadline: float) -> None:
        left = max(deadline - self._owner.clock(), 0.001)
        job.timer = self._owner.loop.call_later(left, self._on_deadline, job, deadline)

    def _on_deadline(self, job: Job, deadline: float) -> None:
        if self._owner.clock() < deadline:  # the loop's clock is coarser, so its timer may be early
            self._wake_at(job, deadline)
            return
        error = DeadlineExceeded("the request's timeout passed before it was answered; allow more time or slow down")
        self._owner.listener.refused(error, self._owner.clock() - job.arrived)
        self.cancel(job)
        job.answered(error)


class _Both(msgspec.Struct):
    """Two that want to know of one run."""

    one: Traced
    other: Traced

    def ran(self, run: Run, requests: int, rows: int, now: float, arrived: float) -> None:
        self.one.ran(run, requests, rows, now, arrived)
        self.other.ran(run, requests, rows, now, arrived)


def _nobody(_: object) -> None:
    """Whoever waited has been told, or has left."""
