"""The response cache, and equal requests that share one run. On a virtual clock."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import DeadlineExceeded, FairwayError, InferenceFailed, Overloaded
from fairway.core.feeds import digest
from fairway.core.tensors import Tensors
from fairway.serving.batches import BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cache import ResponseCache, private
from fairway.serving.joining import Answer
from fairway.serving.queues import Job
from fairway.serving.sharing import SharingScheduler, identity
from fairway.serving.telemetry import VersionStats
from fairway.testing.builders import linear_bundle
from tests.serving.virtual import VirtualExecutor, VirtualLoop, play

CALL_S = 1.0


class Setup:
    """A sharing scheduler before an engine that doubles, a second per call; fails on negative numbers."""

    def __init__(self, loop: VirtualLoop, *, cache_bytes: int = 100_000, **how: Any) -> None:
        self.loop = loop
        self.stats = VersionStats("m", "1")
        self.calls: list[list[float]] = []
        self.scheduler = Scheduler(
            self.infer,
            BatchingSettings(inline_us=0, **how),
            loop=loop,
            executor=VirtualExecutor(loop, lambda *_: CALL_S),
            listener=self.stats,
            clock=loop.time,
        )
        self.cache = ResponseCache(cache_bytes)
        self.front = SharingScheduler(
            self.scheduler, self.cache, partial(identity, b"v1"), loop=loop, listener=self.stats, clock=loop.time
        )

    def infer(self, feed: Tensors, raw: bool) -> Tensors:
        self.calls.append(feed["x"][:, 0].tolist())
        if (feed["x"] < 0).any():
            raise ValueError("negative")
        return {"y": feed["x"] * 2}

    def send(self, value: float, *, raw: bool = False, **more: Any) -> tuple[asyncio.Future[Any], Job]:
        future: asyncio.Future[Any] = self.loop.create_future()

        def done(answer: Answer) -> None:
            if isinstance(answer, FairwayError):
                future.set_exception(answer)
            else:
                future.set_result(answer["y"][:, 0].tolist())

        job = Job({"x": np.array([[value]], np.float32)}, 1, done, raw)
        self.front.submit(job, (raw, ()), **more)
        return future, job


def test_an_equal_request_is_answered_without_a_run() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        assert await it.send(3)[0] == [6]
        assert loop.time() == CALL_S
        assert await it.send(3)[0] == [6]
        assert loop.time() == CALL_S
        assert it.calls == [[3.0]]
        assert (it.stats.cache_hits, it.stats.cache_misses, it.stats.requests) == (1, 1, 2)

    play(story)


def test_equal_requests_in_flight_share_one_run_and_each_gets_its_answer() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        answers = [it.send(value)[0] for value in (3, 3, 4, 3)]
        assert await asyncio.gather(*answers) == [[6], [6], [8], [6]]
        assert it.calls == [[3, 4]]
        assert it.stats.requests == 4
        assert it.stats.cache_hits == it.stats.cache_misses == 2
        assert not it.front.flights

    play(story)


def test_a_first_caller_that_leaves_takes_no_answer_from_the_others() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        gone, first = it.send(3)
        stays, _ = it.send(3)
        first.cancel()
        first.cancel()
        assert await stays == [6]
        assert not gone.done()

    play(story)


def test_a_run_whose_callers_have_all_left_does_not_start() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        for ticket in [it.send(3)[1], it.send(3)[1]]:
            ticket.cancel()
        assert it.scheduler.queued_requests == 0
        assert await it.send(3)[0] == [6]
        assert it.calls == [[3.0]]

    play(story)


def test_errors_reach_everybody_and_are_not_kept() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        answers = await asyncio.gather(it.send(-1)[0], it.send(-1)[0], return_exceptions=True)
        assert [type(answer) for answer in answers] == [InferenceFailed] * 2
        assert len(it.cache) == 0
        with pytest.raises(InferenceFailed):
            await it.send(-1)[0]
        assert it.stats.errors["inference_failed"] == 3

    play(story)


def test_a_refused_request_leaves_nothing_to_join() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop, max_requests=1)
        first, _ = it.send(1)
        with pytest.raises(Overloaded):
            it.send(2)
        same, _ = it.send(1)  # joining takes no room
        assert list(await asyncio.gather(first, same)) == [[2], [2]]
        assert not it.front.flights

    play(story)


def test_each_caller_of_a_shared_run_has_its_own_timeout() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        busy, _ = it.send(1)
        await asyncio.sleep(0.1)
        short, _ = it.send(2, timeout_s=0.3)
        longer, _ = it.send(2, timeout_s=5.0)
        never, _ = it.send(2)
        with pytest.raises(DeadlineExceeded):
            await short
        assert loop.time() == pytest.approx(0.4)
        assert list(await asyncio.gather(busy, longer, never)) == [[2], [4], [4]]
        assert it.stats.errors["deadline_exceeded"] == 1

    play(story)


def test_a_shared_run_that_nobody_waits_for_any_more_does_not_start() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        busy, _ = it.send(1)
        await asyncio.sleep(0.1)
        late = [it.send(2, timeout_s=limit)[0] for limit in (0.2, 0.4)]
        found = await asyncio.gather(*late, return_exceptions=True)
        assert [type(each) for each in found] == [DeadlineExceeded] * 2
        await busy
        await it.scheduler.drain()
        assert it.calls == [[1]]

    play(story)


def test_a_callback_that_fails_takes_no_answer_from_those_who_share_its_run(caplog: pytest.LogCaptureFixture) -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)

        def broken(_: Answer) -> None:
            raise RuntimeError("the connection is closed")

        it.front.submit(Job({"x": np.ones((1, 1), np.float32)}, 1, broken), (False, ()))
        assert await it.send(1)[0] == [2]

    play(story)
    assert [record.message for record in caplog.records] == ["answer_not_delivered"]


def test_a_buffer_that_changes_after_submission_changes_no_answer() -> None:
    async def story(loop: VirtualLoop) -> None:
        it = Setup(loop)
        buffer = bytearray(np.float32(3).tobytes())
        answers: list[Answer] = []
        feed = {"x": np.frombuffer(buffer, np.float32).reshape(1, 1)}
        it.front.submit(Job(feed, 1, answers.append), (False, ()))
        buffer[:] = np.float32(100).tobytes()
        await it.scheduler.drain()
        assert await it.send(3)[0] == [6]
        assert it.calls == [[3.0]]
        (answer,) = answers
        assert not isinstance(answer, FairwayError)
        with pytest.raises(ValueError, match="read-only"):
            answer["y"][:] = 0

    play(story)


def test_raw_requests_and_other_versions_have_answers_of_their_own() -> None:
    feed = {"x": np.ones((1, 2), np.float32)}
    keys = {digest(b"1", feed, False), digest(b"1", feed, True), digest(b"2", feed, False)}
    assert len(keys) == 3


scalars = st.sampled_from(["<f4", "<i4", "<f8", "|b1", "|u1"])
arrays = st.builds(
    lambda dtype, shape, fill: np.full(shape, fill).astype(dtype),
    scalars,
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    st.integers(0, 2),
) | st.lists(st.binary(max_size=3), max_size=3).map(lambda items: np.array([*items, None], object)[:-1])
feeds = st.dictionaries(st.text("ab", max_size=2), arrays, max_size=3)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and a[name].tolist() == b[name].tolist()
        for name in a
    )


@given(feeds, feeds)
def test_digests_are_equal_exactly_where_requests_are(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (digest(b"", a, False) == digest(b"", b, False)) == _same(a, b)
    assert digest(b"", a, False) == digest(b"", dict(reversed([*private(a).items()])), False)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), max_size=60))
def test_the_cache_stays_within_its_bytes_and_forgets_the_least_recently_used(puts: list[tuple[int, int]]) -> None:
    cache = ResponseCache(4000)
    used: list[int] = []
    for name, size in puts:
        key = bytes([name])
        if (found := cache.get(key)) is None:
            cache.put(key, {"y": np.full(size, name, np.float32)})
        else:
            assert set(found["y"].tolist()) <= {name}
        used = [*(other for other in used if other != name), name]
        assert cache.size_bytes <= 4000
        assert cache.get(bytes([used[-1]])) is not None  # nothing is larger than the cache
    kept = [name for name in used if bytes([name]) in cache._entries]
    assert kept == used[len(used) - len(kept) :]


def test_an_answer_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = ResponseCache(2000)
    cache.put(b"small", {"y": np.zeros(1)})
    cache.put(b"large", {"y": np.zeros(1000)})
    assert cache.get(b"small") is not None
    assert cache.get(b"large") is None


def test_bf16_and_strided_inputs_have_digests() -> None:
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    assert digest(b"", {"x": np.ones((2, 2), bf16)}, False) != digest(b"", {"x": np.zeros((2, 2), bf16)}, False)
    wide = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert digest(b"", {"x": wide[:, ::2]}, False) == digest(b"", {"x": wide[:, ::2].copy()}, False)


def test_models_whose_answers_vary_are_never_cached(tmp_path: Any) -> None:
    from msgspec.structs import replace

    manifest = linear_bundle(tmp_path / "m", weights=np.ones((2, 2)), bias=np.zeros(2)).manifest
    assert manifest.repeatable
    assert not replace(manifest, deterministic=False).repeatable
    assert not replace(manifest, task="generation").repeatable
    assert replace(manifest, deterministic=True).digest == manifest.digest  # the new field changes no bundle's identity
