"""Every accepted request is answered once, whatever the engine, the machine or the caller does."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError, InferenceFailed, Overloaded, UnsupportedEncoding
from fairway.core.tensors import Tensors
from fairway.serving.app import serve
from fairway.serving.batches import BatchingSettings
from fairway.serving.batching import Scheduler
from fairway.serving.cache import ResponseCache
from fairway.serving.cost import BLOCKING_US, CostCurve
from fairway.serving.inline import Inline
from fairway.serving.queues import Job
from fairway.serving.settings import ModelServeSettings, ServeSettings
from fairway.serving.sharing import SharingScheduler, identity
from fairway.serving.telemetry import VersionStats
from fairway.serving.threads import RunsCalls, Threads
from fairway.serving.transports.bodies import decompress
from fairway.testing.builders import linear_bundle
from tests.serving.conftest import request_of
from tests.serving.virtual import VirtualExecutor, VirtualLoop, play


class Panic(BaseException):
    """What a library written in Rust raises when it fails: no ``Exception``."""


def doubled(feed: Tensors, raw: bool) -> Tensors:
    return {"y": feed["x"] * 2}


def scheduler_of(
    infer: Callable[[Tensors, bool], Tensors] = doubled, executor: RunsCalls | None = None, **how: Any
) -> Scheduler:
    known = CostCurve(BLOCKING_US)
    known.learn(1, 1.0)
    loop = asyncio.get_running_loop()
    executor = executor or ThreadPoolExecutor(how.get("slots", 1))
    settings = BatchingSettings(**{"inline_us": 0.0, **how})
    return Scheduler(
        infer, settings, loop=loop, executor=executor, listener=VersionStats("m", "1"), curves={"s": known}
    )


def send(scheduler: Scheduler | SharingScheduler, value: float, **more: Any) -> asyncio.Future[float]:
    future: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def done(answer: Any) -> None:
        if isinstance(answer, FairwayError):
            future.set_exception(answer)
        else:
            future.set_result(float(answer["y"][0, 0]))

    scheduler.submit(Job({"x": np.array([[value]], np.float32)}, 1, done), "s", **more)
    return future


# -- the engine


@pytest.mark.parametrize("inline_us", [0.0, 1e9])
@pytest.mark.parametrize("raised", [Panic("in Rust"), SystemExit(3), MemoryError()])
async def test_what_is_no_exception_is_an_answer_too(raised: BaseException, inline_us: float) -> None:
    def infer(feed: Tensors, raw: bool) -> Tensors:
        if 13 in feed["x"]:
            raise raised
        return doubled(feed, raw)

    scheduler = scheduler_of(infer, inline_us=inline_us)
    good, bad = send(scheduler, 1), send(scheduler, 13)
    async with asyncio.timeout(20):
        assert await good == 2
        with pytest.raises(InferenceFailed, match=type(raised).__name__):
            await bad
        assert await send(scheduler, 2) == 4
        await scheduler.drain()


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_without_a_thread_a_request_is_refused_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1, "engine")
    scheduler = scheduler_of(executor=threads)
    async with asyncio.timeout(20):
        with monkeypatch.context() as starved:
            starved.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(Overloaded, match="can't start new thread"):
                await send(scheduler, 1)
        assert await asyncio.gather(*(send(scheduler, n) for n in range(3))) == [0, 2, 4]
        await scheduler.drain()
    threads.close()
    assert (scheduler.queued_requests, scheduler.queued_rows) == (0, 0)


def test_with_one_thread_others_may_fail_to_start_and_one_that_fails_at_its_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def panic() -> None:
        raise Panic("out of range")

    threads, ran = Threads(2, "engine"), list[int]()
    threads.submit(ran.append, 1)
    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", no_thread)
        threads.submit(panic)
        threads.submit(ran.append, 2)
    threads.submit(ran.append, 3)
    threads.close()
    assert sorted(ran) == [1, 2, 3]
    assert "out of range" in caplog.text


def test_a_thread_keeps_nothing_of_a_call_that_is_over() -> None:
    class Rows:
        pass

    threads, done = Threads(1, "engine"), threading.Event()
    rows = Rows()
    gone = weakref.ref(rows, lambda _: done.set())
    threads.submit(lambda _: None, rows)
    del rows
    assert done.wait(20)
    assert gone() is None
    threads.close()


# -- the queue


def test_a_deadline_that_is_noticed_as_a_batch_forms_upsets_no_count() -> None:
    async def story(loop: VirtualLoop) -> tuple[list[Any], int, int]:
        executor = VirtualExecutor(loop, lambda *_: 1.0)
        clock = [0.0]
        scheduler = Scheduler(
            doubled,
            BatchingSettings(inline_us=0, slots=2, max_batch=1, max_requests=1000),
            loop=loop,
            executor=executor,
            listener=VersionStats("m", "1"),
            clock=lambda: clock[0],
        )
        busy = [send(scheduler, n) for n in range(2)]
        await asyncio.sleep(0)
        late = send(scheduler, 7, timeout_s=5.0)
        alive = [send(scheduler, n) for n in range(3)]
        gone = [_submitted(scheduler) for _ in range(64)]
        for job in gone:
            job.cancel()
        clock[0] = 10.0  # before its timer fires
        answers = await asyncio.gather(*busy, late, *alive, return_exceptions=True)
        await scheduler.drain()
        return answers, scheduler.queued_requests, scheduler.queued_rows

    answers, requests, rows = play(story)
    assert [type(answer).__name__ for answer in answers] == ["float", "float", "DeadlineExceeded", *["float"] * 3]
    assert (requests, rows) == (0, 0)


def _submitted(scheduler: Scheduler) -> Job:
    job = Job({"x": np.ones((1, 1), np.float32)}, 1, lambda _: None)
    scheduler.submit(job, "s")
    return job


def test_a_batch_that_stops_waiting_because_it_is_full_runs_after_its_last_request_is_submitted() -> None:
    async def story(loop: VirtualLoop) -> list[float]:
        known = CostCurve()
        known.learn(1, 1.0)
        scheduler = Scheduler(
            doubled,
            BatchingSettings(max_batch=4, max_wait_us=1e6),
            loop=loop,
            executor=VirtualExecutor(loop, lambda *_: 1.0),
            listener=(stats := VersionStats("m", "1")),
            curves={"s": known},
            clock=loop.time,
        )
        for rows in (1, 1, 4, 4, 2):  # as learned by the clock: a call takes its time, whatever its rows
            scheduler._admission.ran(rows=rows, took_s=1.0, waited_s=0.0, now=0.0)
        front = SharingScheduler(
            scheduler, ResponseCache(9999), partial(identity, b"v"), loop=loop, listener=stats, clock=loop.time
        )
        for _ in range(50):
            scheduler._patience.arrived(0.0)  # type: ignore[union-attr]
        first = [send(front, n) for n in range(3)]
        await asyncio.sleep(0.001)
        assert not any(answer.done() for answer in first)  # they wait for more
        answers = await asyncio.gather(*first, send(front, 3))
        assert not front.flights
        return answers

    assert play(story) == [0, 2, 4, 6]


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    async def story(loop: VirtualLoop) -> list[float]:
        monkeypatch.setattr(ResponseCache, "put", full)
        stats = VersionStats("m", "1")
        scheduler = Scheduler(
            doubled,
            BatchingSettings(inline_us=0),
            loop=loop,
            executor=VirtualExecutor(loop, lambda *_: 1.0),
            listener=stats,
            clock=loop.time,
        )
        front = SharingScheduler(
            scheduler, ResponseCache(9999), partial(identity, b"v"), loop=loop, listener=stats, clock=loop.time
        )
        return list(await asyncio.gather(send(front, 1), send(front, 1)))

    assert play(story) == [2, 2]


# -- the event loop


async def test_a_model_that_waits_leaves_the_event_loop_although_its_own_time_is_short() -> None:
    here: list[bool] = []

    def waits(feed: Tensors, raw: bool) -> Tensors:
        here.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.003)
        return doubled(feed, raw)

    scheduler = scheduler_of(waits, inline_us=200.0)
    for n in range(40):
        assert await send(scheduler, n) == 2 * n
    assert here[0]
    assert not any(here[4:])


async def test_what_was_slow_unmeasured_is_measured_the_next_time() -> None:
    busy = [0.0]
    here: list[bool] = []

    def infer(feed: Tensors, raw: bool) -> Tensors:
        here.append(threading.current_thread() is threading.main_thread())
        until = time.thread_time() + busy[0]
        while time.thread_time() < until:
            pass
        return doubled(feed, raw)

    scheduler = scheduler_of(infer, inline_us=1000.0)
    for n in range(40):
        await send(scheduler, n)
    assert all(here)
    busy[0] = 0.05
    for n in range(3):
        await send(scheduler, n)
    assert here[40:] == [True, True, False]


def test_calls_that_only_other_processes_made_slow_stay_on_the_event_loop() -> None:
    inline = Inline(250.0)
    inline.was_slow()
    for _ in range(1000):
        if inline.watched:
            inline.saw(0.05, gave_way=False)
    assert (inline.away, inline.watched) == (0, 0)


def test_a_model_that_waits_is_tried_on_the_event_loop_more_and_more_rarely() -> None:
    inline, away = Inline(250.0), []
    for _ in range(20):
        inline.was_slow()
        inline.saw(0.05, gave_way=True)
        if inline.away:
            away.append(inline.away)
            inline.away = 0
    assert away[:4] == [256, 512, 1024, 2048]
    assert max(away) == 8192
    inline.saw(0.0001, gave_way=True)
    while inline.watched:
        inline.saw(0.0001, gave_way=True)
    for _ in range(3):
        inline.was_slow()
        inline.saw(0.05, gave_way=True)
    assert inline.away == 256


# -- the wire


@pytest.mark.parametrize("fast_lane", [True, False])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_fault_of_ours_is_a_500_and_the_connection_goes_on(
    bundles: tuple[Bundle, ...], fast_lane: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("a fault of ours")

    with serve(bundles[0], settings=ServeSettings(port=0, fast_lane=fast_lane)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for _ in range(3):  # the second time, its head is known
            with monkeypatch.context() as patch:
                (served,) = server.core.models.live()
                if where == "before":
                    patch.setattr(served.front, "submit", fault)
                else:
                    patch.setattr("fairway.serving.inference.InferResponse", fault)
                status, body = _post(connection)
            assert status == 500
            assert "its log says why" in body["error"]
            assert _post(connection)[0] == 200
        connection.close()


def _post(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    connection.request("POST", "/v2/models/linear/infer", json.dumps(request_of()))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize("fast_lane", [True, False])
def test_what_was_unloaded_to_make_room_is_loaded_for_classes_and_raw_tensors_too(
    tmp_path: Path, fast_lane: bool
) -> None:
    pair = [linear_bundle(tmp_path / name, weights=np.eye(4, 3), bias=np.zeros(3), name=name) for name in "ab"]
    limits = {name: ModelServeSettings(memory_mb=40) for name in "ab"}
    settings = ServeSettings(port=0, fast_lane=fast_lane, memory_mb=50, models=limits)
    with serve(pair, settings=settings) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        assert [entry.state for entry in server.core.models.index()] == ["UNAVAILABLE", "READY"]
        outputs = client.post("/v2/models/a/infer", json=request_of()).json()["outputs"]
        wanted = {"outputs": [{"name": outputs[0]["name"], "parameters": {"classification": 1}}]}
        raw = {"Inference-Header-Content-Length": "0"}
        for name in "bab":
            classes = client.post(f"/v2/models/{name}/infer", json=request_of() | wanted)
            assert (classes.status_code, classes.json()["outputs"][0]["datatype"]) == (200, "BYTES"), classes.text
        for name in "aba":
            tensor = client.post(f"/v2/models/{name}/infer", content=bytes(16), headers=raw)
            assert tensor.status_code == 200, tensor.text


def test_a_body_is_decoded_a_few_times_at_most() -> None:
    body = b"{}"
    for _ in range(4):
        body = gzip.compress(body)
    assert decompress(body, b"gzip, identity, gzip,gzip,gzip", 100) == b"{}"
    with pytest.raises(UnsupportedEncoding, match="5 times"):
        decompress(gzip.compress(body), b"gzip," * 5, 100)
