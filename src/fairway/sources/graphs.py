"""Look at and tidy an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.extras import require
from fairway.core.manifest import EngineSpec
from fairway.core.tensors import TensorSpec


def tidy_graph(path: Path, rename: Mapping[str, str] | None = None) -> None:
    """Rename outputs, and drop what an exporter notes about the machine it ran on (stack traces hold its paths)."""
    onnx = require("onnx", extra="optimize")
    model = onnx.load(path, load_external_data=False)
    tidy_model(model, rename or {})
    onnx.save(model, path)


def tidy_model(model: Any, rename: Mapping[str, str]) -> None:
    """Do as :func:`tidy_graph`, in place on a ``ModelProto``."""
    names = {**rename, **_make_room(model.graph, rename)}
    for graph in _graphs(model.graph):
        _rename(graph, names)
        for noted in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            noted.ClearField("doc_string")
            noted.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.ClearField("metadata_props")


def add_temperature(model: Any, output: str, temperature: float, *, logits: bool) -> None:
    """Let an output of a ``ModelProto`` be ``softmax(log(p) / temperature)`` of what it was, in place; of logits, the quotient.

    A single probability per row, that of the second of two classes, is scaled likewise. Elements keep their type and shape.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017, sec. 4.2.
    """
    onnx = require("onnx", extra="optimize")
    helper, graph = onnx.helper, model.graph
    kind = next(value for value in graph.output if value.name == output).type.tensor_type
    used = {name for part in _graphs(graph) for node in part.node for name in (*node.input, *node.output)}
    used |= {tensor.name for part in _graphs(graph) for tensor in part.initializer}

    def fresh(name: str) -> str:
        made = (f"{output}_{name}{suffix}" for suffix in chain([""], (f"_{i}" for i in count(1))))
        return next(one for one in made if one not in used)

    def constant(name: str, value: float) -> str:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, dtype), fresh(name)))
        return fresh(name)

    before = fresh("unscaled")
    for part in _graphs(graph):
        _rename_inner(part, output, before)
    divisor = constant("temperature", temperature)
    if logits:
        graph.node.append(helper.make_node("Div", [before, divisor], [output]))
        return
    half = kind.elem_type == onnx.TensorProto.FLOAT16
    floor = constant("floor", 6e-8 if half else 1e-12)
    single = len(kind.shape.dim) < 2 or kind.shape.dim[-1].dim_value == 1
    names = [fresh(name) for name in ("floored", "log", "scaled")]
    nodes = [("Max", [before, floor], names[0]), ("Log", [names[0]], names[1])]
    odds = names[1]
    if single:
        one = constant("one", 1.0)
        rest = [fresh(name) for name in ("rest", "rest_floored", "rest_log", "odds")]
        nodes += [
            ("Sub", [one, before], rest[0]),
            ("Max", [rest[0], floor], rest[1]),
            ("Log", [rest[1]], rest[2]),
            ("Sub", [names[1], rest[2]], rest[3]),
        ]
        odds = rest[3]
    nodes.append(("Div", [odds, divisor], names[2]))
    graph.node.extend(helper.make_node(operator, given, [made]) for operator, given, made in nodes)
    last = {"axis": len(kind.shape.dim) - 1}
    graph.node.append(
        helper.make_node("Sigmoid" if single else "Softmax", [names[2]], [output], **({} if single else last))
    )


def keep_outputs(model: Any, kept: int) -> None:
    """Keep the first ``kept`` outputs of a ``ModelProto``."""
    del model.graph.output[kept:]


def tensors_of(graph: Any) -> Iterator[Any]:
    """Every constant tensor of a ``GraphProto``, those of inner graphs too."""
    for part in _graphs(graph):
        yield from part.initializer
        for node in part.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)


def batches(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> bool:
    """Whether every tensor's first axis is free, and so can be rows."""
    return all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))


def engine_for(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> EngineSpec:
    """The engine's tuning that the shapes demand."""
    return EngineSpec() if batches(inputs, outputs) else EngineSpec(batching=False, max_batch=1)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _rename_inner(graph: Any, old: str, new: str) -> None:
    """Rename a value where it is made and read; outputs and inputs of the graph keep their names."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _make_room(graph: Any, rename: Mapping[str, str]) -> dict[str, str]:
    """Other names for inner values that are called what an output is to be called."""
    used = {name for part in _graphs(graph) for node in part.node for name in (*node.input, *node.output)}
    used |= {tensor.name for part in _graphs(graph) for tensor in part.initializer}
    moved: dict[str, str] = {}
    for old, new in rename.items():
        if new != old and new in used and new not in rename:
            moved[new] = next(name for name in (f"{new}_{i}" for i in count(1)) if name not in used)
    return moved


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info, *graph.input, *graph.initializer):
        value.name = names.get(value.name, value.name)
