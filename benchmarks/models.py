"""Models of realistic size and random weights: what they answer means nothing, what they cost is real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.manifest import EngineSpec, Manifest
from fairway.core.tensors import Datatype, TensorSpec

CLASSES = 1000
TOKENS = 64


class _Graph:
    """Collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(0)

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Normal, so scaled that sums keep about the variance of their terms."""
        deviation = scale if scale is not None else float(np.prod(shape[1:] if len(shape) == 4 else shape[:1])) ** -0.5
        return self.constant(self._random.normal(0, deviation, shape).astype(np.float32))

    def constant(self, value: ArrayLike) -> str:
        name = f"w_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def bundle(self, path: Path, name: str, spec: TensorSpec, output: str, width: int, max_batch: int) -> Bundle:
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        proto = {Datatype.FP32: TensorProto.FLOAT, Datatype.INT64: TensorProto.INT64}[spec.datatype]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(spec.name, proto, [None if size == -1 else size for size in spec.shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, width])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        outputs = (TensorSpec("y", Datatype.FP32, (-1, width)),)
        engine = EngineSpec(max_batch=max_batch)
        manifest = Manifest(name=name, task="embedding", inputs=(spec,), outputs=outputs, files={}, engine=engine)
        return write_bundle(path, manifest, {"model.onnx": model.SerializeToString()})


def vision_bundle(path: Path) -> Bundle:
    """ResNet-50's shape (He, Zhang, Ren, Sun 2016), normalization folded: images FP32 [-1, 3, 224, 224] to [-1, 1000]."""
    g = _Graph()

    def conv(x: str, inside: int, outside: int, size: int, stride: int = 1) -> str:
        weights = [x, g.weight(outside, inside, size, size), g.weight(outside, scale=0.01)]
        return g.node("Conv", weights, kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4)

    def block(x: str, inside: int, middle: int, stride: int) -> str:
        y = g.node("Relu", [conv(x, inside, middle, 1)])
        y = g.node("Relu", [conv(y, middle, middle, 3, stride)])
        y = conv(y, middle, 4 * middle, 1)
        shortcut = conv(x, inside, 4 * middle, 1, stride) if inside != 4 * middle else x
        return g.node("Relu", [g.node("Add", [y, shortcut])])

    x = g.node("Relu", [conv("x", 3, 64, 7, 2)])
    x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inside = 64
    for middle, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(blocks):
            x = block(x, inside, middle, 2 if number == 0 and middle > 64 else 1)
            inside = 4 * middle
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])])
    y = g.node("Gemm", [x, g.weight(inside, CLASSES), g.weight(CLASSES, scale=0.01)])
    return g.bundle(path, "vision", TensorSpec("x", Datatype.FP32, (-1, 3, 224, 224)), y, CLASSES, max_batch=8)


def text_bundle(path: Path, *, layers: int = 6, width: int = 384, heads: int = 12, vocabulary: int = 30522) -> Bundle:
    """BERT's shape (Devlin et al. 2019), of 6 layers of 384: ``x`` INT64 tokens [-1, 64] to ``y``, the mean, FP32 [-1, 384]."""
    g = _Graph()
    each = width // heads

    def dense(x: str, inside: int, outside: int) -> str:
        return g.node("Add", [g.node("MatMul", [x, g.weight(inside, outside)]), g.weight(outside, scale=0.01)])

    def norm(x: str) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return g.node("LayerNormalization", [x, g.constant(ones), g.constant(zeros)], axis=-1, epsilon=1e-12)

    def gelu(x: str) -> str:
        root, half, one = (g.constant(np.float32(value)) for value in (2**-0.5, 0.5, 1.0))
        error = g.node("Add", [g.node("Erf", [g.node("Mul", [x, root])]), one])
        return g.node("Mul", [g.node("Mul", [x, error]), half])

    split = g.constant(np.array([0, TOKENS, heads, each]))
    joined = g.constant(np.array([0, TOKENS, width]))
    scale = g.constant(np.float32(each**-0.5))
    x = g.node("Gather", [g.weight(vocabulary, width, scale=0.02), "x"])
    x = norm(g.node("Add", [x, g.weight(TOKENS, width, scale=0.02)]))
    for _ in range(layers):
        q, k, v = (g.node("Reshape", [dense(x, width, width), split]) for _ in range(3))
        q = g.node("Transpose", [q], perm=[0, 2, 1, 3])
        k = g.node("Transpose", [k], perm=[0, 2, 3, 1])
        v = g.node("Transpose", [v], perm=[0, 2, 1, 3])
        weights = g.node("Softmax", [g.node("Mul", [g.node("MatMul", [q, k]), scale])], axis=-1)
        mixed = g.node("Transpose", [g.node("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        x = norm(g.node("Add", [x, dense(g.node("Reshape", [mixed, joined]), width, width)]))
        x = norm(g.node("Add", [x, dense(gelu(dense(x, width, 4 * width)), 4 * width, width)]))
    y = g.node("ReduceMean", [x], axes=[1], keepdims=0)
    return g.bundle(path, "text", TensorSpec("x", Datatype.INT64, (-1, TOKENS)), y, width, max_batch=16)
