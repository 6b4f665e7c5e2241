"""The scheduler of one model version: what arrives together runs together, and nobody waits for a timer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeAlias

import msgspec

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, ModelNotReady, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.cost import CostCurve
from fairway.serving.joining import Answer, Run, concatenate, run_joined

log = logging.getLogger(__name__)

Done: TypeAlias = Callable[[Answer], None]
_MAX_CURVES = 64


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
    """

    max_batch: int = 64
    batching: bool = True
    slots: int = 1
    max_requests: int = 2048
    max_rows: int = 65536
    inline_us: float = 250.0


class Batch(msgspec.Struct, frozen=True, eq=False):
    """What the scheduler tells its listener after each engine call."""

    run: Run
    rows: int
    raw: bool
    took_s: float
    latencies_s: Sequence[float]
    failures: Sequence[FairwayError]


class Listener(Protocol):
    """Called on the event loop; must not raise."""

    def ran(self, batch: Batch) -> None:
        """One engine call ended; its callers have their answers."""
        ...

    def refused(self, error: FairwayError) -> None:
        """One request got no engine call."""
        ...


class Job(msgspec.Struct, eq=False):  # a struct is made in a quarter of a class's time
    """One request in the scheduler. :meth:`cancel` it when the caller leaves."""

    scheduler: Scheduler
    feed: Tensors
    rows: int
    raw: bool
    deadline: float | None
    callback: Done
    arrived: float = msgspec.field(default_factory=time.perf_counter)
    taken: int = 0
    parts: dict[int, Tensors] = {}
    queued: bool = True
    settled: bool = False
    timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Forget this request: it will not run if it has not yet, and its callback is never called."""
        self.scheduler.cancel(self)


class _Piece(msgspec.Struct, eq=False):
    """``rows`` rows of one job from ``start`` on; ``whole`` if these are all."""

    job: Job
    start: int
    rows: int
    whole: bool

    def feed(self) -> Tensors:
        if self.whole:
            return self.job.feed
        return {name: array[self.start : self.start + self.rows] for name, array in self.job.feed.items()}


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
    ) -> None:
        self._infer = infer
        self._settings = settings
        self._loop = loop
        self._executor = executor
        self._listener = listener
        self._curves = curves if curves is not None else {}
        self._queues: dict[Hashable, deque[Job]] = {}
        self._running = 0
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
    ) -> Job:
        """Queue a request. ``done`` is called once on the loop with its answer, unless it is cancelled.

        Raises
        ------
        Overloaded
            If the queue is full.
        ModelNotReady
            If the version is being retired.
        """
        if self._closed:
            raise ModelNotReady("this version is being retired; send the request again")
        if self.queued_requests and (
            self.queued_requests >= self._settings.max_requests or self.queued_rows + rows > self._settings.max_rows
        ):
            raise Overloaded(
                f"{self.queued_requests} requests with {self.queued_rows} rows are waiting already; slow down, or add replicas",
                retry_after_s=self._wait_s(signature),
            )
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        job = Job(self, feed, rows, raw, deadline, done)
        self._queues.setdefault(signature if self._settings.batching else job, deque()).append(job)
        self.queued_requests += 1
        self.queued_rows += rows
        if timeout_s is not None:
            job.timer = self._loop.call_later(timeout_s, self._on_deadline, job)
        self._wake()
        return job

    def cancel(self, job: Job) -> None:
        """See :meth:`Job.cancel`."""
        if not job.settled:
            self._close(job)

    async def drain(self) -> None:
        """Refuse new requests, and return when the last one is answered."""
        self._closed = True
        if self._running or self.queued_requests:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    # -- forming batches

    def _wake(self) -> None:
        if not self._woken and self._running < self._settings.slots:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Start what can start now. After an inline batch the loop gets its turn first, so sockets never starve."""
        self._woken = False
        while self._running < self._settings.slots and self._queues:
            signature = next(iter(self._queues)) if len(self._queues) == 1 else self._oldest()
            pieces = self._form(signature)
            if not pieces:
                continue
            rows = sum([piece.rows for piece in pieces])
            if self._curve(signature).expect(rows) <= self._settings.inline_us:
                runs, took_s, own_s = self._execute(pieces)
                self._learn(pieces, runs, own_s, signature)
                self._finish(pieces, runs, took_s)
                if self._queues:
                    self._wake()
                break
            self._running += 1
            self._executor.submit(self._work, pieces, signature)
        self._rest()

    def _oldest(self) -> Hashable:
        return min(self._queues, key=lambda signature: self._queues[signature][0].arrived)

    def _form(self, signature: Hashable) -> list[_Piece]:
        """Take the next batch from one queue. A request is only cut if it is larger than any batch may be."""
        queue = self._queues[signature]
        limit = self._settings.max_batch
        pieces: list[_Piece] = []
        rows = 0
        while queue and rows < limit:
            job = queue[0]
            if job.settled or (job.deadline is not None and self._expired(job)):
                queue.popleft()
                continue
            left = job.rows - job.taken
            if not self._settings.batching:
                limit = left
            take = min(left, limit - rows)
            if take < left and job.rows <= limit:
                break
            pieces.append(_Piece(job, job.taken, take, take == job.rows))
            job.taken += take
            rows += take
            self.queued_rows -= take
            if job.taken == job.rows:
                queue.popleft()
                job.queued = False
                self.queued_requests -= 1
        if not queue:
            del self._queues[signature]
        return pieces

    def _curve(self, signature: Hashable) -> CostCurve:
        key = signature if self._settings.batching else None
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) >= _MAX_CURVES:
                del self._curves[next(iter(self._curves))]
            curve = self._curves[key] = CostCurve()
        return curve

    # -- running

    def _work(self, pieces: list[_Piece], signature: Hashable) -> None:
        """On the executor's thread."""
        runs, took_s, own_s = self._execute(pieces)
        self._loop.call_soon_threadsafe(self._landed, pieces, runs, took_s, own_s, signature)

    def _execute(self, pieces: list[_Piece]) -> tuple[list[Run], float, float]:
        """Run, and tell the time that it took, and the thread's own.

        The own time is what the cost is learned from. The clock's would hold the wait for the interpreter lock, or for a
        core, so that whatever once ran on a thread, or on a busy machine, would look too costly for the loop for ever.
        """
        raw = pieces[0].job.raw
        started, began = time.perf_counter(), time.thread_time()
        runs = run_joined(
            lambda feed: self._infer(feed, raw),
            [piece.feed() for piece in pieces],
            [piece.rows for piece in pieces],
        )
        return runs, time.perf_counter() - started, time.thread_time() - began

    def _landed(self, pieces: list[_Piece], runs: list[Run], took_s: float, own_s: float, signature: Hashable) -> None:
        self._running -= 1
        if self._queues:
            self._wake()
        self._learn(pieces, runs, own_s, signature)
        self._finish(pieces, runs, took_s)
        self._rest()

    # -- answering

    def _learn(self, pieces: list[_Piece], runs: list[Run], own_s: float, signature: Hashable) -> None:
        if len(runs) == 1 and runs[0].outputs is not None:
            self._curve(signature).learn(sum([piece.rows for piece in pieces]), own_s * 1e6)

    def _finish(self, pieces: list[_Piece], runs: list[Run], took_s: float) -> None:
        for run in runs:
            members = pieces[run.members.start : run.members.stop]
            latencies: list[float] = []
            failures: list[FairwayError] = []
            now = time.perf_counter()
            for piece, answer in zip(members, run.answers, strict=True):
                job = piece.job
                if job.settled:
                    continue
                final = answer if piece.whole else self._collect(piece, answer)
                if final is None:
                    continue
                latencies.append(now - job.arrived)
                if isinstance(final, FairwayError):
                    failures.append(final)
                self._settle(job, final)
            rows = sum([piece.rows for piece in members])
            self._listener.ran(Batch(run, rows, pieces[0].job.raw, took_s / len(runs), latencies, failures))

    def _collect(self, piece: _Piece, answer: Answer) -> Answer | None:
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
            self.queued_requests -= 1
            self.queued_rows -= job.rows - job.taken
            self._wake()  # so that an emptied queue is noticed

    # -- deadlines

    def _on_deadline(self, job: Job) -> None:
        if job.settled or job.deadline is None or self._expired(job):
            return
        left = job.deadline - time.monotonic()  # the loop's clock is coarser, so its timer may be early
        job.timer = self._loop.call_later(max(left, 0.001), self._on_deadline, job)

    def _expired(self, job: Job) -> bool:
        if job.deadline is None or time.monotonic() < job.deadline:
            return False
        error = DeadlineExceeded("the request's timeout passed before it was answered; allow more time or slow down")
        self._listener.refused(error)
        self._settle(job, error)
        return True

    # -- resting

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._running and not self.queued_requests:
            self._idle.set_result(None)

    def _wait_s(self, signature: Hashable) -> float:
        """When the queue should be empty again, going by the learned cost."""
        batches = math.ceil(self.queued_rows / self._settings.max_batch)
        each = self._curve(signature).expect(self._settings.max_batch) / 1e6
        return min(max(batches * each, 0.1), 60.0) if each < math.inf else 1.0
