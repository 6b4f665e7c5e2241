"""Fewer tokens from layer to layer: those that the others look at least are left behind.

Goyal et al. 2020, "PoWER-BERT: Accelerating BERT inference via progressive word-vector elimination", ICML, score tokens so
(and then train the model further, which this does not).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fairway.optimization.rewrites.attention import MICROSOFT
from fairway.optimization.rewrites.base import Rewriting


def layers(graph: Rewriting) -> list[Any]:
    """The attention of each layer that reads its query, key and value from one tensor, first layer first."""
    found = [
        node
        for node in graph.graph.node
        if node.op_type == "MultiHeadAttention" and node.domain == MICROSOFT and len(node.input) in (3, 6)
    ]
    return found if all(hidden(graph, node) for node in found) else []


def hidden(graph: Rewriting, attention: Any) -> str:
    """The tensor that a layer works on, ``[batch, tokens, width]``, or nothing where that cannot be told."""
    split = graph.made_by(attention.input[0], "Split")
    added = None if split is None else graph.made_by(split.input[0], "Add")
    product = None if added is None else graph.made_by(added.input[0], "MatMul")
    return product.input[0] if product is not None and list(split.output) == list(attention.input[:3]) else ""


def drop_tokens(graph: Rewriting, kept: Mapping[int, int]) -> None:
    """Let layer ``i`` and those after it work on ``kept[i]`` tokens, fewer where there are no more; the first always stays."""
    found = layers(graph)
    outputs = [node.output[0] for node in found]
    biases = {node.output[0]: node.input[5] if len(node.input) > 5 else "" for node in found}
    for layer, count in sorted(kept.items()):
        node = graph.maker[outputs[layer]]
        before = graph.maker[outputs[layer - 1]]
        source = hidden(graph, node)
        later = [graph.maker[name] for name in outputs[layer:]]
        bias = biases[outputs[layer - 1]]
        new: list[Any] = []
        row = _row(graph, bias, before, new) if bias else ""
        chosen = _choose(graph, before, row, count, new)
        fewer = graph.name("fewer")
        new.append(graph.node("GatherND", [source, _unsqueezed(graph, chosen, new)], [fewer], batch_dims=1))
        if bias:
            square = _square(graph, row, chosen, new)
            for each in later:
                each.input[5] = square
                biases[each.output[0]] = square
        readers = [each.output[0] for each in graph.readers[source]]
        for each in graph.readers[source]:
            each.input[:] = [fewer if name == source else name for name in each.input]
        first = next(each.output[0] for each in graph.graph.node if each.output[0] in readers)
        graph.replace([], {first: new})
    for noted in graph.graph.value_info:  # sizes hold no longer; how many axes there are does
        for axis in noted.type.tensor_type.shape.dim:
            axis.Clear()


def _const(graph: Rewriting, values: Any) -> str:
    return graph.constant(np.array(values, np.int64), "tokens")


def _unsqueezed(graph: Rewriting, name: str, new: list[Any]) -> str:
    made = graph.name("index")
    new.append(graph.node("Unsqueeze", [name, _const(graph, [-1])], [made]))
    return made


def _row(graph: Rewriting, bias: str, attention: Any, new: list[Any]) -> str:
    """What is added to every query's scores, ``[batch, 1, 1, tokens]``: in an encoder it is the same for all queries."""
    one, shape, batch, size, row = (graph.name("row") for _ in range(5))
    new += [
        graph.node("Gather", [bias, _const(graph, [0])], [one], axis=2),
        graph.node("Shape", [attention.input[0]], [shape]),
        graph.node("Gather", [shape, _const(graph, [0])], [batch], axis=0),
        graph.node("Concat", [batch, _const(graph, [1, 1, 1])], [size], axis=0),
        graph.node("Expand", [one, size], [row]),
    ]
    return row


def _choose(graph: Rewriting, attention: Any, row: str, count: int, new: list[Any]) -> str:
    """The places, ``[batch, count]``, of the tokens that are attended most, the first one before all others."""
    heads = int(graph.attribute(attention, "num_heads"))
    width = graph.value(graph.made_by(graph.made_by(attention.input[0], "Split").input[0], "Add").input[1])
    if width is None:
        raise ValueError("the width of attention is unknown")
    size = width.size // 3 // heads
    scale = np.array(graph.attribute(attention, "scale", 0.0) or size**-0.5, np.float32)
    split = _const(graph, [0, 0, heads, size])
    n = {
        k: graph.name(k) for k in ("q4", "q", "k4", "k", "raw", "scaled", "biased", "looks", "summed", "mean", "first")
    }
    new += [
        graph.node("Reshape", [attention.input[0], split], [n["q4"]]),
        graph.node("Transpose", [n["q4"]], [n["q"]], perm=[0, 2, 1, 3]),
        graph.node("Reshape", [attention.input[1], split], [n["k4"]]),
        graph.node("Transpose", [n["k4"]], [n["k"]], perm=[0, 2, 3, 1]),
        graph.node("MatMul", [n["q"], n["k"]], [n["raw"]]),
        graph.node("Mul", [n["raw"], graph.constant(scale, "scale")], [n["scaled"]]),
    ]
    scores = n["scaled"]
    if row:
        new.append(graph.node("Add", [scores, row], [n["biased"]]))
        scores = n["biased"]
    new.append(graph.node("Softmax", [scores], [n["looks"]], axis=-1))
    if row:  # padding looks at others, too, and is not asked
        asked, turned, weighted = graph.name("asked"), graph.name("asked"), graph.name("asked")
        new += [
            graph.node("Exp", [row], [asked]),
            graph.node("Transpose", [asked], [turned], perm=[0, 1, 3, 2]),
            graph.node("Mul", [n["looks"], turned], [weighted]),
        ]
        n["looks"] = weighted
    axes = _const(graph, [1, 2])
    new.append(graph.node("ReduceSum", [n["looks"], axes], [n["summed"]], keepdims=0))
    shape, tokens, scalar, fewest, places, is_first, extra, best = (graph.name("top") for _ in range(8))
    values, chosen, zero = graph.name("top"), graph.name("chosen"), graph.constant(np.array(0, np.int64), "zero")
    new += [
        graph.node("Shape", [n["summed"]], [shape]),
        graph.node("Gather", [shape, _const(graph, [1])], [tokens], axis=0),
        graph.node("Squeeze", [tokens, _const(graph, [0])], [scalar]),
        graph.node("Min", [tokens, _const(graph, [count])], [fewest]),
        graph.node("Range", [zero, scalar, graph.constant(np.array(1, np.int64), "one")], [places]),
        graph.node("Equal", [places, zero], [is_first]),
        graph.node("Cast", [is_first], [extra], to=graph.onnx.TensorProto.FLOAT),
        graph.node("Mul", [extra, graph.constant(np.array(1e6, np.float32), "always")], [n["first"]]),
        graph.node("Add", [n["summed"], n["first"]], [best]),
        graph.node("TopK", [best, fewest], [values, chosen], axis=-1, largest=1, sorted=1),
    ]
    return chosen


def _square(graph: Rewriting, row: str, chosen: str, new: list[Any]) -> str:
    """What is added to the scores between the chosen tokens, ``[batch, 1, count, count]``."""
    flat, picked, four, shape, batch, count, size, square = (graph.name("bias") for _ in range(8))
    new += [
        graph.node("Squeeze", [row, _const(graph, [1, 2])], [flat]),
        graph.node("GatherElements", [flat, chosen], [picked], axis=1),
        graph.node("Unsqueeze", [picked, _const(graph, [1, 2])], [four]),
        graph.node("Shape", [chosen], [shape]),
        graph.node("Gather", [shape, _const(graph, [0])], [batch], axis=0),
        graph.node("Gather", [shape, _const(graph, [1])], [count], axis=0),
        graph.node("Concat", [batch, _const(graph, [1]), count, count], [size], axis=0),
        graph.node("Expand", [four, size], [square]),
    ]
    return square
