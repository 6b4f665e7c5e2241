"""A temperature in a graph gives what the formula gives, whatever the form of the output."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fairway.evaluation.scaling import apply_temperature
from fairway.sources.graphs import add_temperature


def graph_of(operator: str, classes: int, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """``x`` through one operator to ``p``; ``top`` reads ``p`` within the graph."""
    nodes = [helper.make_node(operator, ["x"], ["p"]), helper.make_node("Neg", ["p"], ["top"])]
    shape = [None, classes]
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name in ("p", "top")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: onnx.ModelProto, x: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(["p", "top"], {"x": x})]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_are_scaled(temperature: float) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * 4
    plain, _ = run(graph_of("Softmax", 4), x)
    model = graph_of("Softmax", 4)
    add_temperature(model, "p", temperature, logits=False)
    scaled, other = run(model, x)
    assert scaled == pytest.approx(apply_temperature(plain.astype(np.float64), temperature), abs=1e-5)
    assert (scaled.argmax(axis=1) == plain.argmax(axis=1)).all()
    assert other == pytest.approx(-plain)  # what the graph reads itself stays


def test_logits_are_divided() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model = graph_of("Identity", 3)
    add_temperature(model, "p", 2.0, logits=True)
    assert run(model, x)[0] == pytest.approx(x / 2)


def test_a_single_probability_is_that_of_the_second_class() -> None:
    x = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32) * 3
    plain, _ = run(graph_of("Sigmoid", 1), x)
    model = graph_of("Sigmoid", 1)
    add_temperature(model, "p", 2.5, logits=False)
    both = np.hstack([1 - plain, plain]).astype(np.float64)
    assert run(model, x)[0][:, 0] == pytest.approx(apply_temperature(both, 2.5)[:, 1], abs=1e-5)


def test_half_precision_stays_half(recwarn: pytest.WarningsRecorder) -> None:
    x = (np.random.default_rng(0).normal(size=(20, 3)) * 20).astype(np.float16)
    model = graph_of("Softmax", 3, TensorProto.FLOAT16)
    add_temperature(model, "p", 2.0, logits=False)
    [scaled, _] = run(model, x)
    assert scaled.dtype == np.float16
    assert np.isfinite(scaled).all()
    assert scaled.sum(axis=1) == pytest.approx(np.ones(20), abs=0.01)
