"""A bundle as a model of a Triton repository: the configuration that Triton reads, its tuning, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

import fairway
from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.core.manifest import Cost, EngineSpec
from fairway.core.tensors import Tensors
from fairway.exports.triton import preferred_sizes
from fairway.model import Model
from tests.exports.conftest import changed, rows


def config_of(folder: Path) -> Any:
    """As Triton reads it, by its own schema."""
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def parameters_of(config: Any) -> dict[str, str]:
    return {name: each.string_value for name, each in config.parameters.items()}


# --- for the ONNX Runtime backend ---------------------------------------------------------------------------------


def test_the_repository_has_the_graph_its_labels_and_a_warm_up(numbers: Bundle, tmp_path: Path) -> None:
    folder = fairway.export(numbers, tmp_path / "repository")
    assert folder == tmp_path / "repository" / "numbers"
    assert files_of(folder) == {"config.pbtxt", "1/model.onnx", "labels.txt", "warmup/input-0"}
    assert (folder / "labels.txt").read_text().splitlines() == ["low", "mid", "high"]
    assert (folder / "1" / "model.onnx").read_bytes() == numbers.file("model.onnx").read_bytes()


def test_the_configuration_has_the_bundles_tuning(numbers: Bundle, tmp_path: Path) -> None:
    config = config_of(fairway.export(numbers, tmp_path / "repository", instances=3))
    assert (config.name, config.backend, config.max_batch_size) == ("numbers", "onnxruntime", 32)
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [("x", 11, [4])]
    assert [(each.name, list(each.dims), each.label_filename) for each in config.output] == [
        ("probabilities", [3], "labels.txt")
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert [(group.count, group.kind) for group in config.instance_group] == [(3, 2)]  # on CPU
    told = parameters_of(config)
    assert told == {"fairway.bundle": numbers.digest, "intra_op_thread_count": "1", "inter_op_thread_count": "1"}


def test_the_warm_up_is_a_recorded_row(numbers: Bundle, tmp_path: Path) -> None:
    folder = fairway.export(numbers, tmp_path / "repository")
    (request,) = config_of(folder).model_warmup
    assert (request.batch_size, list(request.inputs["x"].dims)) == (1, [4])
    sent = np.frombuffer((folder / "warmup" / request.inputs["x"].input_data_file).read_bytes(), np.float32)
    assert sent.tolist() == rows(3)["x"][0].tolist()


def test_as_many_threads_as_it_likes_is_left_to_onnx_runtime_there_too(numbers: Bundle, tmp_path: Path) -> None:
    engine = msgspec.structs.replace(numbers.manifest.engine, threads=0)
    config = config_of(fairway.export(changed(numbers, tmp_path / "b", engine=engine), tmp_path / "r"))
    assert set(parameters_of(config)) == {"fairway.bundle"}


def test_what_must_not_share_a_call_is_not_batched(numbers: Bundle, tmp_path: Path) -> None:
    engine = msgspec.structs.replace(numbers.manifest.engine, batching=False)
    config = config_of(fairway.export(changed(numbers, tmp_path / "b", engine=engine), tmp_path / "r"))
    assert config.max_batch_size == 0
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[-1, 4], [-1, 3]]
    assert not config.HasField("dynamic_batching")
    assert config.model_warmup[0].batch_size == 0


def test_weights_outside_of_the_graph_come_along(outside: Bundle, tmp_path: Path) -> None:
    folder = fairway.export(outside, tmp_path / "repository")
    assert {"1/model.onnx", "1/g.weights"} <= files_of(folder)
    session = ort.InferenceSession(folder / "1" / "model.onnx")
    with Model(outside) as model:
        wanted = model.infer(rows(5))["probabilities"]
    assert np.array_equal(session.run(None, dict(rows(5)))[0], wanted)


def test_steps_are_refused_unless_callers_do_them(texts: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"tokenize.*--backend python.*--raw"):
        fairway.export(texts, tmp_path / "repository")
    folder = fairway.export(texts, tmp_path / "repository", raw=True)
    config = config_of(folder)
    assert [(each.name, list(each.dims)) for each in config.input] == [("input_ids", [-1])]
    sent = np.frombuffer((folder / "warmup" / "input-0").read_bytes(), np.int64)
    assert sent.tolist() == [2, 1]  # "good film"


def test_another_engine_is_refused(numbers: Bundle, tmp_path: Path) -> None:
    other = changed(numbers, tmp_path / "b", engine=EngineSpec("openvino"))
    with pytest.raises(InvalidConfig, match="runs on openvino"):
        fairway.export(other, tmp_path / "repository", backend="python")


@given(st.floats(0, 1e5), st.floats(0, 1e4), st.integers(1, 512))
def test_preferred_sizes_are_batches_that_may_be(base: float, row: float, largest: int) -> None:
    sizes = preferred_sizes(Cost(base, row), largest)
    assert sizes == sorted(set(sizes))
    assert all(1 < size <= largest for size in sizes)
    assert not sizes or sizes[-1] == largest


# --- for the Python backend ---------------------------------------------------------------------------------------


class _Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        return self.array


class _Response:
    def __init__(self, output_tensors: list[_Tensor], error: Any = None) -> None:
        self.tensors, self.error = output_tensors, error

    def answer(self) -> dict[str, Any]:
        assert self.error is None, self.error
        return {each.name: each.array for each in self.tensors}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load an exported ``model.py`` as Triton does, without Triton; gives a function from feeds to answers."""
    stub = ModuleType("triton_python_backend_utils")
    stub.__dict__.update(
        Tensor=_Tensor,
        InferenceResponse=_Response,
        TritonError=str,
        get_input_tensor_by_name=lambda request, name: _Tensor(name, request.feed[name]),
    )
    monkeypatch.setitem(sys.modules, stub.__name__, stub)

    def loaded(folder: Path) -> Any:
        spec = importlib.util.spec_from_file_location("exported", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        told = MessageToDict(config_of(folder), preserving_proto_field_name=True)
        told = {"max_batch_size": 0, **told}
        model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": json.dumps(told)})
        return lambda *feeds: model.execute([SimpleNamespace(feed=feed) for feed in feeds])

    return loaded


def test_the_python_backend_answers_what_the_bundle_does(numbers: Bundle, load: Any, tmp_path: Path) -> None:
    execute = load(fairway.export(numbers, tmp_path / "repository", backend="python"))
    feeds: list[Tensors] = [rows(count, seed=count) for count in (1, 5, 2)]
    with Model(numbers) as model:
        for response, feed in zip(execute(*feeds), feeds, strict=True):
            wanted = model.infer(feed)["probabilities"]
            assert np.allclose(response.answer()["probabilities"], wanted, atol=1e-6)
            assert response.answer()["probabilities"].shape == wanted.shape


def test_the_python_backend_tokenizes(texts: Bundle, load: Any, tmp_path: Path) -> None:
    folder = fairway.export(texts, tmp_path / "repository", backend="python")
    assert {"1/model.py", "1/model.onnx", "1/steps/tokenizer.json"} <= files_of(folder)
    (given_text,) = config_of(folder).input
    assert (given_text.name, list(given_text.dims), list(given_text.reshape.shape)) == ("text", [1], [])
    sent = (folder / "warmup" / "input-0").read_bytes()
    assert sent == len(b"good film").to_bytes(4, "little") + b"good film"
    feeds = [{"text": np.array(words, object)} for words in ([b"good good bad"], [b"bad", "böse bad".encode()])]
    with Model(texts) as model:
        for response, feed in zip(load(folder)(*feeds), feeds, strict=True):
            assert np.array_equal(response.answer()["probabilities"], model.infer(feed)["probabilities"])


def test_a_request_at_fault_does_not_take_others_with_it(texts: Bundle, load: Any, tmp_path: Path) -> None:
    execute = load(fairway.export(texts, tmp_path / "repository", backend="python"))
    good, bad = execute({"text": np.array([b"good"], object)}, {"text": np.array([b"\xff"], object)})
    assert good.answer()["probabilities"].argmax() == 1
    assert "utf-8" in bad.error


def test_a_bundle_cannot_bring_code_of_its_own(texts: Bundle, tmp_path: Path) -> None:
    """A tokenizer called ``model.py`` stays data; a weights file of that name is refused."""
    step = texts.manifest.processing.pre[0]
    renamed = msgspec.structs.replace(step, parameters={**step.parameters, "file": "model.py"})
    processing = msgspec.structs.replace(texts.manifest.processing, pre=(renamed,))
    content = texts.file("tokenizer.json").read_bytes()
    folder = fairway.export(
        changed(texts, tmp_path / "b", {"model.py": content}, processing=processing), tmp_path / "r", backend="python"
    )
    assert "TritonPythonModel" in (folder / "1" / "model.py").read_text()
    assert (folder / "1" / "steps" / "model.py").read_bytes() == content


def test_weights_called_like_the_code_are_refused(outside: Bundle, tmp_path: Path) -> None:
    import onnx

    graph = onnx.load(outside.file("graph/g.onnx"))
    folder = tmp_path / "again"
    folder.mkdir()
    onnx.save(graph, folder / "g.onnx", save_as_external_data=True, location="model.py", size_threshold=0)
    files: dict[str, Path | bytes] = {"graph/g.onnx": folder / "g.onnx", "graph/model.py": folder / "model.py"}
    other = changed(outside, tmp_path / "b", files)
    with pytest.raises(InvalidBundle, match=r"model\.py"):
        fairway.export(other, tmp_path / "r", backend="python")
    assert not (tmp_path / "r" / "numbers").exists()
