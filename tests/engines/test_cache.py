"""What engines made of a graph is kept for the next load, and never changes an answer."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.holding import remove
from fairway.core.errors import InvalidConfig
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.engines import cache as cache_module
from fairway.engines.base import Engine, load_engine
from fairway.engines.cache import EngineCache
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.model import Model

ENGINES = ["onnxruntime", "openvino"]
ROWS = np.random.default_rng(1).standard_normal((5, 3, 16, 16), dtype=np.float32)


def convolutional(path: Path) -> Path:
    """Convolutions, which are laid out anew for the CPU, and products of matrices, which are packed."""
    rng = np.random.default_rng(0)
    weights = {
        "k1": rng.standard_normal((16, 3, 3, 3)) / 5,
        "k2": rng.standard_normal((16, 16, 3, 3)) / 12,
        "w1": rng.standard_normal((16 * 256, 64)) / 64,
        "w2": rng.standard_normal((64, 10)) / 8,
        "b2": rng.standard_normal(10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["m1"]),
        helper.make_node("Tanh", ["m1"], ["t1"]),
        helper.make_node("MatMul", ["t1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def pack(path: Path, graph: Path, engine: str = "onnxruntime", name: str = "conv") -> Bundle:
    manifest = Manifest(
        name=name,
        task="embedding",
        inputs=(TensorSpec("x", Datatype.FP32, (-1, 3, 16, 16)),),
        outputs=(TensorSpec("y", Datatype.FP32, (-1, 10)),),
        files={},
        engine=EngineSpec(engine),
    )
    return write_bundle(path, manifest, {"model.onnx": graph})


@pytest.fixture(params=ENGINES)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"), request.param)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache" / "engines", 10**9)


def ask(engine: Engine) -> bytes:
    return b"".join(array.tobytes() for array in engine.infer({"x": ROWS}).values())


def fill(cache: EngineCache, bundle: Bundle) -> Path:
    assert cache.fill(bundle.manifest.engine, bundle, ask)
    entry = cache.find(bundle.manifest.engine, bundle)
    assert entry is not None
    return entry


def answer(bundle: Bundle, cache: EngineCache | None = None) -> tuple[bytes, bool]:
    with Model(bundle, cache=cache) as model:
        return model.infer({"x": ROWS})["y"].tobytes(), model.cached


def test_answers_and_specs_are_the_same_bit_for_bit(bundle: Bundle, cache: EngineCache) -> None:
    fill(cache, bundle)
    with Model(bundle) as plain, Model(bundle, cache=cache) as cached:
        assert (cached.cached, plain.cached) == (True, False)
        assert (cached.raw_inputs, cached.raw_outputs) == (plain.raw_inputs, plain.raw_outputs)
        for rows in (ROWS, ROWS[:1]):
            assert cached.infer({"x": rows})["y"].tobytes() == plain.infer({"x": rows})["y"].tobytes()


def test_answers_of_an_int8_graph_are_the_same_bit_for_bit(tmp_path: Path, cache: EngineCache) -> None:
    convolutional(tmp_path / "conv.onnx")
    quantize_dynamic(tmp_path / "conv.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["MatMul"])
    bundle = pack(tmp_path / "int8", tmp_path / "int8.onnx")
    fill(cache, bundle)
    assert answer(bundle, cache) == (answer(bundle)[0], True)


def test_large_weights_are_mapped_not_copied(tmp_path: Path, cache: EngineCache) -> None:
    bundle = pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"))
    entry = fill(cache, bundle)
    with Model(bundle, cache=cache):
        maps = Path("/proc/self/maps").read_text()
    assert str(entry / "weights.bin") in maps


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: os.truncate(file, file.stat().st_size // 2), id="truncated"),
        pytest.param(lambda file: file.write_bytes(bytes(file.stat().st_size)), id="written over"),
        pytest.param(lambda file: file.unlink(), id="gone"),
    ],
)
def test_a_damaged_entry_is_not_used_and_made_anew(bundle: Bundle, cache: EngineCache, damage: Any) -> None:
    entry = fill(cache, bundle)
    largest = max(entry.iterdir(), key=lambda file: file.stat().st_size)
    largest.chmod(0o644)
    damage(largest)
    assert answer(bundle, cache) == (answer(bundle)[0], False)
    fill(cache, bundle)
    assert answer(bundle, cache) == (answer(bundle)[0], True)


def test_an_entry_that_the_engine_cannot_read_is_removed_and_the_graph_loaded(
    bundle: Bundle, cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    entry = fill(cache, bundle)
    (entry / "entry.json").unlink()
    for file in entry.iterdir():
        file.chmod(0o644)
        file.write_bytes(b"no graph")
    (entry / "entry.json").write_bytes(msgspec.json.encode(cache_module._entry_of(entry)))  # damage that nobody can see
    with caplog.at_level(logging.WARNING):
        assert answer(bundle, cache) == (answer(bundle)[0], False)
    assert [record.message for record in caplog.records] == ["engine_cache_entry_unusable"]
    assert not entry.exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda patch: patch.setattr("onnxruntime.__version__", "0.0.1"), id="another version"),
        pytest.param(lambda patch: patch.setattr(cache_module, "abilities", lambda: "sse"), id="another CPU"),
        pytest.param(lambda patch: patch.setattr(cache_module, "installed", lambda _: "9"), id="another Fairway"),
    ],
)
def test_what_was_made_elsewhere_is_not_used(
    tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    bundle = pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"))
    fill(cache, bundle)
    change(monkeypatch)
    assert cache.find(bundle.manifest.engine, bundle) is None


def test_threads_options_and_another_bundle_have_entries_of_their_own(tmp_path: Path, cache: EngineCache) -> None:
    graph = convolutional(tmp_path / "conv.onnx")
    bundle = pack(tmp_path / "one", graph)
    fill(cache, bundle)
    assert cache.find(structs.replace(bundle.manifest.engine, threads=2), bundle) is None
    assert cache.find(bundle.manifest.engine, pack(tmp_path / "two", graph, name="other")) is None


def test_two_that_fill_at_once_make_it_once(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, both = [], threading.Barrier(2)
    real = cache_module._make
    spec = bundle.manifest.engine

    def make(*given: Any) -> str:
        made.append(1)
        return real(*given)

    monkeypatch.setattr(cache_module, "_make", make)

    def one() -> bool:
        both.wait()
        return EngineCache(cache.root, 10**9).fill(spec, bundle, ask)

    with ThreadPoolExecutor(2) as pool:
        assert [each.result() for each in [pool.submit(one), pool.submit(one)]] == [True, True]
    assert made == [1]
    assert answer(bundle, cache) == (answer(bundle)[0], True)


def test_what_a_killed_writer_left_is_removed_and_never_used(bundle: Bundle, cache: EngineCache) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path\n"
        "from fairway.bundle.format import read_bundle; from fairway.engines.cache import EngineCache\n"
        "bundle = read_bundle(sys.argv[1])\n"
        "def ask(engine): os.kill(os.getpid(), signal.SIGKILL)\n"
        "EngineCache(Path(sys.argv[2]), 10**9).fill(bundle.manifest.engine, bundle, ask)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle.path), str(cache.root)], check=False)
    assert list(cache.root.glob(".*.partial"))
    assert answer(bundle, cache) == (answer(bundle)[0], False)
    fill(cache, bundle)
    assert not list(cache.root.glob(".*.partial"))


def test_the_longest_unused_goes_first(tmp_path: Path, cache: EngineCache) -> None:
    graph = convolutional(tmp_path / "conv.onnx")
    bundles = [pack(tmp_path / name, graph, name=name) for name in ("a", "b", "c")]
    first, second = (fill(cache, bundle) for bundle in bundles[:2])
    size = sum(file.stat().st_size for file in first.iterdir())
    os.utime(second / "entry.json", (1, 1))  # used long ago
    tight = EngineCache(cache.root, int(2.5 * size))
    fill(tight, bundles[2])
    found = [tight.find(bundle.manifest.engine, bundle) is not None for bundle in bundles]
    assert found == [True, False, True]


def test_an_entry_that_is_being_loaded_from_is_not_removed_under_the_engine(
    tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = convolutional(tmp_path / "conv.onnx")
    bundle, other = (pack(tmp_path / name, graph, name=name) for name in ("a", "b"))
    entry = fill(cache, bundle)
    size = sum(file.stat().st_size for file in entry.iterdir())
    tight = EngineCache(cache.root, int(1.5 * size))
    real = load_engine

    def meanwhile_make_room(spec: EngineSpec, directory: Path, *, cache: Path | None = None) -> Engine:
        monkeypatch.setattr(cache_module, "load_engine", real)
        tight.fill(other.manifest.engine, other, ask)
        return real(spec, directory, cache=cache)

    monkeypatch.setattr(cache_module, "load_engine", meanwhile_make_room)
    assert answer(bundle, cache) == (answer(bundle)[0], True)
    assert all((path / "entry.json").is_file() for path in cache.root.iterdir() if path.is_dir()), "no half entry"
    assert entry.is_dir()


def test_an_entry_is_gone_at_once_when_it_is_removed(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = fill(cache, bundle)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed just before
    assert remove(entry)
    assert not entry.exists()
    assert len(list(cache.root.glob(".*.partial"))) == 1
    monkeypatch.undo()
    fill(cache, bundle)
    assert not list(cache.root.glob(".*.partial"))


def test_an_engine_that_answers_otherwise_from_the_cache_is_loaded_without(
    tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"))
    spec, asked = bundle.manifest.engine, iter([b"this", b"that"])
    assert not cache.fill(spec, bundle, lambda _: next(asked))
    assert not cache.wanted(spec, bundle)  # it is not tried again
    assert answer(bundle, cache) == (answer(bundle)[0], False)


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_directory_that_others_can_enter_is_not_run_from(bundle: Bundle, cache: EngineCache, mode: int) -> None:
    fill(cache, bundle)
    cache.root.chmod(mode)
    assert answer(bundle, cache)[1] is False
    with pytest.raises(InvalidConfig, match="chmod 700"):
        cache.fill(bundle.manifest.engine, bundle, ask)


def test_another_users_directory_is_not_run_from(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(cache, bundle)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    for _ in range(2):
        assert answer(bundle, cache)[1] is False
    assert [record.message for record in caplog.records] == ["engine_cache_off"]  # said once


def test_a_full_disk_is_said_and_left_alone(
    bundle: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InvalidConfig, match=r"0 MB free.*make room, or set engine_cache_mb = 0"):
        cache.fill(bundle.manifest.engine, bundle, ask)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(bundle: Bundle, cache: EngineCache) -> None:
    """A limit on the size of files stands for the disk: writing fails in the middle of the weights."""
    code = (
        "import resource, sys; from fairway.serving import filling\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); sys.exit(filling.main())\n"
    )
    job = {"bundle": str(bundle.path), "threads": 1, "root": str(cache.root), "limit_bytes": 10**9}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(job)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in cache.root.iterdir() if path.name != ".lock"]
    fill(cache, bundle)  # with room it is tried again
    assert answer(bundle, cache) == (answer(bundle)[0], True)


def test_only_what_is_worth_it_is_wanted(tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"))
    spec = bundle.manifest.engine
    assert not cache.wanted(spec, bundle)
    monkeypatch.setattr(OnnxRuntimeEngine, "worth_caching", staticmethod(lambda _: True))
    assert cache.wanted(spec, bundle)
    assert not EngineCache(cache.root, bundle.size_bytes - 1).wanted(spec, bundle)
    fill(cache, bundle)
    assert not cache.wanted(spec, bundle)


def test_an_engine_that_keeps_nothing_is_asked_once(tmp_path: Path, cache: EngineCache) -> None:
    bundle = pack(tmp_path / "bundle", convolutional(tmp_path / "conv.onnx"))

    class Plain(OnnxRuntimeEngine):
        def __init__(self, path: Path, *, threads: int = 1, cache: Path | None = None) -> None:
            super().__init__(path, threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "load_engine", lambda _, path, cache: Plain(path / "model.onnx", cache=cache))
        assert not cache.fill(bundle.manifest.engine, bundle, ask)
    assert cache.find(bundle.manifest.engine, bundle) is None


def test_a_protocol_engine_may_be_loaded_from_an_empty_directory_that_is_not_there(
    bundle: Bundle, tmp_path: Path
) -> None:
    engine = load_engine(bundle.manifest.engine, bundle.path, cache=tmp_path / "new" / "folder")
    engine.close()
    assert list((tmp_path / "new" / "folder").iterdir())
