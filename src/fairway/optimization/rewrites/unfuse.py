"""Attention in one operator, written out in the standard's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.optimization.rewrites.attention import MICROSOFT
from fairway.optimization.rewrites.base import Rewriting


def unfuse_attention(graph: Rewriting) -> int:
    """Write every ``MultiHeadAttention`` that has no state and no mask of its own kind out; returns how many."""
    found = [node for node in graph.graph.node if node.domain == MICROSOFT and node.op_type == "MultiHeadAttention"]
    new = {node.output[0]: _written(graph, node) for node in found if _plain(graph, node)}
    graph.replace([node for node in found if node.output[0] in new], new)
    return len(new)


def _plain(graph: Rewriting, node: Any) -> bool:
    """Query, key, value and at most what is added to the scores: no past, no present, not causal."""
    given = [bool(name) for name in node.input]
    known = {"num_heads", "scale", "mask_filter_value"}
    return (
        len(given) >= 3
        and all(given[:3])
        and not any(given[3:5])
        and not any(given[6:])
        and not any(node.output[1:])
        and {attribute.name for attribute in node.attribute} <= known
        and graph.attribute(node, "scale") is not None
    )


def _written(graph: Rewriting, node: Any) -> list[Any]:
    heads, scale = graph.attribute(node, "num_heads"), graph.attribute(node, "scale")
    apart = graph.constant(np.array([0, 0, heads, -1], np.int64), "heads")
    together = graph.constant(np.array([0, 0, -1], np.int64), "joined")
    factor = graph.constant(np.array(scale, np.float32), "scale")
    names = {part: graph.name(part) for part in ("products", "scores", "masked", "shares", "mixed", "turned")}
    nodes: list[Any] = []
    turned: list[str] = []
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        split, by_head = graph.name(f"{part}_heads"), graph.name(f"{part}_turned")
        nodes.append(graph.node("Reshape", [node.input[len(turned)], apart], [split]))
        nodes.append(graph.node("Transpose", [split], [by_head], perm=order))
        turned.append(by_head)
    query, key, value = turned
    nodes.append(graph.node("MatMul", [query, key], [names["products"]]))
    nodes.append(graph.node("Mul", [names["products"], factor], [names["scores"]]))
    scores = names["scores"]
    if len(node.input) > 5 and node.input[5]:
        nodes.append(graph.node("Add", [scores, node.input[5]], [names["masked"]]))
        scores = names["masked"]
    return [
        *nodes,
        graph.node("Softmax", [scores], [names["shares"]], axis=-1),
        graph.node("MatMul", [names["shares"], value], [names["mixed"]]),
        graph.node("Transpose", [names["mixed"]], [names["turned"]], perm=[0, 2, 1, 3]),
        graph.node("Reshape", [names["turned"], together], [node.output[0]]),
    ]
