"""Passes for images: convolutions with drawn filters below a fitted linear layer tell digits apart, and go on doing so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.graphs import largest_difference, operators
from fairway.optimization.passes import graph, halves, mixed, nncf, static
from fairway.optimization.passes.base import Sample
from tests.conftest import Digits


def images(rows: Any) -> Any:
    return np.ascontiguousarray(rows.reshape(-1, 1, 8, 8))


@pytest.fixture(scope="module")
def network(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("network") / "model.onnx"
    weights = {
        "w1": random.normal(0, 1 / 3, (16, 1, 3, 3)), "b1": random.normal(0, 0.1, 16),
        "w2": random.normal(0, 1 / 12, (32, 16, 3, 3)), "b2": random.normal(0, 0.1, 32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["features"]),
    ]
    _write(path, nodes, weights, "features", 512)
    model = LogisticRegression(max_iter=200).fit(answer(path, images(digits.x_train)), digits.y_train)
    weights |= {"w": model.coef_.T, "b": model.intercept_}
    _write(path, [*nodes, helper.make_node("Gemm", ["features", "w", "b"], ["scores"], "head")], weights, "scores", 10)
    return path


def _write(path: Path, nodes: Any, weights: dict[str, Any], output: str, width: int) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1, 8, 8])
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, width])
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    body = helper.make_graph(nodes, "network", [given], [made], constants)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def answer(path: Path, x: Any, engine: str = "onnxruntime") -> Any:
    loaded = load_engine(EngineSpec(engine, path.name), path.parent)
    return loaded.infer({"x": x})[loaded.outputs[0].name]


def accuracy(path: Path, digits: Digits, engine: str = "onnxruntime") -> float:
    return float(np.mean(answer(path, images(digits.x_test), engine).argmax(axis=1) == digits.y_test))


@pytest.fixture(scope="module")
def sample(digits: Digits) -> Sample:
    return Sample({"x": images(digits.x_train[:128])}, 128)


def apply(described: Any, source: Path, folder: Path, sample: Sample, **given: Any) -> Path:
    folder.mkdir()
    described.apply(source, folder / "model.onnx", described.settings(given), sample)
    return folder / "model.onnx"


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_int8_convolutions_keep_their_accuracy(
    method: str, network: Path, digits: Digits, sample: Sample, tmp_path: Path
) -> None:
    before = accuracy(network, digits)
    assert before > 0.95
    made = apply(static.PASS, network, tmp_path / "made", sample, method=method)
    assert ("", "QuantizeLinear") in operators(made)
    assert accuracy(made, digits) >= before - 0.01
    assert made.stat().st_size < 0.4 * network.stat().st_size


def test_methods_of_calibration_find_other_ranges(network: Path, sample: Sample, tmp_path: Path) -> None:
    made = [
        apply(static.PASS, network, tmp_path / m, sample, method=m, percentile=99.0) for m in ("minmax", "percentile")
    ]
    assert largest_difference(made[0], made[1], sample) != ""


def test_nncf_keeps_accuracy_on_either_engine(network: Path, digits: Digits, sample: Sample, tmp_path: Path) -> None:
    made = apply(nncf.PASS, network, tmp_path / "made", sample)
    for engine in ("onnxruntime", "openvino"):
        assert accuracy(made, digits, engine) >= accuracy(network, digits) - 0.01


def test_openvino_answers_a_convolution_as_onnx_runtime_does(network: Path, digits: Digits) -> None:
    x = images(digits.x_test[:50])
    np.testing.assert_allclose(answer(network, x, "openvino"), answer(network, x), rtol=1e-3, atol=1e-4)


def test_what_is_kept_float_is_what_harms_most_for_its_weight(network: Path, sample: Sample, tmp_path: Path) -> None:
    made = apply(mixed.PASS, network, tmp_path / "made", sample, float_share=0.05)
    plain = apply(static.PASS, network, tmp_path / "static", sample)
    x = sample.feed["x"]
    errors = [float(np.mean((answer(g, x) - answer(network, x)) ** 2)) for g in (made, plain)]
    assert errors[0] < errors[1]
    floats = {
        t.name for t in onnx.load(made).graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4
    }
    assert floats == {"w1"}  # 144 of 9,872 weights; the next would be more than a share of 0.05


def test_weights_of_16_bits_answer_nearly_the_same(
    network: Path, digits: Digits, sample: Sample, tmp_path: Path
) -> None:
    made = apply(halves.PASS, network, tmp_path / "made", sample)
    assert accuracy(made, digits) == pytest.approx(accuracy(network, digits), abs=0.005)
    fused = apply(graph.PASS, network, tmp_path / "fused", sample)
    assert largest_difference(network, fused, sample) == ""
    OnnxRuntimeEngine(made).close()
