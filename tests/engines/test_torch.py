"""The torch engine answers as ONNX Runtime does, reads programs without running what they carry, and says what it lacks."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import write_bundle
from fairway.core.errors import ConversionMismatch, InvalidBundle, InvalidSource, UnsupportedMachine
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec
from fairway.engines.cache import EngineCache
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.engines.programs import clean_program
from fairway.engines.torch import TorchEngine
from fairway.model import Model
from fairway.sources.convert import convert
from fairway.sources.programs import export_program
from fairway.sources.tables import make_table
from fairway.sources.torch import export_graph
from fairway.sources.torch_bundles import torch_bundle
from tests.conftest import Digits

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

MODEL = "models/model.json"


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def program(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    path.write_bytes(export_program(network, [rows(2)], [[0]]))
    return path


@pytest.fixture(scope="module")
def wanted(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Any]:
    """ONNX Runtime's answer."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_graph(network, (torch.from_numpy(rows(2)),), path, inputs=["input"], axes=[{0: "batch"}])
    engine = OnnxRuntimeEngine(path)
    (output,) = engine.outputs
    return lambda x: engine.infer({"input": x})[output.name]


def rows(count: int) -> Any:
    return np.random.default_rng(count).normal(size=(count, 1, 8, 8)).astype(np.float32)


def test_it_tells_its_shapes(program: Path) -> None:
    engine = TorchEngine(program, outputs=["scores"])
    assert engine.inputs == (TensorSpec("input", Datatype.FP32, (-1, 1, 8, 8)),)
    assert engine.outputs == (TensorSpec("scores", Datatype.FP32, (-1, 3)),)
    with pytest.raises(InvalidBundle, match="has 1 outputs, and the bundle names 2: a, b"):
        TorchEngine(program, outputs=["a", "b"])


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_eager_answers_are_onnx_runtimes(program: Path, wanted: Callable[[Any], Any], threads: int) -> None:
    engine = TorchEngine(program, threads=threads)
    for count in (3, 1, 64, 2):
        np.testing.assert_allclose(
            engine.infer({"input": rows(count)})["output_0"], wanted(rows(count)), rtol=1e-4, atol=1e-5
        )
    engine.close()


@pytest.mark.parametrize(("precision", "allowed"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_half_precision_is_near_and_keeps_the_outputs_datatype(
    program: Path, wanted: Callable[[Any], Any], precision: Any, allowed: float
) -> None:
    answer = TorchEngine(program, precision=precision).infer({"input": rows(5)})["output_0"]
    assert answer.dtype == np.float32
    gap = np.abs(answer - wanted(rows(5))).max()
    assert 0 < gap < allowed


def test_compiled_answers_are_onnx_runtimes(program: Path, wanted: Callable[[Any], Any]) -> None:
    engine = TorchEngine(program, mode="compiled")
    for count in (4, 1, 7):
        np.testing.assert_allclose(
            engine.infer({"input": rows(count)})["output_0"], wanted(rows(count)), rtol=1e-4, atol=1e-5
        )


def test_compiled_ahead_of_time_once_for_a_machine(
    program: Path, wanted: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = TorchEngine(program, mode="aot", precision="bf16", cache=cache)
    (kept,) = cache.iterdir()
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", lambda *_, **__: pytest.fail("compiled again"))
    second = TorchEngine(program, mode="aot", precision="bf16", cache=cache)
    for engine in (first, second):
        for count in (4, 1, 7):
            answer = engine.infer({"input": rows(count)})["output_0"]
            np.testing.assert_allclose(answer, wanted(rows(count)), atol=2e-2)
    assert [*cache.iterdir()] == [kept]


def test_what_was_compiled_is_an_entry_of_the_engines_cache(program: Path, tmp_path: Path) -> None:
    spec = EngineSpec("torch", program.name, options={"mode": "aot"})
    manifest = Manifest(
        name="net",
        task="embedding",
        inputs=(TensorSpec("input", Datatype.FP32, (-1, 1, 8, 8)),),
        outputs=(TensorSpec("output_0", Datatype.FP32, (-1, 3)),),
        files={},
        engine=spec,
    )
    bundle = write_bundle(tmp_path / "bundle", manifest, {program.name: program})
    eager = write_bundle(
        tmp_path / "eager",
        msgspec.structs.replace(manifest, engine=EngineSpec("torch", program.name)),
        {program.name: program},
    )
    cache = EngineCache(tmp_path / "engines", 10**9)
    assert cache.wanted(spec, bundle)
    assert not cache.wanted(eager.manifest.engine, eager)  # nothing is compiled
    assert cache.fill(spec, bundle, lambda engine: engine.infer({"input": rows(3)})["output_0"].tobytes())
    with Model(bundle, cache=cache) as model:
        assert model.cached


def test_an_answer_is_its_callers_and_any_memory_is_read(tmp_path: Path) -> None:
    class Same(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def forward(self, x: Any) -> Any:
            return x, x.reshape(-1)

    path = tmp_path / "same.pt2"
    path.write_bytes(export_program(Same(), [np.ones((2, 3), np.float32)], [[0]]))
    engine = TorchEngine(path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    locked, turned, strided = x.copy(), np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2]
    locked.flags.writeable = False
    for given in (locked, turned, strided, x):
        answer = engine.infer({"x": given})["output_0"]
        np.testing.assert_array_equal(answer, x)
    answer[...] = -1
    assert x[0, 1] == 1


@pytest.mark.parametrize("datatype", [d for d in Datatype if d not in ("UINT16", "UINT32", "UINT64", "BYTES")])
def test_datatypes_come_back_as_they_went_in(datatype: Datatype, tmp_path: Path) -> None:
    class Copied(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def forward(self, x: Any) -> Any:
            return x.clone()

    x = np.array([[1, 0], [1, 1]]).astype(datatype.dtype)
    example = torch.ones(2, 2, dtype=getattr(torch, str({"BF16": "bfloat16"}.get(datatype, x.dtype.name))))
    path = tmp_path / "copied.pt2"
    path.write_bytes(export_program(Copied(), [example], [[0]]))
    answer = TorchEngine(path).infer({"x": x})["output_0"]
    assert answer.dtype == x.dtype
    assert answer.tolist() == x.tolist()


def test_calls_from_several_threads_get_each_their_own_answer(program: Path, wanted: Callable[[Any], Any]) -> None:
    engine = TorchEngine(program)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for count in range(1, 9):
            x = rows(count) * seed
            if not np.allclose(engine.infer({"input": x})["output_0"], wanted(x), rtol=1e-3, atol=1e-4):
                wrong.append(seed)

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(1, 5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert wrong == []


def test_what_this_machine_lacks_is_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnsupportedMachine, match=r"model\.pt2 is to run on CUDA, and torch .* finds no such device"):
        TorchEngine(program, device="cuda")
    monkeypatch.setenv("PATH", os.devnull)
    for mode in ("compiled", "aot"):
        with pytest.raises(UnsupportedMachine, match="no C\\+\\+ compiler here"):
            TorchEngine(program, mode=mode)


def test_options_that_do_not_exist_are_named(program: Path) -> None:
    with pytest.raises(InvalidBundle, match="device 'tpu': the torch engine knows cpu, cuda"):
        TorchEngine(program, device="tpu")  # type: ignore[arg-type]


def test_the_same_module_exports_to_the_same_bytes_without_a_trace_of_this_machine(network: Any, program: Path) -> None:
    again = export_program(network, [rows(2)], [[0]])
    assert again == program.read_bytes() == clean_program(again)
    assert b"site-packages" not in again


def test_an_axis_that_the_module_fixes_is_told() -> None:
    class Fixed(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def forward(self, x: Any) -> Any:
            return x + torch.ones(2, 3)

    with pytest.raises(InvalidSource, match="axis 0 of 'x' fixed to 2"):
        export_program(Fixed(), [np.ones((2, 3), np.float32)], [[0]])


def test_a_bundle_answers_alike_on_the_torch_engine(digits: Digits, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)).eval()
    table = make_table({"input": digits.x_train[:100], "digit": digits.y_train[:100]})
    options: dict[str, Any] = {"name": "digits", "task": "classification", "reference": table, "label": "digit"}
    first = convert(network, destination=tmp_path / "onnx", **options)
    other = torch_bundle(first, network, tmp_path / "torch", options={"precision": "bf16"})
    assert other.manifest.engine.options["precision"] == "bf16"
    with Model(first) as graph:
        wanted = graph.infer({"input": digits.x_test})
    spec = other.manifest.engine
    fresh = {key: value for key, value in spec.options.items() if key != "precision"}
    engine = TorchEngine(other.file(spec.file), **fresh)
    assert (engine.inputs, engine.outputs) == (graph.raw_inputs, graph.raw_outputs)
    (name,) = wanted
    np.testing.assert_allclose(engine.infer({"input": digits.x_test})[name], wanted[name], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        network[0].weight += 1
    with pytest.raises(ConversionMismatch, match="does not answer as its bundle does"):
        torch_bundle(first, network, tmp_path / "other")


# -- programs that carry something


def altered(content: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"program/{name}", data)
    return held.getvalue()


def edited(old: str, new: str, file: str = MODEL) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        text = files[file].decode()
        assert old in text
        files[file] = text.replace(old, new).encode()

    return change


WEIGHTS = "data/weights/model_weights_config.json"
SIZE = '"expr_str": "Symbol(\''
HOSTILE = {
    "calls 'torch.os.system'": edited("torch.ops.aten.relu.default", "torch.os.system"),
    "calls 'torch.ops.aten.from_file.default'": edited("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
    "calls 'torch.ops.aten.save.default'": edited("torch.ops.aten.relu.default", "torch.ops.aten.save.default"),
    "calls '_operator.attrgetter'": edited("torch.ops.aten.relu.default", "_operator.attrgetter"),
    "is pickled": edited('"use_pickle": false', '"use_pickle": true', WEIGHTS),
    "which is no arithmetic of sizes": edited(SIZE, SIZE.replace("Symbol", "__import__('os').system('true') or Symbol")),
    "no arithmetic": edited(SIZE, SIZE.replace("Symbol", "().__class__ or Symbol")),
    "takes or gives a 'collections.defaultdict'": edited(
        '\\"type\\": \\"builtins.dict\\"', '\\"type\\": \\"collections.defaultdict\\"'
    ),
    "neither the graph nor a tensor": lambda files: files.update({"data/aotinductor/model/a.so": b"\x7fELF"}),
}  # fmt: skip


@pytest.mark.parametrize("said", HOSTILE)
def test_what_could_run_code_is_not_let_through(said: str, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pt2"
    path.write_bytes(altered(program.read_bytes(), HOSTILE[said]))
    with pytest.raises(InvalidBundle, match=rf"hostile\.pt2: .*{said}"):
        TorchEngine(path)


def test_what_would_swell_as_it_is_read_is_not_read(program: Path) -> None:
    swollen = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(program.read_bytes())) as old,
        zipfile.ZipFile(swollen, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    with pytest.raises(InvalidBundle, match="is compressed or encrypted, as torch writes none"):
        clean_program(swollen.getvalue())


def test_pickled_examples_and_guards_are_left_out(program: Path, network: Any) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["data/sample_inputs/model.pt"] = b"\x80\x04cos\nsystem\n."
        document = json.loads(files[MODEL])
        document["guards_code"] = ["__import__('os').system('true')"]
        files[MODEL] = json.dumps(document).encode()

    assert clean_program(altered(program.read_bytes(), change)) == program.read_bytes()


def test_a_file_that_is_cut_off_or_no_program_is_named(program: Path, tmp_path: Path) -> None:
    whole = program.read_bytes()
    empty = altered(whole, lambda files: files.clear())
    path = tmp_path / "broken.pt2"
    for content in (
        b"no program",
        whole[: len(whole) // 2],
        empty,
        altered(whole, edited('{"graph_module"', "[", MODEL)),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidBundle, match=r"broken\.pt2 is no exported torch program"):
            TorchEngine(path)
    with pytest.raises(InvalidBundle, match=r"absent\.pt2 cannot be read"):
        TorchEngine(tmp_path / "absent.pt2")


def test_a_program_of_another_torch_says_which(program: Path, tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        document = json.loads(files[MODEL])
        document["torch_version"], document["schema_version"]["major"] = "9.9.0", 99
        files[MODEL] = msgspec.json.encode(document)

    path = tmp_path / "newer.pt2"
    path.write_bytes(altered(program.read_bytes(), change))
    with pytest.raises(
        InvalidBundle, match=r"cannot load newer\.pt2, which torch 9\.9\.0 exported.*install torch 9\.9\.0"
    ):
        TorchEngine(path)
