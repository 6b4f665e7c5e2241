"""Who runs first, with whom, and who is refused: priorities, lengths, deadlines, waiting. On a virtual clock."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import DeadlineExceeded, FairwayError, Overloaded
from fairway.core.tensors import Tensors
from fairway.serving.batches import Batch, BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cost import CostCurve
from fairway.serving.joining import Answer
from fairway.serving.lengths import like
from fairway.serving.queues import LEVEL_S, Job, Piece, Ranked, level_of
from fairway.serving.waiting import Patience
from tests.serving.virtual import VirtualExecutor, VirtualLoop, play


class Setup:
    """A scheduler before an engine on a thread: ``base_s`` per call, and ``row_s`` per row."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        base_s: float = 1.0,
        row_s: float = 0.0,
        curves: dict[Hashable, CostCurve] | None = None,
        padded: bool = False,
        **how: Any,
    ) -> None:
        def seconds(pieces: list[Piece], *_: object) -> float:
            self.started.append((loop.time(), len(pieces)))
            return base_s + row_s * sum(piece.rows for piece in pieces)

        self.loop = loop
        self.started: list[tuple[float, int]] = []
        self.calls: list[list[float]] = []
        self.codes: Counter[str] = Counter()
        self.scheduler = Scheduler(
            self.infer,
            BatchingSettings(**{"inline_us": 0.0, **how}),
            loop=loop,
            executor=VirtualExecutor(loop, seconds),
            listener=self,
            curves=curves,
            length=(lambda feed: int(feed["x"].max())) if padded else None,
            clock=loop.time,
        )

    def infer(self, feed: Tensors, raw: bool) -> Tensors:
        self.calls.append(feed["x"][:, 0].tolist())
        return {"y": feed["x"] * 2}

    def ran(self, batch: Batch) -> None:
        pass

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        self.codes[error.code] += 1

    def send(self, *values: float, **more: Any) -> tuple[asyncio.Future[list[float]], Job]:
        future: asyncio.Future[list[float]] = self.loop.create_future()

        def done(answer: Answer) -> None:
            if isinstance(answer, FairwayError):
                future.set_exception(answer)
            else:
                future.set_result(answer["y"][:, 0].tolist())

        feed = {"x": np.array(values, np.float32).reshape(-1, 1)}
        job = Job(feed, len(values), done)
        self.scheduler.submit(job, "s", **more)
        return future, job

    async def learned(self) -> None:
        """Until the scheduler knows what a call costs by the clock."""
        for _ in range(3):
            await self.send(0)[0]
        self.calls.clear()
        self.started.clear()


# -- priorities


def test_higher_priorities_run_first_and_equal_ones_in_the_order_of_arrival() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=1, priority_levels=3)
        answers = [it.send(n, priority=priority)[0] for n, priority in enumerate((3, 2, 1, 3, 1, 2))]
        await asyncio.gather(*answers)
        assert it.calls == [[2], [4], [1], [5], [0], [3]]

    play(story)


def test_without_levels_a_priority_is_ignored() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=1)
        await asyncio.gather(*(it.send(n, priority=priority)[0] for n, priority in enumerate((3, 2, 1))))
        assert it.calls == [[0], [1], [2]]

    play(story)


def test_no_stream_of_higher_priorities_keeps_a_lower_one_waiting_for_ever() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=1, priority_levels=2, max_queue_wait_s=100.0)
        low, _ = it.send(-1, priority=2)
        for n in range(40):  # twice what the engine can take
            it.send(n, priority=1)
            await asyncio.sleep(0.5)
        assert LEVEL_S - 1 <= await asyncio.wait_for(_ended(low, loop), 60) <= 2 * LEVEL_S + 1
        await it.scheduler.drain()

    play(story)


async def _ended(future: asyncio.Future[Any], loop: VirtualLoop) -> float:
    await future
    return loop.time()


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), max_size=30), st.integers(0, 5))
def test_a_ranked_line_is_sorted_by_rank_and_what_is_put_back_comes_before_its_equals(
    arrivals: list[tuple[float, int]], back: int
) -> None:
    jobs = [Job({}, 1, print, arrived=arrived, level=level) for arrived, level in arrivals]
    line = Ranked(jobs)
    expected = sorted(jobs, key=lambda job: job.rank)  # stable
    assert list(line) == expected
    taken = [line.popleft() for _ in range(min(back, len(jobs)))]
    line.extendleft(reversed(taken))
    assert [line.popleft() for _ in range(len(line))] == expected


def test_a_full_queue_of_low_priority_does_not_keep_a_high_one_out_for_its_wait() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=1, priority_levels=2, max_queue_wait_s=5.0)
        await it.learned()
        low = [it.send(1, priority=2)[0] for _ in range(4)]
        with pytest.raises(Overloaded):
            [it.send(2, priority=2) for _ in range(4)]
        high, _ = it.send(3, priority=1, timeout_s=2.5)
        assert await high == [6]
        await asyncio.gather(*low)
        await it.scheduler.drain()

    play(story)


def test_levels_are_bounded_and_what_does_not_exist_is_the_default() -> None:
    assert [level_of(priority, 4, 3) for priority in (0, 1, 4, 5, 2**63)] == [2, 0, 3, 2, 2]


# -- deadlines and early refusal


def test_what_would_expire_in_the_queue_is_refused_at_once() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=2)
        await it.learned()
        waiting = [it.send(n)[0] for n in range(6)]
        before = loop.time()
        with pytest.raises(Overloaded, match="its timeout is 2000 ms") as refusal:
            it.send(9, timeout_s=2.0)
        assert loop.time() == before
        assert 2.5 < refusal.value.retry_after_s < 3.5
        in_time, _ = it.send(7, timeout_s=5.0)
        await asyncio.gather(in_time, *waiting)
        assert [9] not in it.calls

    play(story)


def test_what_would_wait_longer_than_the_limit_is_refused_even_without_a_timeout() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_batch=2, max_queue_wait_s=3.0)
        await it.learned()
        answers = [it.send(n)[0] for n in range(6)]
        with pytest.raises(Overloaded, match="takes too long"):
            it.send(6)
        await asyncio.gather(*answers)

    play(story)


def test_an_idle_scheduler_refuses_nobody_however_short_the_timeout() -> None:
    """Or one slow call would make it refuse all that could show that it is fast again."""

    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        await it.learned()
        answer, _ = it.send(1, timeout_s=0.5)
        with pytest.raises(DeadlineExceeded):
            await answer
        assert it.codes == {"deadline_exceeded": 1}
        await it.scheduler.drain()

    play(story)


def test_a_slow_first_call_on_a_thread_does_not_make_a_fast_model_refuse_short_timeouts() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=30.0, inline_us=1e9, slots=2)
        for _ in range(2):  # both of unknown cost when they begin, so on threads
            it.send(0)
            await asyncio.sleep(0.1)
        await asyncio.sleep(100.0)
        await it.send(0)[0]
        answers = [it.send(n, timeout_s=0.05)[0] for n in range(4)]  # the later ones meet a queue
        assert await asyncio.gather(*answers) == [[0], [2], [4], [6]]
        assert loop.time() < 101

    play(story)


def test_a_timeout_is_told_on_time_while_a_long_inference_runs_and_its_work_never_does() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=60.0)
        busy, _ = it.send(1)
        await asyncio.sleep(0)
        late, _ = it.send(2, timeout_s=0.25)
        with pytest.raises(DeadlineExceeded):
            await late
        assert loop.time() == pytest.approx(0.25, abs=0.002)
        await busy
        assert it.calls == [[1]]

    play(story)


def test_a_batch_does_not_grow_beyond_what_its_earliest_deadline_allows() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=0.0, row_s=0.1)
        for size in (1, 4, 8):
            await it.send(*range(size))[0]
        it.calls.clear()
        urgent, _ = it.send(1, timeout_s=0.35)
        others = [it.send(n)[0] for n in range(2, 8)]
        assert await urgent == [2]
        await asyncio.gather(*others)
        assert [len(call) for call in it.calls] == [3, 4]

    play(story)


# -- lengths


def cells(base_us: float, cell_us: float) -> CostCurve:
    curve = CostCurve()
    for count in (1, 10, 1000) * 5:
        curve.learn(count, base_us + cell_us * count)
    return curve


def test_one_long_text_does_not_make_the_short_ones_wait_for_its_padding() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, curves={"s": cells(100, 1)}, padded=True)
        answers = [it.send(length)[0] for length in (5, 500, 6, 480, 7)]
        assert await asyncio.gather(*answers) == [[10], [1000], [12], [960], [14]]
        assert it.calls == [[5, 6, 7], [500, 480]]

    play(story)


def test_texts_share_a_batch_where_padding_costs_less_than_a_call() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, curves={"s": cells(10_000, 1)}, padded=True)
        await asyncio.gather(*(it.send(length)[0] for length in (5, 500, 6)))
        assert it.calls == [[5, 500, 6]]

    play(story)


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 8)), min_size=1, max_size=30),
    st.floats(0, 2000),
    st.floats(0, 5),
)
def test_a_split_never_costs_more_than_it_saves(members: list[tuple[int, int]], base: float, cell: float) -> None:
    lengths, rows = [length for length, _ in members], [count for _, count in members]
    curve = cells(base, cell)
    stay = like(lengths, rows, curve)
    assert 0 in stay
    assert stay == sorted(set(stay))

    def cost(group: list[int]) -> float:
        return curve.expect(sum(rows[at] for at in group) * max(lengths[at] for at in group)) if group else 0.0

    everyone = list(range(len(members)))
    others = [at for at in everyone if at not in stay]
    assert cost(stay) + cost(others) <= cost(everyone) * (1 + 1e-9) + 1e-6


# -- waiting


def test_nobody_waits_unless_it_is_set() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        await it.learned()
        it.send(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.started == [(loop.time(), 1)]
        await it.scheduler.drain()

    play(story)


def test_a_batch_waits_where_calls_are_dear_rows_are_cheap_and_requests_come_densely() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=0.1, max_wait_us=50_000)
        await it.learned()
        for _ in range(40):
            it.scheduler._patience.arrived(loop.time())  # type: ignore[union-attr]
        first = loop.time()
        for _ in range(3):
            it.send(1)
            await asyncio.sleep(0.005)
        assert it.started == []
        await it.scheduler.drain()  # whoever drains waits for nobody
        ((started, together),) = it.started
        assert started == pytest.approx(first + 0.015)
        assert together == 3

    play(story)


def test_where_nobody_comes_while_a_batch_waits_the_next_one_waits_less() -> None:
    flat, patience = cells(4000, 5), Patience(0.005)
    for n in range(50):
        patience.arrived(n * 0.0005)
    waits = []
    for _ in range(8):
        waits.append(patience.wait_s(flat))
        patience.waited(paid=False)
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == pytest.approx(waits[0] / 16)
    for _ in range(4):
        patience.waited(paid=True)
    assert patience.wait_s(flat) == waits[0]


def test_a_full_batch_stops_waiting() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=0.1, max_wait_us=50_000, max_batch=4)
        for _ in range(40):
            it.send(0)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        it.started.clear()
        now = loop.time()
        for _ in range(4):
            it.send(1)
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert it.started == [(now, 4)]
        await it.scheduler.drain()

    play(story)


def test_where_rows_cost_as_much_as_calls_nobody_waits() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=0.0, row_s=0.1, max_wait_us=50_000, max_batch=4)
        for size in (1, 2, 4, 1, 2, 4):
            await it.send(*range(size))[0]
        for _ in range(40):
            it.scheduler._patience.arrived(loop.time())  # type: ignore[union-attr]
        it.started.clear()
        now = loop.time()
        it.send(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert it.started == [(now, 1)]
        await it.scheduler.drain()

    play(story)


# -- the queue's memory


def test_those_who_left_do_not_pile_up_behind_a_long_inference() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, base_s=60.0)
        busy, _ = it.send(1)
        await asyncio.sleep(0)
        stays, _ = it.send(2)
        for _ in range(10_000):
            it.send(3)[1].cancel()
        assert sum(map(len, it.scheduler._backlog.lines.values())) < 200
        assert await busy == [2]
        assert await stays == [4]
        assert it.calls == [[1], [2]]

    play(story)


def test_models_that_do_not_batch_have_one_line_in_the_order_of_arrival() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, batching=False)
        await asyncio.gather(*(it.send(n, n)[0] for n in range(4)))
        assert it.calls == [[0, 0], [1, 1], [2, 2], [3, 3]]
        assert isinstance(it.scheduler._backlog._line(), deque)

    play(story)
