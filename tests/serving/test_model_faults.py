"""What goes wrong with models while a server runs, and what it must survive."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairway.bundle import format as bundle_format
from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import encode_samples
from fairway.core.errors import InferenceFailed, InvalidBundle, ModelNotReady, RegistryUnavailable
from fairway.core.manifest import Manifest
from fairway.core.messages import InferRequest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.registry.settings import RegistrySettings
from fairway.registry.store import Registry
from fairway.serving.copies import maps_files, safe_copy
from fairway.serving.follow import Follower
from fairway.serving.inference import InferenceCore
from fairway.serving.models import Models
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from tests.serving.test_model_control import X, bundle_saying, replaced, serving, states, who

ROWS, WIDTH = 4096, 64


def table_bundle(path: Path, scale: int = 1) -> Bundle:
    """Looks rows up in a table that lies beside the graph, which the engine maps and reads when asked for a row."""
    table = numpy_helper.from_array(scale * np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, WIDTH])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = path.with_name(path.name + "-made")
    made.mkdir()
    onnx.save(model, made / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    specs = (TensorSpec("x", Datatype.INT64, (-1,)),), (TensorSpec("y", Datatype.FP32, (-1, WIDTH)),)
    manifest = Manifest(name="table", task="embedding", inputs=specs[0], outputs=specs[1], files={})
    return write_bundle(path, manifest, {"model.onnx": made / "model.onnx", "weights": made / "weights"})


PROGRAM = """
import os, sys
import fairway
from pathlib import Path
from fairway.serving.app import serve
from fairway.serving.settings import ServeSettings
bundle = Path(sys.argv[1])
with serve(bundle, settings=ServeSettings(port=0)) as server, fairway.connect(server.url) as client:
    for file in (bundle / "weights", bundle / "model.onnx"):
        os.truncate(file, 0)
    answer = client.infer("table", {"x": list(range(4096))}).outputs["y"]
    assert (answer.ravel() == range(answer.size)).all()
    for file in bundle.iterdir():
        file.unlink()
    assert client.infer("table", {"x": [4095]}).outputs["y"][0, 0] == 4095 * 64
print("answered")
"""


def test_files_cut_or_removed_under_a_running_server_change_no_answer(tmp_path: Path) -> None:
    """A read of a mapped file past its end kills the process with SIGBUS: hence a process of its own."""
    bundle = table_bundle(tmp_path / "table")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "answered"), done.stderr


def test_weights_beside_the_graph_are_copied_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    bundle = table_bundle(tmp_path / "table")
    assert maps_files(bundle)
    with bundle.file("weights").open("r+b") as weights:
        weights.write(b"\xff")
    with pytest.raises(InvalidBundle, match="weights"):
        safe_copy(bundle)
    assert not any(scratch.iterdir())


def failing_on_its_samples(path: Path) -> Bundle:
    bundle = bundle_saying(path.with_name(path.name + "-plain"), 2)
    files: dict[str, Path | bytes] = {
        "model.onnx": bundle.file("model.onnx"),
        "samples.npz": encode_samples({"x": np.zeros((2, 9), np.float32)}),
    }
    return write_bundle(path, bundle.manifest, files)


@pytest.mark.parametrize("wrong", ["no graph", "fails on its own rows"])
async def test_a_version_that_cannot_run_leaves_the_old_one(tmp_path: Path, wrong: str) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    if wrong == "no graph":
        new = write_bundle(tmp_path / "new", bundle.manifest, {"model.onnx": b"nonsense"})
    else:
        new = failing_on_its_samples(tmp_path / "new")
    async with serving(bundle) as core:
        replaced(bundle.path, new)
        with pytest.raises((InvalidBundle, InferenceFailed)):
            await core.models.load_model("linear")
        assert (await who(core), states(core)) == (1, {"linear:1": "READY"})


@pytest.mark.parametrize("version", ["another", "the same"])
async def test_an_engine_that_cannot_be_closed_is_said_and_ends_nothing_else(
    tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    async with serving(bundle) as core:
        (served,) = core.models.live()

        def close() -> None:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(served.model, "close", close)
        if version == "another":
            await core.models.unload_model("linear")
        else:
            replaced(bundle.path, bundle_saying(tmp_path / "new", 2))
            await core.models.load_model("linear")
            assert await who(core) == 2
        assert await core.models.close()
    events = [record.message for record in caplog.records]
    assert "engine_not_closed" in events
    assert "Task exception was never retrieved" not in events


@pytest.mark.parametrize("inline_us", [0.0, 1e6])
@pytest.mark.parametrize("wrong", ["raises", "loses rows", "loses an output"])
async def test_an_engine_that_misbehaves_fails_its_request_and_the_next_one_is_answered(
    tmp_path: Path, wrong: str, inline_us: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(bundle_saying(tmp_path / "b", 1), inline_us=inline_us) as core:
        (served,) = core.models.live()
        infer = served.model.infer

        def misbehaving(feed: Any, *, raw: bool = False) -> Any:
            answer = infer(feed, raw=raw)
            if wrong == "raises":
                raise RuntimeError("out of luck")
            if wrong == "loses rows":
                return {name: array[:0] for name, array in answer.items()}
            return {}

        with monkeypatch.context() as patch:
            patch.setattr(served.model, "infer", misbehaving)
            both = [core.infer(InferRequest("linear", X)) for _ in range(2)]
            outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes), outcomes
        assert await who(core) == 1


async def test_unloading_waits_for_an_inference_and_frees_the_model_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(bundle_saying(tmp_path / "b", 1), inline_us=0) as core:
        (served,) = core.models.live()
        infer, entered, gate, closed = served.model.infer, threading.Event(), threading.Event(), threading.Event()

        def held(feed: Any, *, raw: bool = False) -> Any:
            entered.set()
            assert gate.wait(20)
            assert not closed.is_set()
            return infer(feed, raw=raw)

        close = served.model.close

        def closing() -> None:
            closed.set()
            close()

        monkeypatch.setattr(served.model, "infer", held)
        monkeypatch.setattr(served.model, "close", closing)
        answer = asyncio.create_task(who(core))
        assert await asyncio.to_thread(entered.wait, 20)
        unloading = asyncio.create_task(core.models.unload_model("linear"))
        while states(core) != {"linear:1": "UNAVAILABLE"}:
            await asyncio.sleep(0)
        with pytest.raises(ModelNotReady, match="unloaded"):
            await who(core)
        assert not unloading.done()
        gate.set()
        await unloading
        assert closed.is_set()
        assert await answer == 1


async def test_stopping_while_a_model_loads_gives_the_load_up(tmp_path: Path) -> None:
    bundle = bundle_saying(tmp_path / "b", 1)
    entered, gate = threading.Event(), threading.Event()

    def slow() -> Bundle:
        entered.set()
        assert gate.wait(20)
        return bundle

    async with serving(bundle) as core:
        loading = asyncio.create_task(core.models.load("linear", "2", slow))
        assert await asyncio.to_thread(entered.wait, 20)
        await core.models.close()
        gate.set()
        with pytest.raises(ModelNotReady, match="stopping"):
            await loading
        assert core.models.live() == []


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(RegistrySettings(), root=tmp_path) as opened:
        for version in (1, 2):
            opened.register(bundle_saying(tmp_path / f"b{version}", version))
        opened.set_alias("linear", "champion", 1, actor="test")
        yield opened


@pytest.mark.parametrize("wrong", ["disk full", "blob corrupted"])
async def test_a_version_that_cannot_be_fetched_leaves_the_old_one_and_no_litter(
    registry: Registry, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry, cache = Telemetry(), tmp_path / "cache"
    models = Models(ServeSettings(), telemetry)
    core = InferenceCore(models, telemetry)
    follower = models.repository = Follower(registry, models, (), settings=ServeSettings(), url="", cache_dir=cache)
    await follower.first()
    try:
        registry.set_alias("linear", "champion", 2, actor="test")
        with monkeypatch.context() as patch:

            def failing(source: Any, target: Any, limit: int | None = None) -> tuple[str, int]:
                if wrong == "disk full":
                    target.write(source.read(10))
                    raise OSError(errno.ENOSPC, "No space left on device")
                return "0" * 64, 1

            patch.setattr(bundle_format, "copy", failing)
            await follower.first()
            with pytest.raises((RegistryUnavailable, InvalidBundle)):
                await models.load_model("linear")
            assert await who(core) == 1
            assert states(core) == {"linear:1": "READY", "linear:2": "UNAVAILABLE"}
        assert not list(cache.glob("*.partial"))
        await models.load_model("linear")
        assert (await who(core), states(core)) == (2, {"linear:2": "READY"})
    finally:
        await models.close()
        await follower.close()


async def test_a_clock_that_jumps_changes_no_deadline_and_stops_no_following(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    settings = ServeSettings(poll_s=0.05)
    models = Models(settings, telemetry)
    core = InferenceCore(models, telemetry)
    follower = Follower(registry, models, (), settings=settings, url="", cache_dir=tmp_path / "cache")
    await follower.first()
    following = asyncio.create_task(follower.run())
    real = time.time
    try:
        for champion, days in ((2, 30), (1, -60)):
            monkeypatch.setattr(time, "time", lambda days=days: real() + days * 86400)
            assert await who(core, parameters={"timeout": 20_000_000}) in (1, 2)
            registry.set_alias("linear", "champion", champion, actor="test")
            async with asyncio.timeout(20):
                while await who(core) != champion:
                    await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await models.close()
        await follower.close()
