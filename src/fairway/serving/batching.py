"""The scheduler of one model version: what arrives together runs together, and nobody waits for a timer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, ModelNotReady, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.admission import Admission
from fairway.serving.cost import BLOCKING_US, CostCurve
from fairway.serving.inline import Inline, waits_of_thread
from fairway.serving.joining import Answer, Run, concatenate, run_joined
from fairway.serving.lengths import Length, like
from fairway.serving.queues import Done, Job, Line, Piece, Ranked, level_of
from fairway.serving.waiting import Patience

log = logging.getLogger(__name__)

_LEARN_EVERY = 16
"""Calls on the loop, once their cost is known: to learn from each would cost as much as a small model's call."""
_MAX_CURVES = 64
_MAX_DEAD = 64


class BatchingSettings(msgspec.Struct, frozen=True):
    """How one version is scheduled.

    Attributes
    ----------
    max_batch : int
        Rows per engine call.
    batching : bool
        Whether requests may share a call at all. If not, each runs alone and whole.
    slots : int
        Engine calls that may run at the same time on threads.
    max_requests, max_rows : int
        Limits of the queue.
    inline_us : float
        Expected microseconds up to which a batch runs on the event loop.
    max_queue_wait_s : float
        Refuse what would wait longer for the engine.
    max_wait_us : float
        How long a batch may wait for more where that pays; 0 is never.
    priority_levels, default_priority : int
        See :func:`~fairway.serving.queues.level_of`; no levels is no priorities.
    """

    max_batch: int = 64
    batching: bool = True
    slots: int = 1
    max_requests: int = 2048
    max_rows: int = 65536
    inline_us: float = 250.0
    max_queue_wait_s: float = 10.0
    max_wait_us: float = 0.0
    priority_levels: int = 0
    default_priority: int = 0


class Batch(msgspec.Struct, frozen=True, eq=False):
    """What the scheduler tells its listener after each engine call.

    ``ended`` is on :func:`time.perf_counter`. ``earlier_s`` is how long before this call the first ones of its cut requests
    had started.
    """

    run: Run
    rows: int
    raw: bool
    took_s: float
    latencies_s: Sequence[float]
    failures: Sequence[FairwayError]
    ended: float = 0.0
    earlier_s: float = 0.0


class Listener(Protocol):
    """Called on the event loop; must not raise."""

    def ran(self, batch: Batch) -> None:
        """One engine call ended; its callers have their answers."""
        ...

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        """One request got no engine call, after ``waited_s`` in the queue."""
        ...


class Scheduler:
    """Runs one version's requests.

    Whatever arrived in one turn of the event loop, or while the engine was busy, forms the next batch. Requests whose
    signatures differ (other trailing shapes, say) never share one. All methods are for the event loop's thread.

    Parameters
    ----------
    infer : callable
        ``infer(feed, raw)``; runs on the loop or on the executor.
    settings : BatchingSettings
    loop : asyncio.AbstractEventLoop
    executor : Executor
        Takes what is too long for the loop; at least ``slots`` threads.
    listener : Listener
    curves : dict of signature to CostCurve, optional
        What warm-up learned.
    length : callable, optional
        The length to which a request's rows are padded when they run together. Then curves are over rows times length.
    clock : callable, optional
        Seconds, for arrivals, deadlines and waits.
    """

    def __init__(
        self,
        infer: Callable[[Tensors, bool], Tensors],
        settings: BatchingSettings,
        *,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        listener: Listener,
        curves: dict[Hashable, CostCurve] | None = None,
        length: Length | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._infer = infer
        self._settings = settings
        self._loop = loop
        self._executor = executor
        self._listener = listener
        self._curves = curves if curves is not None else {}
        self._length = length
        self._clock = clock
        self._admission = Admission(
            max_rows=settings.max_rows,
            max_wait_s=settings.max_queue_wait_s,
            max_batch=settings.max_batch,
            slots=settings.slots,
        )
        self._line: Callable[..., Line] = Ranked if settings.priority_levels else deque
        self._level_rows = [0] * settings.priority_levels
        self._patience = Patience(settings.max_wait_us / 1e6) if settings.max_wait_us else None
        self._hold: asyncio.TimerHandle | None = None
        self._hold_requests = 0
        self._held = False
        self._queues: dict[Hashable, Line] = {}
        self._dead = 0
        self._unlearned = 0
        self._inline = Inline(settings.inline_us)
        self._running = 0
        self._threaded = False
        self._woken = False
        self._closed = False
        self._idle: asyncio.Future[None] | None = None
        self.queued_requests = 0
        self.queued_rows = 0

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
    ) -> Job:
        """Queue a request. ``done`` is called once on the loop with its answer, unless it is cancelled.

        Raises
        ------
        Overloaded
            If the queue is full, or the request would wait too long in it.
        ModelNotReady
            If the version is being retired.
        """
        if self._closed:
            raise ModelNotReady("this version is being retired; send the request again")
        settings = self._settings
        levels = settings.priority_levels
        level = level_of(priority, levels, settings.default_priority) if levels else 0
        if self.queued_requests and (
            self.queued_requests >= settings.max_requests
            or self.queued_rows + rows > self._admission.room
            or timeout_s is not None
        ):
            self._admit(rows, signature, timeout_s, level)
        arrived = self._clock()
        deadline = None if timeout_s is None else arrived + timeout_s
        job = Job(self, feed, rows, raw, deadline, done, arrived, level)
        key = signature if settings.batching else None
        line = self._queues.get(key)
        if line is None:
            line = self._queues[key] = self._line()
        line.append(job)
        self.queued_requests += 1
        self.queued_rows += rows
        if levels:
            self._level_rows[level] += rows
        if timeout_s is not None:
            job.timer = self._loop.call_later(timeout_s, self._on_deadline, job)
        if self._patience is not None:
            self._patience.arrived(arrived)
            if self._hold is not None and self.queued_rows >= settings.max_batch:
                self._stop_waiting()
        if not self._woken:
            self._wake()
        return job

    def cancel(self, job: Job) -> None:
        """See :meth:`Job.cancel`."""
        if not job.settled:
            self._close(job)
            self._bury()

    async def drain(self) -> None:
        """Refuse new requests, and return when the last one is answered."""
        self._closed = True
        self._stop_waiting()
        if self._running or self.queued_requests:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    # -- admission

    def _admit(self, rows: int, signature: Hashable, timeout_s: float | None, level: int) -> None:
        """Raise :class:`Overloaded` unless there is room, and time, for ``rows`` more."""
        settings = self._settings
        ahead = sum(self._level_rows[: level + 1]) if settings.priority_levels else self.queued_rows
        if self.queued_requests >= settings.max_requests or self.queued_rows + rows > settings.max_rows:
            reason = "; slow down, or add replicas"
        elif ahead and ahead + rows > self._admission.room:
            reason = ", which takes too long; slow down, or add replicas"
        elif timeout_s is not None and (needs_s := self._finish_s(ahead, rows, signature)) > timeout_s:
            reason = (
                f", so this one would take about {needs_s * 1e3:.0f} ms, and its timeout is {timeout_s * 1e3:.0f} ms; "
                "allow more time, slow down, or add replicas"
            )
        else:
            return
        waiting = f"{self.queued_requests} requests with {self.queued_rows} rows are waiting already"
        raise Overloaded(waiting + reason, self._retry_s(signature))

    def _finish_s(self, ahead: int, rows: int, signature: Hashable) -> float:
        """When the last of ``rows`` rows should be answered, with ``ahead`` rows waiting before it."""
        full = ahead // self._settings.max_batch * self._settings.max_batch  # the rest shares its batch
        return self._wait_s(full, signature) + self._call_s(
            min(ahead - full + rows, self._settings.max_batch), signature
        )

    def _wait_s(self, rows: int, signature: Hashable) -> float:
        if not rows:
            return 0.0
        if self._admission.curve.expect(1) < math.inf:
            return self._admission.wait_s(rows)
        calls = math.ceil(rows / self._settings.max_batch) / self._settings.slots
        return calls * self._call_s(self._settings.max_batch, signature)

    def _call_s(self, rows: int, signature: Hashable) -> float:
        """By the clock where that is known, which it is once a batch ran on a thread; else by the thread's own time."""
        us = self._admission.curve.expect(rows)
        if us == math.inf and self._length is None:
            us = self._curve(signature).expect(rows)
        return us / 1e6 if us < math.inf else 0.0

    def _retry_s(self, signature: Hashable) -> float:
        """When the queue should be empty again, going by the learned cost."""
        wait_s = self._wait_s(self.queued_rows, signature)
        return min(max(wait_s, 0.1), 60.0) if wait_s else 1.0

    # -- forming batches

    def _wake(self) -> None:
        if not self._woken and self._running < self._settings.slots:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Start what can start now. After an inline batch the loop gets its turn first, so sockets never starve."""
        self._woken = False
        while self._running < self._settings.slots and self._queues:
            if self._patience is not None and self._waits():
                break
            signature = next(iter(self._queues)) if len(self._queues) == 1 else self._oldest()
            pieces = self._form(signature)
            if not pieces:
                continue
            curve, cells = self._curve(signature), self._cells(pieces)
            inline = self._inline
            if curve.expect(cells) <= self._settings.inline_us and not inline.away:
                self._unlearned = 0 if self._unlearned >= _LEARN_EVERY or not curve.sure else self._unlearned + 1
                began = None if self._unlearned else time.thread_time()
                if inline.watched:
                    waits = waits_of_thread()
                    runs, took_s = self._execute(pieces)
                    inline.saw(took_s, waits_of_thread() > waits)
                else:
                    runs, took_s = self._execute(pieces)
                if took_s > inline.slow_s:
                    inline.was_slow()
                    self._unlearned = _LEARN_EVERY  # the next one tells whether it was its own time
                if self._threaded:  # what was slow on threads is not any more
                    self._threaded = False
                    self._admission.forget()
                if began is not None:
                    self._learn(curve, cells, runs, time.thread_time() - began)
                self._finish(pieces, runs, took_s)
                if self._queues:
                    self._wake()
                break
            if inline.away:
                inline.away -= 1
            self._start(pieces, signature)
        self._rest()

    def _oldest(self) -> Hashable:
        return min(self._queues, key=lambda signature: self._queues[signature][0].rank)

    def _waits(self) -> bool:
        """Whether a batch that could run now should wait for more."""
        assert self._patience is not None
        if self._held or self._running or self._closed or self.queued_rows >= self._settings.max_batch:
            self._held = False
            return False
        head = self._queues[self._oldest()][0]
        wait_s = self._patience.wait_s(self._admission.curve)
        until = head.arrived + wait_s
        if head.deadline is not None:
            until = min(until, head.deadline - 2 * self._admission.call_s(head.rows))
        left = until - self._clock()
        if wait_s <= 0 or left <= 0:
            return False
        self._woken = True
        self._hold_requests = self.queued_requests
        self._hold = self._loop.call_later(left, self._stop_waiting)
        return True

    def _stop_waiting(self) -> None:
        if self._hold is not None and self._patience is not None:
            self._patience.waited(paid=self.queued_requests > self._hold_requests)
            self._hold.cancel()
            self._hold = None
            self._held = True
            self._woken = False
            self._wake()  # not at once: nobody is answered before `submit` has told what to cancel

    def _form(self, signature: Hashable) -> list[Piece]:
        """Take the next batch from one queue. A request is only cut if it is larger than any batch may be."""
        queue = self._queues[signature]
        batching = self._settings.batching
        limit = self._settings.max_batch
        pieces: list[Piece] = []
        rows = 0
        due: float | None = None
        while queue and rows < limit:
            job = queue[0]
            if job.settled or (job.deadline is not None and self._expired(job)):
                queue.popleft()
                self._dead -= 1
                continue
            left = job.rows - job.taken
            if not batching:
                limit = left
            take = min(left, limit - rows)
            if take < left and job.rows <= limit:
                break
            if job.deadline is not None and (due is None or job.deadline < due):
                due = job.deadline
            if due is not None and pieces and self._too_late(due - self._clock(), rows, take, signature):
                break
            pieces.append(Piece(job, job.taken, take, take == job.rows))
            job.taken += take
            rows += take
            self.queued_rows -= take
            if self._level_rows:
                self._level_rows[job.level] -= take
            if job.taken == job.rows:
                queue.popleft()
                job.queued = False
                self.queued_requests -= 1
        if self._length is not None and len(pieces) > 1:
            pieces = self._alike(pieces, queue, self._length, signature)
        if not queue:
            del self._queues[signature]
        return pieces

    def _too_late(self, left_s: float, rows: int, more: int, signature: Hashable) -> bool:
        """Whether ``more`` rows would let a batch miss a deadline that it keeps without them."""
        return self._call_s(rows + more, signature) > left_s >= self._call_s(rows, signature)

    def _alike(self, pieces: list[Piece], queue: Line, length: Length, signature: Hashable) -> list[Piece]:
        """Those that should run with the first one; the others go back to the front of their line."""
        if not all(piece.whole for piece in pieces):
            return pieces
        lengths = [length(piece.job.feed) for piece in pieces]
        stay = like(lengths, [piece.rows for piece in pieces], self._curve(signature))
        if len(stay) == len(pieces):
            return pieces
        kept = set(stay)
        back = [piece.job for place, piece in enumerate(pieces) if place not in kept]
        for job in back:
            job.taken, job.queued = 0, True
            self.queued_requests += 1
            self.queued_rows += job.rows
            if self._level_rows:
                self._level_rows[job.level] += job.rows
        queue.extendleft(reversed(back))
        return [piece for place, piece in enumerate(pieces) if place in kept]

    def _cells(self, pieces: list[Piece]) -> int:
        """What the cost of a call grows with: its rows, each padded to the longest where the bundle pads."""
        rows = sum([piece.rows for piece in pieces])
        return rows if self._length is None else rows * max(self._length(piece.job.feed) for piece in pieces)

    def _curve(self, signature: Hashable) -> CostCurve:
        key = signature if self._settings.batching else None
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) >= _MAX_CURVES:
                del self._curves[next(iter(self._curves))]
            curve = self._curves[key] = CostCurve(BLOCKING_US)
        return curve

    # -- running

    def _start(self, pieces: list[Piece], signature: Hashable) -> None:
        """Run on a thread."""
        self._running += 1
        open_ = [True]
        try:
            self._executor.submit(self._work, pieces, signature, self._clock(), open_)
        except RuntimeError as error:  # no thread can be started; but the executor has kept the work
            try:
                open_.pop()
            except IndexError:
                return  # and another thread has it
            self._running -= 1
            text = f"no thread could be had for the model ({error}); allow this process more of them, or try again"
            for piece in pieces:
                if not piece.job.settled:
                    failure = Overloaded(text)
                    self._listener.refused(failure, self._clock() - piece.job.arrived)
                    self._settle(piece.job, failure)

    def _work(self, pieces: list[Piece], signature: Hashable, started: float, open_: list[bool]) -> None:
        """On the executor's thread."""
        try:
            open_.pop()
        except IndexError:
            return  # refused
        began = time.thread_time()
        runs, took_s = self._execute(pieces)
        own_s = time.thread_time() - began
        self._loop.call_soon_threadsafe(self._landed, pieces, runs, took_s, own_s, signature, started)

    def _execute(self, pieces: list[Piece]) -> tuple[list[Run], float]:
        """Run, and tell the time that it took."""
        raw = pieces[0].job.raw
        started = time.perf_counter()
        runs = run_joined(
            lambda feed: self._infer(feed, raw),
            [piece.job.feed if piece.whole else piece.feed() for piece in pieces],
            [piece.rows for piece in pieces],
        )
        return runs, time.perf_counter() - started

    def _landed(
        self, pieces: list[Piece], runs: list[Run], took_s: float, own_s: float, signature: Hashable, started: float
    ) -> None:
        self._running -= 1
        self._threaded = True
        self._learn(self._curve(signature), self._cells(pieces), runs, own_s)
        self._admission.ran(
            rows=sum([piece.rows for piece in pieces]),
            took_s=(now := self._clock()) - started,
            waited_s=0.0 if pieces[0].job.level else started - pieces[0].job.arrived,
            now=now,
        )
        if self._queues:
            self._wake()
        self._finish(pieces, runs, took_s)
        self._rest()

    # -- answering

    def _learn(self, curve: CostCurve, cells: int, runs: list[Run], own_s: float) -> None:
        """Learn the cost from ``own_s``, the thread's own time.

        The clock's would hold the wait for the interpreter lock, or for a core, so that whatever once ran on a thread, or on
        a busy machine, would look too costly for the loop for ever.
        """
        if len(runs) == 1 and runs[0].outputs is not None:
            curve.learn(cells, own_s * 1e6)

    def _finish(self, pieces: list[Piece], runs: list[Run], took_s: float) -> None:
        for run in runs:
            members = pieces[run.members.start : run.members.stop]
            latencies: list[float] = []
            failures: list[FairwayError] = []
            earlier: list[float] = []
            now = self._clock()
            # Counted in the next turn: the answers leave at the end of this one. Asked for now, though, it comes before what
            # the answers start.
            self._loop.call_soon(self._tell, run, members, took_s / len(runs), latencies, failures, now, earlier)
            for piece, answer in zip(members, run.answers, strict=True):
                job = piece.job
                if job.trace is not None:
                    job.trace.ran(run, len(members), sum([each.rows for each in members]), now, job.arrived)
                if job.settled:
                    continue
                final = answer
                if not piece.whole:
                    job.began = job.began or run.started
                    whole = self._collect(piece, answer)
                    if whole is None:
                        continue
                    final = whole
                    earlier.append(run.started - job.began)
                latencies.append(now - job.arrived)
                if isinstance(final, FairwayError):
                    failures.append(final)
                if job.queued or job.timer is not None:
                    self._settle(job, final)
                    continue
                job.settled = True  # what _settle does for all the others, without two calls for each request
                try:
                    job.callback(final)
                except Exception:
                    log.exception("answer_not_delivered")

    def _tell(
        self,
        run: Run,
        pieces: list[Piece],
        took_s: float,
        latencies: list[float],
        failures: list[FairwayError],
        ended: float,
        earlier: list[float],
    ) -> None:
        rows = sum([piece.rows for piece in pieces])
        raw = pieces[0].job.raw
        self._listener.ran(Batch(run, rows, raw, took_s, latencies, failures, ended, sum(earlier)))

    def _collect(self, piece: Piece, answer: Answer) -> Answer | None:
        """The job's whole answer, or ``None`` while other pieces are out."""
        if isinstance(answer, FairwayError):
            return answer
        job = piece.job
        if any(array.shape[:1] != (piece.rows,) for array in answer.values()):
            return InferenceFailed(
                f"the model's outputs do not follow its rows, so {job.rows} rows cannot be run {self._settings.max_batch} "
                "at a time; send fewer rows, or pack the model with batching = false"
            )
        job.parts[piece.start] = answer
        if job.queued or sum(len(next(iter(part.values()))) for part in job.parts.values()) < job.rows:
            return None
        return concatenate([job.parts[start] for start in sorted(job.parts)])

    def _settle(self, job: Job, answer: Answer) -> None:
        self._close(job)
        try:
            job.callback(answer)
        except Exception:  # whoever it is, the others of its batch get their answers
            log.exception("answer_not_delivered")

    def _close(self, job: Job) -> None:
        job.settled = True
        if job.timer is not None:
            job.timer.cancel()
        if job.queued:
            if not job.taken:
                job.feed = {}  # it may lie in its queue until the engine is free
            job.queued = False
            left = job.rows - job.taken
            self.queued_requests -= 1
            self.queued_rows -= left
            if self._level_rows:
                self._level_rows[job.level] -= left
            self._dead += 1
            self._wake()  # so that an emptied queue is noticed

    def _bury(self) -> None:
        """Drop those who left from the lines, where they would otherwise lie until the engine is free; if they are many.

        Not while a batch is being formed: it would go on with the old line.
        """
        if self._dead <= max(_MAX_DEAD, self.queued_requests):
            return
        for signature, queue in list(self._queues.items()):
            alive = [job for job in queue if not job.settled]
            if alive:
                self._queues[signature] = self._line(alive)
            else:
                del self._queues[signature]
        self._dead = 0

    # -- deadlines

    def _on_deadline(self, job: Job) -> None:
        if job.settled or job.deadline is None:
            return
        if self._expired(job):
            self._bury()
            return
        left = job.deadline - self._clock()  # the loop's clock is coarser, so its timer may be early
        job.timer = self._loop.call_later(max(left, 0.001), self._on_deadline, job)

    def _expired(self, job: Job) -> bool:
        if job.deadline is None or self._clock() < job.deadline:
            return False
        error = DeadlineExceeded("the request's timeout passed before it was answered; allow more time or slow down")
        self._listener.refused(error, self._clock() - job.arrived)
        self._settle(job, error)
        return True

    # -- resting

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._running and not self.queued_requests:
            self._idle.set_result(None)
