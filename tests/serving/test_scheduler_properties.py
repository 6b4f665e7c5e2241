"""What holds whatever happens to the scheduler: callers that leave, timeouts, failures, priorities. On a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.batches import Batch, BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cost import CostCurve
from fairway.serving.joining import Answer
from fairway.serving.queues import Job, Piece, job_of
from tests.serving.virtual import VirtualExecutor, VirtualLoop

LATE_S = 0.003
"""How late a timeout may be told: the loop's timers count milliseconds."""


class Sent:
    """One accepted request, and what became of it."""

    def __init__(self, values: list[float], signature: str, poisoned: bool, deadline: float | None) -> None:
        self.values = values
        self.signature = signature
        self.poisoned = poisoned
        self.deadline = deadline
        self.job: Job | None = None
        self.outcomes: list[tuple[float, Answer]] = []
        self.cancelled = False


class SchedulerMachine(RuleBasedStateMachine):
    """Each row carries a number of its own; an engine call that holds a poisoned one raises."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.faults: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.numbers = itertools.count(1)
        self.sent: list[Sent] = []
        self.ran: dict[float, int] = {}
        self.refusals = 0
        self.completed = 0
        self.failed = 0

    @initialize(
        how=st.builds(
            BatchingSettings,
            max_batch=st.integers(1, 8),
            batching=st.booleans(),
            slots=st.integers(1, 3),
            max_requests=st.sampled_from([3, 1000]),
            max_rows=st.sampled_from([10, 10_000]),
            inline_us=st.sampled_from([0.0, 0.0, 1e9]),
            max_queue_wait_s=st.sampled_from([0.5, 10.0]),
            max_wait_us=st.sampled_from([0.0, 20_000.0]),
            priority_levels=st.sampled_from([0, 3]),
        ),
        base_s=st.sampled_from([0.01, 0.2]),
        row_s=st.sampled_from([0.0, 0.05]),
        padded=st.booleans(),
    )
    def start(self, how: BatchingSettings, base_s: float, row_s: float, padded: bool) -> None:
        self.how = how
        known = CostCurve()
        for cells in (1, 10, 100):
            known.learn(cells, 100 + 50 * cells)

        def seconds(pieces: list[Piece], *_: object) -> float:
            self.check_start([job_of(piece) for piece in pieces])
            return base_s + row_s * sum(piece.rows for piece in pieces)

        self.scheduler = Scheduler(
            self.infer,
            how,
            loop=self.loop,
            executor=VirtualExecutor(self.loop, seconds),
            listener=_Listener(self),
            curves={"a": known} if padded else None,
            length=(lambda feed: int(feed["x"][:, 1].max())) if padded else None,
            clock=self.loop.time,
        )

    # -- the engine, and the listener

    def infer(self, feed: Tensors, raw: bool) -> Tensors:
        values = feed["x"][:, 0].tolist()
        owners = [sent for sent in self.sent if set(sent.values) & set(values)]
        assert len({sent.signature for sent in owners}) == 1
        assert len(values) <= self.how.max_batch if self.how.batching else len(owners) == 1
        if any(sent.poisoned for sent in owners):
            raise RuntimeError("poison")
        for value in values:
            self.ran[value] = self.ran.get(value, 0) + 1
        return {"y": feed["x"][:, :1] * 2}

    def check_start(self, jobs: list[Job]) -> None:
        for job in jobs:
            assert not job.settled, "it was cancelled, or has expired, and still runs"
            assert job.deadline is None or self.loop.time() < job.deadline

    def count(self, batch: Batch) -> None:
        self.completed += len(batch.latencies_s)
        self.failed += len(batch.failures)

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        assert isinstance(error, DeadlineExceeded)
        self.refusals += 1

    # -- what may happen

    @rule(
        rows=st.integers(1, 20),
        signature=st.sampled_from("ab"),
        poisoned=st.sampled_from([False, False, False, True]),
        timeout_s=st.none() | st.sampled_from([0.001, 0.1, 0.5, 5.0]),
        priority=st.integers(0, 4),
        length=st.sampled_from([1, 2, 90]),
    )
    def arrive(
        self, rows: int, signature: str, poisoned: bool, timeout_s: float | None, priority: int, length: int
    ) -> None:
        values = [float(next(self.numbers)) for _ in range(rows)]
        deadline = None if timeout_s is None else self.loop.time() + timeout_s
        sent = Sent(values, signature, poisoned, deadline)
        feed = {"x": np.array([[value, length] for value in values], np.float32)}
        try:
            job = Job(feed, rows, lambda answer: sent.outcomes.append((self.loop.time(), answer)))
            self.scheduler.submit(job, signature, timeout_s=timeout_s, priority=priority)
            sent.job = job
        except Overloaded:
            assert self.scheduler.queued_requests > 0, "an empty queue refuses nobody"
        else:
            self.sent.append(sent)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.sent[-6:]))
        assert sent.job is not None
        sent.job.cancel()
        sent.cancelled = sent.cancelled or not sent.outcomes

    # -- what must hold

    @invariant()
    def the_counters_are_those_of_who_waits(self) -> None:
        jobs = [sent.job for sent in self.sent if sent.job is not None]
        waiting = [job for job in jobs if job.queued and not job.settled]
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        assert scheduler.queued_requests == len(waiting)
        assert scheduler.queued_rows == sum(job.rows - job.taken for job in waiting)
        for level, rows in enumerate(scheduler._backlog.level_rows):
            assert rows == sum(job.rows - job.taken for job in waiting if job.level == level)
        assert not self.faults

    @invariant()
    def nobody_hears_twice_or_after_leaving(self) -> None:
        for sent in self.sent:
            assert len(sent.outcomes) <= (not sent.cancelled)
            assert all(self.ran.get(value, 0) <= 1 for value in sent.values)

    @invariant()
    def timeouts_are_told_on_time(self) -> None:
        for sent in self.sent:
            if sent.deadline is not None and not sent.outcomes and not sent.cancelled:
                assert self.loop.time() <= sent.deadline + LATE_S

    def teardown(self) -> None:
        try:
            if hasattr(self, "scheduler"):
                self.loop.run_until_complete(self.scheduler.drain())
                self.the_counters_are_those_of_who_waits()
                self.nobody_hears_twice_or_after_leaving()
                self.everybody_who_stayed_has_the_right_answer()
        finally:
            self.loop.close()

    def everybody_who_stayed_has_the_right_answer(self) -> None:
        assert not any(self.scheduler._backlog.level_rows)
        for sent in self.sent:
            if sent.cancelled:
                continue
            ((told, answer),) = sent.outcomes
            if isinstance(answer, DeadlineExceeded):
                assert sent.deadline is not None
                assert sent.deadline <= told <= sent.deadline + LATE_S
            elif sent.poisoned:
                assert isinstance(answer, InferenceFailed)
            else:
                assert not isinstance(answer, FairwayError), answer
                assert answer["y"][:, 0].tolist() == [2 * value for value in sent.values]
                assert all(self.ran[value] == 1 for value in sent.values)
        told_by_engine = [sent for sent in self.sent if sent.outcomes and not _expired(sent)]
        assert self.completed == len(told_by_engine)
        assert self.failed == sum(sent.poisoned for sent in told_by_engine)
        assert self.refusals == sum(_expired(sent) for sent in self.sent if sent.outcomes)


def _expired(sent: Sent) -> bool:
    return isinstance(sent.outcomes[0][1], DeadlineExceeded)


class _Listener:
    """The machine's counts, under the names that a scheduler calls."""

    def __init__(self, machine: SchedulerMachine) -> None:
        self.ran = machine.count
        self.refused = machine.refused


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
