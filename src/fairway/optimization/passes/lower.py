"""Scikit-learn's linear operators as plain ONNX, which can be fused and quantized, and runs on more engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.extras import require
from fairway.core.tensors import Tensor
from fairway.optimization.graphs import external_files, load, save, tidy
from fairway.optimization.passes.base import NothingToDo, Pass, Sample

_DOMAIN = "ai.onnx.ml"
_OPSET = 13


class _Lowering:
    """Rewrites a graph node by node."""

    def __init__(self, graph: Any) -> None:
        self.onnx = require("onnx", extra="optimize")
        self.graph = graph
        self.nodes: list[Any] = []
        self.lowered = 0
        self.sums_to_one: set[str] = set()
        """Tensors whose rows are probabilities by construction."""
        self._types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
        self._read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
        self._names = self._read | {name for node in graph.node for name in node.output}
        self._names |= {tensor.name for tensor in graph.initializer}

    def run(self) -> None:
        for node in self.graph.node:
            rule = _RULES.get(node.op_type) if node.domain == _DOMAIN else None
            if rule is not None and rule(self, node, self._attributes(node)):
                self.lowered += 1
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], self.name(operator), **attributes))
        return output

    def constant(self, value: Tensor, hint: str) -> str:
        name = self.name(hint)
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def name(self, hint: str) -> str:
        number = 0
        while f"lowered_{hint}_{number}" in self._names:
            number += 1
        self._names.add(f"lowered_{hint}_{number}")
        return f"lowered_{hint}_{number}"

    def as_float(self, tensor: str) -> str:
        floats = self.onnx.TensorProto.FLOAT
        if self._types.get(tensor) == floats:
            return tensor
        return self.add("Cast", [tensor], self.name("float"), to=floats)

    def made_float(self, tensor: str) -> None:
        self._types[tensor] = self.onnx.TensorProto.FLOAT

    def reads(self, tensor: str) -> bool:
        return tensor in self._read

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}


def _scaler(to: _Lowering, node: Any, attributes: dict[str, Any]) -> bool:
    offset, scale = (np.array(attributes.get(key, ()), np.float32) for key in ("offset", "scale"))
    if not offset.size or not scale.size:
        return False
    shifted = to.add("Sub", [to.as_float(node.input[0]), to.constant(offset, "offset")], to.name("shifted"))
    to.add("Mul", [shifted, to.constant(scale, "scale")], node.output[0])
    to.made_float(node.output[0])
    return True


def _regressor(to: _Lowering, node: Any, attributes: dict[str, Any]) -> bool:
    targets = attributes.get("targets", 1)
    if attributes.get("post_transform", b"NONE") != b"NONE" or not attributes.get("coefficients"):
        return False
    bias = attributes.get("intercepts") or [0.0] * targets
    _product(to, node.input[0], attributes["coefficients"], bias, node.output[0])
    to.made_float(node.output[0])
    return True


def _classifier(to: _Lowering, node: Any, attributes: dict[str, Any]) -> bool:
    after = _ACTIVATIONS.get(attributes.get("post_transform", b"NONE"))
    labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or []
    bias = attributes.get("intercepts") or []
    if after is None or len(labels) != len(bias) or len(labels) < 2:
        return False
    answer = node.output[1] if len(node.output) > 1 and node.output[1] else to.name("scores")
    scores = answer if after == "" else to.name("scores")
    _product(to, node.input[0], attributes["coefficients"], bias, scores)
    if after:
        to.add(after, [scores], answer, **({"axis": 1} if after == "Softmax" else {}))
    if after == "Softmax":
        to.sums_to_one.add(answer)
    to.made_float(answer)
    if to.reads(node.output[0]):
        _label(to, scores, labels, node.output[0])
    return True


def _normalizer(to: _Lowering, node: Any, attributes: dict[str, Any]) -> bool:
    """Rows that sum to one are left as they are by the L1 norm."""
    if node.input[0] not in to.sums_to_one or attributes.get("norm") != b"L1":
        return False
    to.add("Identity", [node.input[0]], node.output[0])
    return True


def _product(to: _Lowering, source: str, coefficients: Any, bias: Any, output: str) -> None:
    weights = np.array(coefficients, np.float32).reshape(len(bias), -1).T
    inputs = [to.as_float(source), to.constant(np.ascontiguousarray(weights), "weights")]
    to.add("Gemm", [*inputs, to.constant(np.array(bias, np.float32), "bias")], output)


def _label(to: _Lowering, scores: str, labels: list[Any], output: str) -> None:
    if labels == list(range(len(labels))):
        to.add("ArgMax", [scores], output, axis=1, keepdims=0)
        return
    values = np.array(labels, np.int64) if isinstance(labels[0], int) else np.array(labels, object)
    index = to.add("ArgMax", [scores], to.name("index"), axis=1, keepdims=0)
    to.add("Gather", [to.constant(values, "labels"), index], output, axis=0)


_ACTIVATIONS = {b"NONE": "", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}
_RULES: dict[str, Callable[[_Lowering, Any, dict[str, Any]], bool]] = {
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
    model = load(source)
    linear = {node.op_type for node in model.graph.node if node.domain == _DOMAIN} & set(_RULES)
    if not linear:
        raise NothingToDo("the graph has no linear operator of scikit-learn's")
    if external_files(source):
        raise NothingToDo("the graph keeps its tensors in external files, which this pass does not rewrite")
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if versions and min(versions) < _OPSET:
        raise NothingToDo(f"the graph uses ONNX operator set {min(versions)}; this pass needs {_OPSET}")
    lowering = _Lowering(model.graph)
    lowering.run()
    if not lowering.lowered:
        raise NothingToDo(f"{', '.join(sorted(linear))}: not in a form that plain ONNX has")
    if not versions:
        model.opset_import.add(domain="", version=_OPSET)
    tidy(model)
    save(model, destination)


PASS = Pass(
    name="lower",
    summary="scikit-learn's linear operators as plain ONNX",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
)
