"""Each engine keeps the protocol, and says what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.errors import InvalidBundle, InvalidRequest, UnsupportedMachine
from fairway.core.manifest import EngineSpec
from fairway.core.tensors import Datatype
from fairway.engines.base import load_engine
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.engines.openvino import OpenVinoEngine
from fairway.model import Model
from fairway.testing.engines import check_engine
from tests.conftest import Digits


def test_onnx_runtime_conforms() -> None:
    assert check_engine(OnnxRuntimeEngine) == []


def test_openvino_conforms() -> None:
    refused = frozenset({Datatype.BF16, Datatype.BYTES, Datatype.FP64, Datatype.UINT64})
    assert check_engine(OpenVinoEngine, refused=refused) == []


def test_the_suite_finds_an_engine_that_hands_out_its_own_memory() -> None:
    class Careless(OnnxRuntimeEngine):
        def infer(self, feed: Any) -> Any:
            answer = dict(super().infer(feed))
            kept = self.__dict__.setdefault("kept", {})
            for name, array in answer.items():
                memory = kept.setdefault((name, array.shape, array.dtype), array)
                memory[...] = array
                answer[name] = memory
            return answer

    assert [line for line in check_engine(Careless) if line.startswith("An answer stays what it was")]


def on(bundle: Bundle, path: Path, engine: EngineSpec, **files: bytes) -> Bundle:
    """The same bundle for another engine."""
    manifest = msgspec.structs.replace(bundle.manifest, engine=engine)
    kept: dict[str, Path | bytes] = {name: bundle.path / name for name in bundle.manifest.files}
    return write_bundle(path, manifest, {**kept, **files})


def test_a_bundle_answers_alike_on_either_engine(digits_bundle: Bundle, digits: Digits, tmp_path: Path) -> None:
    other = on(digits_bundle, tmp_path / "openvino", EngineSpec("openvino", options={"precision": "fp32"}))
    with Model(digits_bundle) as first, Model(other) as second:
        assert second.inputs == first.inputs
        answers = [model.infer({"x": digits.x_test})["probabilities"] for model in (first, second)]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    assert other.digest != digits_bundle.digest


def test_openvinos_own_files_are_read(digits_bundle: Bundle, digits: Digits, tmp_path: Path) -> None:
    import openvino as ov

    graph = ov.Core().read_model(digits_bundle.path / "model.onnx")
    ov.save_model(graph, tmp_path / "ir.xml", compress_to_fp16=False)
    files = {f"ir{end}": (tmp_path / f"ir{end}").read_bytes() for end in (".xml", ".bin")}
    other = on(digits_bundle, tmp_path / "openvino", EngineSpec("openvino", "ir.xml"), **files)
    with Model(digits_bundle) as first, Model(other) as second:
        answers = [model.infer({"x": digits.x_test[:9]})["probabilities"] for model in (first, second)]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_a_precision_that_this_cpu_lacks_is_named_as_the_bundle_is_loaded(digits_bundle: Bundle) -> None:
    import openvino as ov

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lacking = [(name, kind) for name, kind in (("bf16", "BF16"), ("fp16", "FP16")) if kind not in able]
    for name, _ in lacking:
        with pytest.raises(UnsupportedMachine, match=rf"computed in {name}.*does not do; it does .*fp32"):
            load_engine(EngineSpec("openvino", options={"precision": name}), digits_bundle.path)
    for name in {"bf16", "fp16"} - {name for name, _ in lacking}:
        load_engine(EngineSpec("openvino", options={"precision": name}), digits_bundle.path).close()


def test_operators_that_a_provider_lacks_run_on_the_cpu(digits_bundle: Bundle, digits: Digits, tmp_path: Path) -> None:
    other = on(digits_bundle, tmp_path / "other", EngineSpec(options={"providers": ["AzureExecutionProvider"]}))
    with Model(digits_bundle) as first, Model(other) as second:
        answers = [model.infer({"x": digits.x_test})["probabilities"] for model in (first, second)]
    np.testing.assert_array_equal(answers[1], answers[0])


def test_a_provider_that_is_not_installed_is_named_as_the_bundle_is_loaded(digits_bundle: Bundle) -> None:
    said = r"TensorrtExecutionProvider, which is not installed here .*AzureExecutionProvider.*onnxruntime-gpu"
    with pytest.raises(UnsupportedMachine, match=said):
        load_engine(EngineSpec(options={"providers": ["TensorrtExecutionProvider"]}), digits_bundle.path)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_finds_no_device_is_not_left_out_without_a_word(
    digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(UnsupportedMachine, match="found no device, or lacks a library, for CUDAExecutionProvider"):
        load_engine(EngineSpec(options={"providers": ["CUDAExecutionProvider"]}), digits_bundle.path)


@pytest.mark.parametrize(
    ("options", "accelerated"),
    [
        ({}, False),
        ({"providers": ["OpenVINOExecutionProvider"]}, False),
        ({"providers": ["CUDAExecutionProvider"]}, True),
    ],
)
def test_a_provider_with_a_device_of_its_own_is_an_accelerator(options: dict[str, Any], accelerated: bool) -> None:
    assert EngineSpec(options=options).accelerated is accelerated


def test_numbers_that_openvino_would_cut_off_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=9).SerializeToString())
    engine = OpenVinoEngine(path)
    assert engine.infer({"x": np.array([-(2**31), 2**31 - 1])})["y"].tolist() == [-(2**31), 2**31 - 1]
    with pytest.raises(InvalidRequest, match="'x' has numbers beyond 32 bits"):
        engine.infer({"x": np.array([1, 2**40])})
    assert engine.infer({"x": np.zeros(0, np.int64)})["y"].shape == (0,)
    engine.close()


def test_compiled_graphs_are_kept_where_they_are_asked_for(
    digits_bundle: Bundle, digits: Digits, tmp_path: Path
) -> None:
    cache = tmp_path / "compiled"
    spec = EngineSpec("openvino")
    answers = []
    for _ in range(2):
        engine = load_engine(spec, digits_bundle.path, cache=cache)
        answers.append(engine.infer({"x": digits.x_test[:3]})["probabilities"])
        engine.close()
    assert list(cache.iterdir())
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not any(path.suffix == ".blob" for path in digits_bundle.path.rglob("*"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (EngineSpec("onnxruntime", options={"kernels": ["Foreign"]}), "the option 'kernels'; it knows: providers"),
        (EngineSpec("onnxruntime", options={"providers": "CUDAExecutionProvider"}), "it is a list of names"),
        (EngineSpec("onnxruntime", options={"providers": 5}), "it is a list of names"),
        (EngineSpec("openvino", options={"cache": "/"}), "the option 'cache'; it knows: precision"),
        (EngineSpec("openvino", options={"precision": "int1"}), "computes in fp32, bf16, fp16"),
        (EngineSpec("abacus"), "engine 'abacus'; installed here: onnxruntime, openvino"),
    ],
)
def test_what_a_bundle_asks_of_its_engine_is_checked(spec: EngineSpec, said: str, digits_bundle: Bundle) -> None:
    with pytest.raises(InvalidBundle, match=said):
        load_engine(spec, digits_bundle.path)


def test_options_leave_the_digests_of_bundles_without_any(digits_bundle: Bundle) -> None:
    assert b"options" not in digits_bundle.manifest.encode()
    spec = EngineSpec("openvino", options={"precision": "bf16"})
    assert msgspec.json.decode(msgspec.json.encode(spec), type=EngineSpec) == spec
