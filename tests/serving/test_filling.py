"""A server's engines load from a cache, which other processes fill, and which may fail in any way."""

from __future__ import annotations

import asyncio
import logging
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.bundle.format import Bundle
from fairway.core.launch import python
from fairway.engines.cache import EngineCache
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.serving import filling
from fairway.serving.app import serve
from fairway.serving.filling import asking
from fairway.serving.models import Models
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.testing.builders import linear_bundle
from tests.serving.test_follow import until

SETTINGS = ServeSettings(port=0)
ASKED: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.25] * 64}]}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    rng = np.random.default_rng(0)
    return linear_bundle(tmp_path / "bundle", weights=rng.normal(size=(64, 8)), bias=rng.normal(size=8))


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the graph were large."""
    monkeypatch.setattr(OnnxRuntimeEngine, "worth_caching", staticmethod(lambda _: True))


def start(bundle: Bundle, cache: Path, settings: ServeSettings = SETTINGS, wait: Callable[[], object] = bool) -> Any:
    """What a server answers, once ``wait`` is true."""
    with serve(bundle, settings=settings, cache_dir=cache) as server:
        if wait is not bool:
            until(wait, "nothing was written")
        return httpx.post(f"{server.url}/v2/models/linear/infer", json=ASKED).raise_for_status().json()["outputs"]


def loaded_from_cache(caplog: pytest.LogCaptureFixture) -> list[bool]:
    return [record.__dict__["engine_cached"] for record in caplog.records if record.message == "model_loaded"]


def test_the_second_start_loads_what_the_first_made(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines = tmp_path / "cache" / "engines"
    with caplog.at_level(logging.INFO):
        first = start(bundle, tmp_path / "cache", wait=lambda: list(engines.glob("onnxruntime-*/entry.json")))
        second = start(bundle, tmp_path / "cache")
    assert loaded_from_cache(caplog) == [False, True]
    assert second == first
    assert stat.S_IMODE(engines.stat().st_mode) == 0o700


def test_workers_wait_for_what_they_will_share(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        start(bundle, tmp_path / "cache", ServeSettings(port=0, workers=2))  # as one of two
    assert loaded_from_cache(caplog) == [True]


def test_it_can_be_switched_off(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        start(bundle, tmp_path / "cache", ServeSettings(port=0, workers=2, engine_cache_mb=0))
    assert loaded_from_cache(caplog) == [False]
    assert not (tmp_path / "cache").exists()


def test_where_nothing_can_be_written_it_is_said_once_and_the_model_answers(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, where a directory would be")
    with caplog.at_level(logging.INFO):
        assert start(bundle, tmp_path / "cache", ServeSettings(port=0, workers=2))
    said = [record.__dict__["reason"] for record in caplog.records if record.message == "engine_cache_off"]
    assert len(said) == 1
    assert "cache" in said[0]


def test_a_server_that_stops_waits_for_no_filling(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.serving.filling.python", lambda _: ["/bin/sh", "-c", "exec sleep 600"])
    began = time.monotonic()
    with serve(bundle, settings=SETTINGS, cache_dir=tmp_path / "cache"):
        pass
    assert time.monotonic() - began < 60
    assert not [thread for thread in threading.enumerate() if "fairway-fill" in thread.name and _alive_after(thread)]


def _alive_after(thread: threading.Thread) -> bool:
    thread.join(20)
    return thread.is_alive()


def test_a_filler_that_is_killed_leaves_a_server_that_answers(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fairway.serving.filling.python", lambda _: ["/bin/sh", "-c", "kill -9 $$"])
    assert start(bundle, tmp_path / "cache", ServeSettings(port=0, workers=2))
    assert [r.__dict__["reason"] for r in caplog.records if r.message == "engine_cache_off"] == [
        "the process that fills it ended with -9"
    ]


def test_only_one_of_several_servers_starts_a_process(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def noted(module: str) -> list[str]:
        started.append(1)
        return python(module)

    monkeypatch.setattr("fairway.serving.filling.python", noted)
    fillers = [filling.Filler(EngineCache(tmp_path / "engines", 10**9), lambda bundled: bundled) for _ in range(3)]

    async def all_at_once() -> None:
        await asyncio.gather(*(filler.fill(bundle) for filler in fillers))

    asyncio.run(all_at_once())
    for filler in fillers:
        filler.close()
    assert started == [1]
    assert len(list((tmp_path / "engines").glob("*/entry.json"))) == 1


def test_who_stops_does_not_wait_for_the_turn_of_another(bundle: Bundle, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines", 10**9)
    filler = filling.Filler(EngineCache(cache.root, 10**9), lambda bundled: bundled)

    async def stop_while_another_fills() -> None:
        with cache.turn(threading.Event()) as mine:
            assert mine
            waiting = asyncio.create_task(filler.fill(bundle))
            await asyncio.sleep(0)  # it is on its way
            filler.close()
            await asyncio.wait_for(waiting, 20)

    asyncio.run(stop_while_another_fills())
    assert not list(cache.root.glob("*/entry.json"))


@pytest.mark.parametrize(("memory_mb", "made"), [(0.003, 0), (1.0, 1), (0.0, 1)])
def test_what_is_announced_is_prepared_where_the_memory_budget_has_room(
    bundle: Bundle, tmp_path: Path, memory_mb: float, made: int
) -> None:
    assert 1500 < bundle.size_bytes < 500_000  # twice its size is beyond the smallest budget, and within the larger one

    async def prepare() -> None:
        models = Models(ServeSettings(memory_mb=memory_mb), Telemetry(), engine_cache=tmp_path / "engines")
        await models.prepare(bundle)
        await models.close()

    asyncio.run(prepare())
    assert len(list((tmp_path / "engines").glob("*/entry.json"))) == made


def test_answers_are_compared_on_made_up_rows_where_none_are_recorded(bundle: Bundle) -> None:
    class Fake:
        inputs = bundle.manifest.inputs

        def infer(self, feed: Any) -> Any:
            return {"seen": feed["x"]}

    ask = asking(bundle)
    first = ask(Fake())  # type: ignore[arg-type] # a small part of an engine
    assert first == ask(Fake())  # type: ignore[arg-type]
    assert len(set(np.frombuffer(first, np.float32))) == 64
