"""Stands before a scheduler: equal requests are answered from the cache, and those in flight share one run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Protocol

import msgspec

from fairway.core.errors import DeadlineExceeded, FairwayError
from fairway.core.tensors import Tensors
from fairway.serving.batching import Scheduler
from fairway.serving.cache import ResponseCache, digest, private
from fairway.serving.joining import Answer
from fairway.serving.queues import Cancellable, Done, Job
from fairway.serving.tracer import Trace

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


class Member(msgspec.Struct, eq=False):
    """One caller of a shared run. :meth:`cancel` it when it leaves."""

    flight: _Flight
    done: Done
    arrived: float
    deadline: float | None
    timer: asyncio.TimerHandle | None = None

    def watch(self, trace: Trace) -> None:
        """``trace`` is told when the run has ended, like those of others who wait for it."""
        job = self.flight.job
        if job is not None:
            trace.also, job.trace = job.trace, trace

    def cancel(self) -> None:
        """The others still get their answer; without others the run is cancelled."""
        self.flight.leave(self)


class SharingScheduler:
    """Answers as its scheduler does, and keeps what it answered. Errors are never kept. For the event loop's thread only.

    Parameters
    ----------
    scheduler : Scheduler
    cache : ResponseCache
    seed : bytes
        The version's digest.
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
        seed: bytes,
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
        self._seed = seed

    def submit(
        self,
        feed: Tensors,
        rows: int,
        *,
        signature: Hashable,
        done: Done,
        raw: bool = False,
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> Cancellable:
        """See :meth:`Scheduler.submit`. A shared run has its first caller's priority, and each caller its own timeout."""
        arrived = self.clock()
        key = digest(self._seed, feed, raw)
        answer = self.cache.get(key)
        if answer is not None:
            handle = self.loop.call_soon(done, answer)  # not within submit: callers count on that
            self.listener.hit(feed, answer, rows, raw, self.clock() - arrived)
            self._used()
            return handle
        flight = self.flights.get(key)
        if flight is None:
            flight = _Flight(self, key, private(feed), rows, raw)  # the connection may reuse its buffer before the run
            flight.job = self.scheduler.submit(
                flight.feed,
                rows,
                signature=signature,
                done=flight.landed,
                raw=raw,
                timeout_s=timeout_s,
                priority=priority,
            )
            self.flights[key] = flight
            self.listener.missed(self.clock() - arrived)
        return flight.join(done, arrived, None if timeout_s is None else arrived + timeout_s)


class _Flight:
    """One run, and all who wait for it."""

    def __init__(self, owner: SharingScheduler, key: bytes, feed: Tensors, rows: int, raw: bool) -> None:
        self.feed = feed
        self.job: Job | None = None
        self._owner = owner
        self._key = key
        self._rows = rows
        self._raw = raw
        self._members: list[Member] = []

    def join(self, done: Done, arrived: float, deadline: float | None) -> Member:
        member = Member(self, done, arrived, deadline)
        self._members.append(member)
        if len(self._members) > 1 and self.job is not None:
            self._share_deadlines(self.job)
        return member

    def leave(self, member: Member) -> None:
        if member not in self._members:
            return
        self._members.remove(member)
        if member.timer is not None:
            member.timer.cancel()
        if not self._members:
            self._end()
            if self.job is not None:
                self.job.cancel()

    def landed(self, answer: Answer) -> None:
        """The run ended. Its first caller is whom the scheduler has counted."""
        self._end()
        members, self._members, self.job = self._members, [], None
        if not isinstance(answer, FairwayError):
            try:
                answer = private(answer)
                self._owner.cache.put(self._key, answer)
            except Exception:  # of memory, say: it is an answer all the same
                log.exception("answer_not_kept")
        for place, member in enumerate(members):
            if member.timer is not None:
                member.timer.cancel()
            if place:
                self._count(member, answer)
            try:
                member.done(answer)
            except Exception:  # whoever it is, the others get their answers
                log.exception("answer_not_delivered")

    def _count(self, member: Member, answer: Answer) -> None:
        took_s = self._owner.clock() - member.arrived
        if isinstance(answer, FairwayError):
            self._owner.listener.refused(answer, took_s)
        else:
            self._owner.listener.hit(self.feed, answer, self._rows, self._raw, took_s)

    def _end(self) -> None:
        if self._owner.flights.get(self._key) is self:
            del self._owner.flights[self._key]

    def _share_deadlines(self, job: Job) -> None:
        """From now on each caller has its own timer, and the run is worth it until the last of them."""
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        deadlines = [member.deadline for member in self._members]
        known = [deadline for deadline in deadlines if deadline is not None]
        job.deadline = max(known) if len(known) == len(deadlines) else None
        for member in self._members:
            if member.deadline is not None and member.timer is None:
                self._wake_at(member, member.deadline)

    def _wake_at(self, member: Member, deadline: float) -> None:
        left = max(deadline - self._owner.clock(), 0.001)
        member.timer = self._owner.loop.call_later(left, self._on_deadline, member, deadline)

    def _on_deadline(self, member: Member, deadline: float) -> None:
        if self._owner.clock() < deadline:  # the loop's clock is coarser, so its timer may be early
            self._wake_at(member, deadline)
            return
        error = DeadlineExceeded("the request's timeout passed before it was answered; allow more time or slow down")
        self._owner.listener.refused(error, self._owner.clock() - member.arrived)
        self.leave(member)
        member.done(error)
