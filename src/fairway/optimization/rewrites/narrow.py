"""Where the answer reads one token's row, compute only that row, as far back as it can be."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from fairway.optimization.rewrites.attention import MICROSOFT
from fairway.optimization.rewrites.base import Rewriting

_ALONE = {
    "Cast",
    "Erf",
    "Gelu",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Tanh",
    "LayerNormalization",
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
}
"""One input with rows, the others constant, and each row by itself."""
_TOGETHER = {"Add", "Div", "Mul", "Pow", "Sub"}


class _Plan(msgspec.Struct):
    index: int
    gather: str
    nodes: set[str] = set()
    """What shall be one row only, by the first output of the node that makes it."""


def narrow(graph: Rewriting) -> int:
    """Move the choice of one token's row (``Gather`` on axis 1) forward; returns how many nodes then see one row.

    Exact: products with constant weights, sums, normalizations and activations work row by row, and of attention only the
    query is narrowed.
    """
    ranks = _ranks(graph)
    for node in graph.graph.node:
        if node.op_type != "Gather" or graph.attribute(node, "axis", 0) != 1 or ranks.get(node.input[0]) != 3:
            continue
        chosen = graph.value(node.input[1])
        if chosen is None or chosen.size != 1 or int(chosen.reshape(())) not in (0, -1):
            continue
        plan = _Plan(int(chosen.reshape(())), node.output[0])
        _collect(graph, plan, ranks)
        if plan.nodes:
            _write(graph, plan, ranks)
            return len(plan.nodes)
    return 0


def _collect(graph: Rewriting, plan: _Plan, ranks: dict[str, int]) -> None:
    """Later nodes come first: a node joins once all that read it have."""
    for node in reversed(graph.graph.node):
        output = node.output[0] if node.output else ""
        read = graph.readers.get(output, [])
        if not read or output in graph.kept or any(name in graph.readers for name in node.output[1:] if name):
            continue
        if _row_inputs(graph, node, ranks) is None or ranks.get(output) != 3:
            continue
        if all(_reads_rows(graph, each, output, ranks, plan) for each in read):
            plan.nodes.add(output)


def _reads_rows(graph: Rewriting, node: Any, name: str, ranks: dict[str, int], plan: _Plan) -> bool:
    """Whether ``node`` is narrowed, and reads ``name`` only as rows of its own answer."""
    made = node.output[0]
    rows = [0] if made == plan.gather else (_row_inputs(graph, node, ranks) or []) if made in plan.nodes else []
    return all(i in rows for i, each in enumerate(node.input) if each == name)


def _row_inputs(graph: Rewriting, node: Any, ranks: dict[str, int]) -> list[int] | None:
    """Which inputs have a row for each row of the answer, or ``None`` if this is no such node."""
    kind, inputs = node.op_type, list(node.input)
    fixed = [i for i, name in enumerate(inputs) if not name or graph.value(name) is not None]
    if kind == "MultiHeadAttention" and node.domain == MICROSOFT:
        return [0] if all(not name for name in inputs[3:5]) and len(inputs) <= 6 else None
    if kind == "MatMul":
        weights = graph.value(inputs[1])
        return [0] if weights is not None and weights.ndim == 2 else None
    if kind == "LayerNormalization" and graph.attribute(node, "axis", -1) not in (-1, 2):
        return None
    if kind in _ALONE:
        return [0] if fixed == list(range(1, len(inputs))) else None
    if kind == "SkipLayerNormalization":
        rows = [0, 1]
        return rows if fixed == list(range(2, len(inputs))) and all(ranks.get(inputs[i]) == 3 for i in rows) else None
    if kind in _TOGETHER:
        if any((value := graph.value(inputs[i])) is not None and value.ndim > 1 and value.size > 1 for i in fixed):
            return None
        rows = [i for i in range(len(inputs)) if i not in fixed]
        return rows if rows and all(ranks.get(inputs[i]) == 3 for i in rows) else None
    return None


def _write(graph: Rewriting, plan: _Plan, ranks: dict[str, int]) -> None:
    """Give every narrowed node rows from narrowed nodes, or choose them where these begin."""
    index = graph.constant(np.array([plan.index], np.int64), "token")
    chosen: dict[tuple[str, int], str] = {}
    new: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        if not node.output or node.output[0] not in plan.nodes:
            continue
        before = new[node.output[0]] = []
        for i in _row_inputs(graph, node, ranks) or []:
            if node.input[i] not in plan.nodes:
                node.input[i] = _choose(graph, node.input[i], 1, index, chosen, before)
        if node.op_type == "MultiHeadAttention":
            _unpack(graph, node, index, chosen, before)
            if len(node.input) > 5 and node.input[5]:
                node.input[5] = _choose(graph, node.input[5], 2, index, chosen, before)
    gather = graph.maker[plan.gather]
    chosen_as = graph.value(gather.input[1])
    if chosen_as is not None and chosen_as.ndim == 0:
        axis = graph.constant(np.array([1], np.int64), "axis")
        new[plan.gather] = [graph.node("Squeeze", [gather.input[0], axis], [plan.gather])]
    else:
        new[plan.gather] = [graph.node("Identity", [gather.input[0]], [plan.gather])]
    for value in [v for v in graph.graph.value_info if v.name in plan.nodes]:
        graph.graph.value_info.remove(value)
    graph.replace([gather], new)
    graph.sweep()


def _choose(
    graph: Rewriting, name: str, axis: int, index: str, chosen: dict[tuple[str, int], str], before: list[Any]
) -> str:
    """The chosen row of ``name``."""
    if (name, axis) not in chosen:
        made = chosen[name, axis] = graph.name("row")
        before.append(graph.node("Gather", [name, index], [made], axis=axis))
    return chosen[name, axis]


def _unpack(graph: Rewriting, node: Any, index: str, chosen: dict[tuple[str, int], str], before: list[Any]) -> None:
    """Where query, key and value are parts of one product: a product of the row, and one of all rows for the others.

    ``node`` already reads the chosen row of the query, that is of the whole product; what is chosen now comes before it.
    """
    row = next((gather for gather in before if gather.output[0] == node.input[0]), None)
    split = None if row is None else graph.made_by(row.input[0], "Split")
    added = None if split is None else graph.made_by(split.input[0], "Add")
    product = None if added is None else graph.made_by(added.input[0], "MatMul")
    if row is None or split is None or added is None or product is None or not graph.alone(split.input[0]):
        return
    weights, bias, sizes = (graph.value(name) for name in (product.input[1], added.input[1], split.input[1]))
    if weights is None or bias is None or sizes is None or list(node.input[:1]) != [row.output[0]]:
        return
    if [row.input[0], *node.input[1:3]] != list(split.output) or any(not graph.alone(n) for n in split.output[1:]):
        return
    before.remove(row)
    first = int(sizes[0])
    seen = _choose(graph, product.input[0], 1, index, chosen, before)
    names = {part: graph.name(part) for part in ("q", "query", "kv", "kv_sum", "key", "value")}
    before += [
        graph.node("MatMul", [seen, graph.constant(weights[:, :first], "q_weight")], [names["q"]]),
        graph.node("Add", [names["q"], graph.constant(bias[:first], "q_bias")], [names["query"]]),
        graph.node("MatMul", [product.input[0], graph.constant(weights[:, first:], "kv_weight")], [names["kv"]]),
        graph.node("Add", [names["kv"], graph.constant(bias[first:], "kv_bias")], [names["kv_sum"]]),
        graph.node(
            "Split", [names["kv_sum"], graph.constant(sizes[1:], "kv_sizes")], [names["key"], names["value"]], axis=-1
        ),
    ]
    node.input[0], node.input[1], node.input[2] = names["query"], names["key"], names["value"]


def _ranks(graph: Rewriting) -> dict[str, int]:
    """How many axes each value has, where that can be told. Fused operators keep their first input's."""
    inferred = graph.onnx.shape_inference.infer_shapes(graph.model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    for node in graph.graph.node:
        known = [ranks.get(name, _rank(graph, name)) for name in node.input if name]
        for name in node.output:
            if name and name not in ranks:
                if node.domain == MICROSOFT or node.op_type in _ALONE or node.op_type in ("MatMul", "Split"):
                    guess = known[0]
                elif node.op_type in _TOGETHER and all(rank is not None for rank in known):
                    guess = max(rank for rank in known if rank is not None)
                else:
                    guess = None
                if guess is not None:
                    ranks[name] = guess
    return ranks


def _rank(graph: Rewriting, name: str) -> int | None:
    value = graph.value(name)
    return None if value is None else value.ndim
