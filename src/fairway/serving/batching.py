"""The scheduler of one model version: what arrives together runs together, and nobody waits for a timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, ModelNotReady, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.backlog import Backlog
from fairway.serving.batches import Batch, BatchingSettings, Listener
from fairway.serving.cost import CostCurve
from fairway.serving.forecast import Forecast
from fairway.serving.inline import Inline, waits_of_thread
from fairway.serving.joining import Answer, Infer, Run, concatenate, run_alone, run_joined
from fairway.serving.lengths import Length
from fairway.serving.queues import Job, Part, Piece, Traced, job_of, level_of
from fairway.serving.threads import RunsCalls
from fairway.serving.waiting import Patience

log = logging.getLogger(__name__)

_LEARN_EVERY = 16
"""Calls on the loop, once their cost is known: to learn from each would cost as much as a small model's call."""
_NEAR = 4.0
"""A call that costs so many times what the loop has for it may still fit: on a thread it costs up to three times as much."""
_TRY_EVERY = 8
"""Such calls: one is made on the loop, to see."""


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
    executor : RunsCalls
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
        executor: RunsCalls,
        listener: Listener,
        curves: dict[Hashable, CostCurve] | None = None,
        length: Length | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._infer_raw: Infer = lambda feed: infer(feed, True)
        self._infer_processed: Infer = lambda feed: infer(feed, False)
        self._settings = settings
        self._loop = loop
        self._executor = executor
        self._listener = listener
        self._clock = clock
        self._forecast = Forecast(settings, curves, length)
        self._admission = self._forecast.admission
        self._backlog = Backlog(settings, self._forecast, expired=self._expired, clock=clock)
        self._patience = Patience(settings.max_wait_us / 1e6) if settings.max_wait_us else None
        self._hold: asyncio.TimerHandle | None = None
        self._hold_requests = 0
        self._held = False
        self._unlearned = 0
        self._untried = 0
        self._inline = Inline(settings.inline_us)
        self._running = 0
        self._threaded = False
        self._woken = False
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    @property
    def queued_requests(self) -> int:
        """Requests that wait for the engine."""
        return self._backlog.requests

    @property
    def queued_rows(self) -> int:
        """Their rows."""
        return self._backlog.rows

    def submit(self, job: Job, signature: Hashable, *, timeout_s: float | None = None, priority: int = 0) -> None:
        """See :class:`~fairway.serving.queues.TakesJobs`."""
        if self._closed:
            raise ModelNotReady("this version is being retired; send the request again")
        settings = self._settings
        if settings.priority_levels:
            job.level = level_of(priority, settings.priority_levels, settings.default_priority)
        backlog = self._backlog
        if backlog.requests and (
            backlog.requests >= settings.max_requests
            or backlog.rows + job.rows > self._admission.room
            or timeout_s is not None
        ):
            backlog.admit(job.rows, signature, timeout_s, job.level)
        job.owner = self
        job.arrived = arrived = self._clock()
        if timeout_s is not None:
            job.deadline = arrived + timeout_s
            job.timer = self._loop.call_later(timeout_s, self._on_deadline, job)
        backlog.add(job, signature if settings.batching else None)
        if self._patience is not None:
            self._patience.arrived(arrived)
            if self._hold is not None and backlog.rows >= settings.max_batch:
                self._stop_waiting()
        if not self._woken:
            self._wake()

    def cancel(self, job: Job) -> None:
        """See :meth:`Job.cancel`."""
        if not job.settled:
            self._close(job)
            self._backlog.bury()

    def watch(self, job: Job, trace: Traced) -> None:
        """Tell ``trace`` of the job's engine calls."""
        job.trace = trace

    async def drain(self) -> None:
        """Refuse new requests, and return when the last one is answered."""
        self._closed = True
        self._stop_waiting()
        if self._running or self.queued_requests:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    # -- choosing what runs

    def _wake(self) -> None:
        if not self._woken and self._running < self._settings.slots:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Start what can start now. After an inline batch the loop gets its turn first, so sockets never starve."""
        self._woken = False
        while self._running < self._settings.slots and self._backlog.lines:
            if self._patience is not None and self._waits():
                break
            signature = self._backlog.next()
            pieces = self._backlog.form(signature)
            if not pieces:
                continue
            curve, cells = self._forecast.curve(signature), self._forecast.cells(pieces)
            inline = self._inline
            expected_us = curve.expect(cells)
            if not inline.away and (expected_us <= self._settings.inline_us or self._tries_loop(expected_us)):
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
                elif self._threaded:  # what was slow on threads is not any more
                    self._threaded = False
                    self._admission.forget()
                if began is not None:
                    self._learn(curve, cells, runs, time.thread_time() - began)
                self._finish(pieces, runs, took_s)
                if self._backlog.lines:
                    self._wake()
                break
            if inline.away:
                inline.away -= 1
            self._start(pieces, signature)
        self._rest()

    def _tries_loop(self, expected_us: float) -> bool:
        """Whether a call is to be tried on the loop although it seems a little too long."""
        if expected_us > _NEAR * self._settings.inline_us:
            return False
        self._untried = (self._untried + 1) % _TRY_EVERY
        if self._untried:
            return False
        self._unlearned = _LEARN_EVERY  # learn from this one
        return True

    def _waits(self) -> bool:
        """Whether a batch that could run now should wait for more."""
        assert self._patience is not None
        if self._held or self._running or self._closed or self._backlog.rows >= self._settings.max_batch:
            self._held = False
            return False
        head = self._backlog.lines[self._backlog.next()][0]
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

    # -- running

    def _start(self, pieces: list[Piece], signature: Hashable) -> None:
        """Run on a thread."""
        self._running += 1
        try:
            self._executor.submit(self._work, pieces, signature, self._clock())
        except RuntimeError as error:
            self._running -= 1
            text = f"no thread could be had for the model ({error}); allow this process more of them, or try again"
            for job in map(job_of, pieces):
                if not job.settled:
                    failure = Overloaded(text)
                    self._listener.refused(failure, self._clock() - job.arrived)
                    self._settle(job, failure)

    def _work(self, pieces: list[Piece], signature: Hashable, started: float) -> None:
        """On the executor's thread."""
        began = time.thread_time()
        runs, took_s = self._execute(pieces)
        own_s = time.thread_time() - began
        self._loop.call_soon_threadsafe(self._landed, pieces, runs, took_s, own_s, signature, started)

    def _execute(self, pieces: list[Piece]) -> tuple[list[Run], float]:
        """Run, and tell the time that it took."""
        infer = self._infer_raw if pieces[0].raw else self._infer_processed
        started = time.perf_counter()
        if len(pieces) == 1:
            runs = [run_alone(infer, pieces[0].feed, 0)]
        else:
            runs = run_joined(infer, [piece.feed for piece in pieces], [piece.rows for piece in pieces])
        return runs, time.perf_counter() - started

    def _landed(
        self, pieces: list[Piece], runs: list[Run], took_s: float, own_s: float, signature: Hashable, started: float
    ) -> None:
        self._running -= 1
        self._threaded = True
        curve, cells = self._forecast.curve(signature), self._forecast.cells(pieces)
        near_us = _NEAR * self._settings.inline_us
        # A handover between threads empties the core's caches, so of a small call it says little of its cost on the loop.
        if own_s * 1e6 > near_us or curve.expect(cells) > near_us:
            self._learn(curve, cells, runs, own_s)
        first = job_of(pieces[0])
        self._admission.ran(
            rows=sum([piece.rows for piece in pieces]),
            took_s=(now := self._clock()) - started,
            waited_s=0.0 if first.level else started - first.arrived,
            now=now,
        )
        if self._backlog.lines:
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
            members = pieces if len(runs) == 1 else pieces[run.members.start : run.members.stop]
            latencies: list[float] = []
            failures: list[FairwayError] = []
            earlier: list[float] = []
            now = self._clock()
            # Counted in the next turn: the answers leave at the end of this one. Asked for now, though, it comes before what
            # the answers start.
            self._loop.call_soon(self._tell, run, members, took_s / len(runs), latencies, failures, now, earlier)
            for piece, answer in zip(members, run.answers):  # noqa: B905 (as long; this is a hot path)
                final: Answer | None = answer
                if isinstance(piece, Part):
                    job, final = piece.job, self._collect(piece, answer, run, earlier)
                else:
                    job = piece
                if job.trace is not None:
                    job.trace.ran(run, len(members), sum([each.rows for each in members]), now, job.arrived)
                if job.settled or final is None:
                    continue
                latencies.append(now - job.arrived)
                if isinstance(final, FairwayError):
                    failures.append(final)
                if job.queued or job.timer is not None:
                    self._settle(job, final)
                    continue
                job.settled = True  # what _settle does for all the others, without two calls for each request
                try:
                    job.answered(final)
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
        raw = pieces[0].raw
        self._listener.ran(Batch(run, rows, raw, took_s, latencies, failures, ended, sum(earlier)))

    def _collect(self, part: Part, answer: Answer, run: Run, earlier: list[float]) -> Answer | None:
        """The job's whole answer, or ``None`` while other parts are out, or if it is settled."""
        job = part.job
        if job.settled:
            return None
        job.began = job.began or run.started
        whole = self._joined(part, answer)
        if whole is not None:
            earlier.append(run.started - job.began)
        return whole

    def _joined(self, part: Part, answer: Answer) -> Answer | None:
        if isinstance(answer, FairwayError):
            return answer
        job = part.job
        if any(array.shape[:1] != (part.rows,) for array in answer.values()):
            return InferenceFailed(
                f"the model's outputs do not follow its rows, so {job.rows} rows cannot be run {self._settings.max_batch} "
                "at a time; send fewer rows, or pack the model with batching = false"
            )
        parts = job.parts = job.parts or {}
        parts[part.start] = answer
        if job.queued or sum(len(next(iter(each.values()))) for each in parts.values()) < job.rows:
            return None
        return concatenate([parts[start] for start in sorted(parts)])

    def _settle(self, job: Job, answer: Answer) -> None:
        self._close(job)
        try:
            job.answered(answer)
        except Exception:  # whoever it is, the others of its batch get their answers
            log.exception("answer_not_delivered")

    def _close(self, job: Job) -> None:
        job.settled = True
        if job.timer is not None:
            job.timer.cancel()
        if job.queued:
            self._backlog.left(job)
            self._wake()  # so that an emptied queue is noticed

    # -- deadlines

    def _on_deadline(self, job: Job) -> None:
        if job.settled or job.deadline is None:
            return
        if self._expired(job):
            self._backlog.bury()
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
