"""The scheduler: who runs with whom, when, and that every row finds its way home."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, ModelNotReady, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.batches import Batch, BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cost import CostCurve
from fairway.serving.joining import Answer
from fairway.serving.queues import Job

CHEAP = BatchingSettings(max_batch=8, inline_us=1e9)


class Notes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.errors: list[FairwayError] = []

    def ran(self, batch: Batch) -> None:
        self.batches.append(batch)

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        self.errors.append(error)


class Engine:
    """Doubles its rows; says what it ran, and can be held, or made to fail on a value."""

    def __init__(self, poison: float | None = None) -> None:
        self.calls: list[list[float]] = []
        self.threads: set[str] = set()
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, feed: Tensors, raw: bool) -> Tensors:
        self.entered.set()
        assert self.gate.wait(20)
        self.threads.add(threading.current_thread().name)
        values = feed["x"][:, 0].tolist()
        self.calls.append(values)
        if self.poison in values:
            raise RuntimeError("poison")
        return {"y": feed["x"] * 2}


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2, thread_name_prefix="engine") as pool:
        yield pool


Make = Callable[..., Scheduler]


@pytest.fixture
def make(executor: ThreadPoolExecutor) -> Make:
    def made(engine: Any, settings: BatchingSettings = CHEAP, notes: Notes | None = None) -> Scheduler:
        loop = asyncio.get_running_loop()
        known = CostCurve()
        known.learn(1, 1.0)
        curves: dict[Any, CostCurve] = {"s": known} if settings is CHEAP else {}
        return Scheduler(engine, settings, loop=loop, executor=executor, listener=notes or Notes(), curves=curves)

    return made


def rows(*values: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


def send(scheduler: Scheduler, *values: float, signature: str = "s", **more: Any) -> tuple[asyncio.Future[Any], Job]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(answer: Answer) -> None:
        if isinstance(answer, FairwayError):
            future.set_exception(answer)
        else:
            future.set_result(answer["y"][:, 0].tolist())

    job = Job(rows(*values), len(values), done)
    scheduler.submit(job, signature, **more)
    return future, job


async def test_what_arrives_in_one_turn_of_the_loop_runs_together(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine)
    answers = [send(scheduler, n)[0] for n in range(5)]
    assert await asyncio.gather(*answers) == [[0], [2], [4], [6], [8]]
    assert engine.calls == [[0, 1, 2, 3, 4]]


async def test_a_lone_request_runs_in_the_next_turn_without_a_timer(make: Make) -> None:
    scheduler = make(Engine())
    answer, _ = send(scheduler, 3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert answer.done()


async def test_what_arrives_while_the_engine_is_busy_forms_the_next_batch(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(max_batch=8, inline_us=0))
    engine.gate.clear()
    first, _ = send(scheduler, 1)
    await asyncio.to_thread(engine.entered.wait)
    later = []
    for n in (2, 3, 4):
        later.append(send(scheduler, n)[0])
        await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, *later)
    assert engine.calls == [[1], [2, 3, 4]]


async def test_cheap_batches_run_on_the_loop_and_costly_or_unknown_ones_on_a_thread(make: Make) -> None:
    engine = Engine()
    await send(make(engine), 1)[0]
    assert engine.threads == {threading.current_thread().name}
    engine = Engine()
    await send(make(engine, BatchingSettings(inline_us=0)), 1)[0]
    assert all(name.startswith("engine") for name in engine.threads)


@pytest.mark.parametrize(("on_loop_us", "ends_on"), [(100, "loop"), (900, "engine")])
async def test_what_seems_too_long_for_the_loop_because_threads_make_it_so_comes_back_to_it(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, on_loop_us: int, ends_on: str
) -> None:
    spent, ran = 0.0, list[str]()

    def engine(feed: Tensors, raw: bool) -> Tensors:
        nonlocal spent
        ran.append("engine" if threading.current_thread().name.startswith("engine") else "loop")
        spent += (on_loop_us if ran[-1] == "loop" else 3 * on_loop_us) / 1e6
        return feed

    monkeypatch.setattr(time, "thread_time", lambda: spent)
    seen = CostCurve()
    for _ in range(100):
        seen.learn(1, 400)  # on a busy machine, say
    settings = BatchingSettings(inline_us=250)
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(engine, settings, loop=loop, executor=executor, listener=Notes(), curves={"s": seen})
    for n in range(600):
        answered = loop.create_future()
        scheduler.submit(Job(rows(n), 1, answered.set_result), "s")
        await answered
    assert ran[0] == "engine"
    assert set(ran[-200:]) == {ends_on}


async def test_a_batch_never_exceeds_the_maximum_and_keeps_the_order_of_arrival(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine)
    await asyncio.gather(*(send(scheduler, n, n + 0.5, n + 0.75)[0] for n in range(6)))
    assert [len(call) for call in engine.calls] == [6, 6, 6]
    ran = [value for call in engine.calls for value in call]
    assert ran == sorted(ran)


async def test_a_request_larger_than_any_batch_is_split_and_joined(make: Make) -> None:
    engine = Engine()
    values = [float(n) for n in range(20)]
    answer, _ = send(make(engine), *values)
    assert await answer == [2 * n for n in values]
    assert [len(call) for call in engine.calls] == [8, 8, 4]


async def test_requests_of_other_signatures_are_not_joined(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine)
    await asyncio.gather(*(send(scheduler, n, signature=s)[0] for n, s in enumerate("abab")))
    assert sorted(engine.calls) == [[0, 2], [1, 3]]


async def test_a_model_that_does_not_batch_gets_each_request_whole_and_alone(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(max_batch=2, batching=False))
    await asyncio.gather(send(scheduler, 1, 2, 3)[0], send(scheduler, 4)[0])
    assert sorted(engine.calls) == [[1, 2, 3], [4]]


async def test_one_bad_request_in_a_batch_fails_alone(make: Make) -> None:
    notes = Notes()
    scheduler = make(Engine(poison=2), notes=notes)
    answers = await asyncio.gather(*(send(scheduler, n)[0] for n in range(4)), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, Exception)] == [[0], [2], [6]]
    assert isinstance(answers[2], InferenceFailed)
    assert "poison" in str(answers[2])
    assert sum(len(batch.failures) for batch in notes.batches) == 1
    assert sum(len(batch.latencies_s) for batch in notes.batches) == 4


async def test_outputs_that_do_not_follow_the_rows_are_never_cut_up(make: Make) -> None:
    def total(feed: Tensors, raw: bool) -> Tensors:
        return {"y": feed["x"].sum(axis=0, keepdims=True)}

    scheduler = make(total)
    answers = await asyncio.gather(send(scheduler, 1, 2)[0], send(scheduler, 5)[0])
    assert list(answers) == [[3], [5]]
    with pytest.raises(InferenceFailed, match="batching = false"):
        await send(scheduler, *range(9))[0]


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(max_requests=2, inline_us=0))
    engine.gate.clear()
    running, _ = send(scheduler, 0)
    await asyncio.to_thread(engine.entered.wait)
    waiting = [send(scheduler, n)[0] for n in (1, 2)]
    with pytest.raises(Overloaded) as refusal:
        send(scheduler, 3)
    assert refusal.value.retry_after_s > 0
    engine.gate.set()
    assert await asyncio.gather(running, *waiting) == [[0], [2], [4]]
    assert await send(scheduler, 3)[0] == [6]


async def test_the_queue_is_bounded_in_rows_too_but_takes_any_one_request(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(max_rows=4, max_batch=8, inline_us=0))
    large, _ = send(scheduler, *range(6))
    with pytest.raises(Overloaded):
        send(scheduler, 9)
    assert len(await large) == 6


async def test_an_expired_request_is_told_on_time_and_never_runs(make: Make) -> None:
    engine = Engine()
    notes = Notes()
    scheduler = make(engine, BatchingSettings(inline_us=0), notes)
    engine.gate.clear()
    busy, _ = send(scheduler, 1)
    await asyncio.to_thread(engine.entered.wait)
    late, _ = send(scheduler, 2, timeout_s=0.02)
    with pytest.raises(DeadlineExceeded):  # while the engine is still held
        await late
    assert scheduler.queued_requests == 0
    engine.gate.set()
    await busy
    await scheduler.drain()
    assert engine.calls == [[1]]
    assert [error.code for error in notes.errors] == ["deadline_exceeded"]


async def test_a_deadline_is_also_checked_when_the_batch_is_formed(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine)
    late, _ = send(scheduler, 2, timeout_s=1e-6)
    in_time, _ = send(scheduler, 3, timeout_s=60)
    time.sleep(0.001)  # the loop is blocked: no timer can fire
    assert await in_time == [6]
    with pytest.raises(DeadlineExceeded):
        await late
    assert engine.calls == [[3]]


async def test_a_request_whose_deadline_passes_in_the_engine_is_told_on_time_too(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(inline_us=0))
    engine.gate.clear()
    late, _ = send(scheduler, 2, timeout_s=0.02)
    with pytest.raises(DeadlineExceeded):
        await late
    engine.gate.set()
    await scheduler.drain()


async def test_cancelled_work_does_not_run(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine)
    gone, job = send(scheduler, 1)
    stays, _ = send(scheduler, 2)
    job.cancel()
    job.cancel()
    assert await stays == [4]
    assert engine.calls == [[2]]
    assert not gone.done()
    assert (scheduler.queued_requests, scheduler.queued_rows) == (0, 0)


async def test_draining_answers_what_was_taken_and_takes_no_more(make: Make) -> None:
    engine = Engine()
    scheduler = make(engine, BatchingSettings(inline_us=0))
    engine.gate.clear()
    answers = [send(scheduler, n)[0] for n in range(3)]
    draining = asyncio.create_task(scheduler.drain())
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady):
        send(scheduler, 9)
    engine.gate.set()
    await draining
    assert await asyncio.gather(*answers) == [[0], [2], [4]]


async def test_draining_ends_when_the_last_waiting_request_is_cancelled(make: Make) -> None:
    scheduler = make(Engine())
    _, job = send(scheduler, 1)
    draining = asyncio.create_task(scheduler.drain())
    await asyncio.sleep(0)
    job.cancel()
    await asyncio.wait_for(draining, 20)


requests = st.lists(
    st.fixed_dictionaries(
        {
            "rows": st.integers(1, 25),
            "signature": st.sampled_from("ab"),
            "poisoned": st.booleans(),
            "cancel": st.none() | st.integers(0, 4),
            "pause": st.booleans(),
        }
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(
    requests,
    st.builds(
        BatchingSettings,
        max_batch=st.integers(1, 12),
        batching=st.booleans(),
        slots=st.integers(1, 2),
        inline_us=st.sampled_from([0.0, 5.0, 1e9]),
    ),
)
def test_rows_are_never_lost_duplicated_reordered_or_given_to_another(
    plan: list[dict[str, Any]], how: BatchingSettings
) -> None:
    """Every row carries its own number; a poisoned request makes any engine call raise that holds one of its rows."""
    ran: list[float] = []
    lock = threading.Lock()
    poison: set[float] = set()

    def engine(feed: Tensors, raw: bool) -> Tensors:
        values = feed["x"][:, 0].tolist()
        assert len(values) <= how.max_batch or not how.batching
        if poison & set(values):
            raise RuntimeError("poison")
        with lock:
            ran.extend(values)
        return {"y": feed["x"] * 2}

    async def play() -> None:
        with ThreadPoolExecutor(2) as pool:
            scheduler = Scheduler(engine, how, loop=asyncio.get_running_loop(), executor=pool, listener=Notes())
            sent: list[tuple[list[float], asyncio.Future[Any], Job, dict[str, Any]]] = []
            number = 0.0
            for turn, request in enumerate(plan):
                values = [number + n for n in range(request["rows"])]
                number += request["rows"]
                if request["poisoned"]:
                    poison.add(values[-1])
                sent.append((values, *send(scheduler, *values, signature=request["signature"]), request))
                for _, answer, job, other in sent:
                    if other["cancel"] == turn and not answer.done():
                        job.cancel()
                        answer.cancel()
                if request["pause"]:
                    await asyncio.sleep(0)
            await scheduler.drain()
            for values, answer, _, request in sent:
                if answer.cancelled():
                    continue
                assert answer.done()
                if request["poisoned"]:
                    assert isinstance(answer.exception(), InferenceFailed)
                else:
                    assert answer.result() == [2 * value for value in values]
                    assert all(ran.count(value) == 1 for value in values)
            assert (scheduler.queued_requests, scheduler.queued_rows) == (0, 0)

    asyncio.run(play())


async def test_a_callback_that_fails_takes_no_answer_from_the_others_of_its_batch(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(Engine(), CHEAP, loop=loop, executor=executor, listener=Notes())
    answers: list[Answer] = []

    def broken(_: Answer) -> None:
        raise RuntimeError("the connection is closed")

    for done in (broken, answers.append, broken, answers.append):
        scheduler.submit(Job({"x": np.ones((1, 1), np.float32)}, 1, done), ())
    await scheduler.drain()
    assert len(answers) == 2
    assert [record.message for record in caplog.records] == ["answer_not_delivered"] * 2
