"""Look at and tidy an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

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
