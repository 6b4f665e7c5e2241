"""Self-attention, however exporters spell it out, as one operator; its three products as one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from fairway.core.tensors import Tensor
from fairway.optimization.rewrites.base import Rewriting

MICROSOFT = "com.microsoft"
_SPLIT, _TURNED = [0, 2, 1, 3], [0, 2, 3, 1]


class _Branch(msgspec.Struct):
    """Query, key or value: a tensor ``[batch, tokens, heads * size]``, and the factor it is multiplied by."""

    source: str
    heads: int
    size: int
    factor: float


class _Found(msgspec.Struct):
    query: _Branch
    key: _Branch
    value: _Branch
    bias: str
    nodes: list[Any]
    output: str


def fuse_attention(graph: Rewriting) -> int:
    """Replace every attention that is found by ``MultiHeadAttention``; returns how many.

    Looked for is ``softmax(scale * Q K^T + bias) V`` on heads split off by reshaping and transposing. Where query, key
    and value are products of one tensor with constant weights, these become one product.
    """
    fused = 0
    for name in [node.output[0] for node in graph.graph.node if node.op_type == "Softmax"]:
        if found := _match(graph, graph.maker[name]):
            _write(graph, found)
            fused += 1
    if fused:
        graph.require_domain(MICROSOFT)
        graph.sweep()
    return fused


def _match(graph: Rewriting, softmax: Any) -> _Found | None:
    if graph.attribute(softmax, "axis", -1) not in (-1, 3) or not graph.alone(softmax.output[0]):
        return None
    (mixed,) = graph.readers[softmax.output[0]]
    if mixed.op_type != "MatMul" or mixed.input[0] != softmax.output[0] or not graph.alone(mixed.output[0]):
        return None
    scores, bias, factor = _scores(graph, softmax.input[0])
    value = _branch(graph, mixed.input[1], turned=False)
    if scores is None or value is None:
        return None
    query, key = _branch(graph, scores.input[0], turned=False), _branch(graph, scores.input[1], turned=True)
    (back,) = graph.readers[mixed.output[0]]
    if query is None or key is None or back.op_type != "Transpose" or graph.attribute(back, "perm") != _SPLIT:
        return None
    if not graph.alone(back.output[0]) or len({b.heads for b in (query, key, value)}) != 1 or value.factor != 1.0:
        return None
    (joined,) = graph.readers[back.output[0]]
    shape = _target(graph, joined.input[1]) if joined.op_type == "Reshape" else []
    if shape[-1:] not in ([-1], [value.heads * value.size]):
        return None
    query.factor *= factor
    if len(shape) != 3:  # tokens of all texts in a row: reshaped as before, from [batch, tokens, width]
        return _Found(query, key, value, bias, [softmax, mixed, back], back.output[0])
    return _Found(query, key, value, bias, [softmax, mixed, back, joined], joined.output[0])


def _scores(graph: Rewriting, name: str) -> tuple[Any, str, float]:
    """The product of query and key behind ``name``, what is added to it, and what it is multiplied by."""
    bias, factor = "", 1.0
    if added := graph.made_by(name, "Add"):
        for scores, other in ((0, 1), (1, 0)):
            if graph.made_by(added.input[scores], "MatMul", "Mul", "Div") and graph.alone(added.input[scores]):
                name, bias = added.input[scores], added.input[other]
                break
        else:
            return None, "", 1.0
    if (scaled := graph.made_by(name, "Mul", "Div")) and graph.alone(name):
        found = _scaled(graph, scaled)
        if found is None:
            return None, "", 1.0
        name, factor = found
    product = graph.made_by(name, "MatMul")
    return (product, bias, factor) if product and graph.alone(name) else (None, "", 1.0)


def _scaled(graph: Rewriting, node: Any) -> tuple[str, float] | None:
    """What is multiplied by or divided by one constant number, and the factor."""
    for inside, other in ((0, 1), (1, 0)):
        number = graph.value(node.input[other])
        if number is not None and number.size == 1 and (node.op_type == "Mul" or inside == 0):
            value = float(number.reshape(()))
            return node.input[inside], value if node.op_type == "Mul" else 1.0 / value
    return None


def _branch(graph: Rewriting, name: str, *, turned: bool) -> _Branch | None:
    """Back from ``[batch, heads, tokens, size]`` (``turned``: the last two changed places) to where heads were split off."""
    factor = 1.0
    while node := graph.made_by(name, "Mul", "Div"):
        found = _scaled(graph, node)
        if found is None:
            return None
        name, factor = found[0], factor * found[1]
    node = graph.made_by(name, "Transpose")
    if node is None:
        return None
    perm = list(graph.attribute(node, "perm", ()))
    if turned and perm == [0, 1, 3, 2]:
        return _scale(_branch(graph, node.input[0], turned=False), factor)
    split = graph.made_by(node.input[0], "Reshape")
    if perm != (_TURNED if turned else _SPLIT) or split is None:
        return None
    shape = _target(graph, split.input[1])
    if len(shape) != 4 or shape[3] is None or shape[3] < 1:
        return None
    width = _width(graph, split.input[0])
    heads = shape[2] if shape[2] and shape[2] > 0 else (width // shape[3] if width else None)
    if not heads or (width and width != heads * shape[3]):
        return None
    return _Branch(split.input[0], heads, shape[3], factor)


def _scale(branch: _Branch | None, factor: float) -> _Branch | None:
    return None if branch is None else msgspec.structs.replace(branch, factor=branch.factor * factor)


def _target(graph: Rewriting, name: str) -> list[int | None]:
    """The shape that a ``Reshape`` is given; ``None`` where it depends on the input."""
    constant = graph.value(name)
    if constant is not None:
        return [int(size) for size in constant]
    node = graph.made_by(name, "Concat")
    if node is None:
        return []
    sizes: list[int | None] = []
    for part in node.input:
        known = graph.value(part)
        if known is not None:
            sizes += [int(size) for size in known.reshape(-1)]
        else:
            sizes.append(None)
    return sizes


def _width(graph: Rewriting, name: str) -> int | None:
    """The size of the last axis, where a product with constant weights makes it."""
    if node := graph.made_by(name, "Add"):
        widths = [
            value.shape[-1] for part in node.input if (value := graph.value(part)) is not None and value.ndim == 1
        ]
        return widths[0] if widths else None
    if node := graph.made_by(name, "MatMul"):
        weights = graph.value(node.input[1])
        return None if weights is None else weights.shape[-1]
    if node := graph.made_by(name, "Split"):
        if len(node.input) > 1 and (sizes := graph.value(node.input[1])) is not None:
            return int(sizes[list(node.output).index(name)])
        if whole := _width(graph, node.input[0]):
            return whole // len(node.output)
    if node := graph.made_by(name, "Reshape"):
        last = _target(graph, node.input[1])[-1:]
        return last[0] if last and last[0] and last[0] > 0 else None
    return None


def _write(graph: Rewriting, found: _Found) -> None:
    branches = (found.query, found.key, found.value)
    new: list[Any] = []
    parts = [_linear(graph, branch.source) for branch in branches]
    if all(part is not None for part in parts) and len({part[0] for part in parts if part}) == 1:
        names = _packed(graph, [part for part in parts if part], new)
    else:
        names = [branch.source for branch in branches]
    attention = graph.node(
        "MultiHeadAttention",
        [*names, "", "", *([found.bias] if found.bias else [])],
        [found.output],
        MICROSOFT,
        num_heads=found.query.heads,
        scale=found.query.factor * found.key.factor,
    )
    graph.replace(found.nodes, {found.output: [*new, attention]})
    for noted in [v for v in graph.graph.value_info if v.name == found.output]:
        graph.graph.value_info.remove(noted)  # its shape may be another now


def _linear(graph: Rewriting, name: str) -> tuple[str, Tensor, Tensor] | None:
    """Input, weights and bias of the product that makes ``name``."""
    bias: Tensor | None = None
    if node := graph.made_by(name, "Add"):
        for inside, other in ((0, 1), (1, 0)):
            value = graph.value(node.input[other])
            if value is not None and value.ndim == 1 and graph.alone(node.input[inside]):
                name, bias = node.input[inside], value
    product = graph.made_by(name, "MatMul")
    weights = None if product is None else graph.value(product.input[1])
    if weights is None or weights.ndim != 2:
        return None
    return product.input[0], weights, np.zeros(weights.shape[1], weights.dtype) if bias is None else bias


def _packed(graph: Rewriting, parts: list[tuple[str, Tensor, Tensor]], new: list[Any]) -> list[str]:
    """One product in place of three, and its three parts."""
    weights = graph.constant(np.concatenate([weights for _, weights, _ in parts], axis=1), "qkv_weight")
    bias = graph.constant(np.concatenate([bias for _, _, bias in parts]), "qkv_bias")
    sizes = graph.constant(np.array([bias.size for _, _, bias in parts], np.int64), "qkv_sizes")
    product, added = graph.name("qkv"), graph.name("qkv")
    names = [graph.name(part) for part in ("query", "key", "value")]
    new += [
        graph.node("MatMul", [parts[0][0], weights], [product]),
        graph.node("Add", [product, bias], [added]),
        graph.node("Split", [added, sizes], names, axis=-1),
    ]
    return names
