"""ONNX graph files: which files make one, its digest, its shape, and whether two answer alike."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.bundle.format import file_digest
from fairway.core.extras import require
from fairway.core.manifest import EngineSpec
from fairway.core.mapping import cores
from fairway.core.tensors import TensorSpec, is_float
from fairway.engines.base import Engine, load_engine
from fairway.optimization.passes.base import Sample

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How far a lossless pass may move an output: float rounding in another order."""


def load(path: Path, *, data: bool = False) -> Any:
    """The graph as a protobuf, its external data left alone unless ``data``."""
    return require("onnx", extra="optimize").load(path, load_external_data=data)


def external_files(path: Path) -> tuple[str, ...]:
    """Names, relative to the graph's directory, of the files that hold its large tensors; an exported program has none."""
    if path.suffix == ".pt2":
        return ()
    found = {
        entry.value for tensor in _tensors(load(path)) for entry in tensor.external_data if entry.key == "location"
    }
    return tuple(sorted(found))


def graph_digest(path: Path) -> str:
    """``sha256:`` and the digest of the graph file, and of its external data if it has any."""
    names = external_files(path)
    if not names:
        return "sha256:" + file_digest(path)
    lines = [f"{name} {file_digest(path.parent / name)}" for name in (path.name, *names)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def copy_graph(source: Path, destination: Path) -> None:
    """Copy a graph and its external data."""
    for name in external_files(source):
        target = destination.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / name, target)
    shutil.copyfile(source, destination)


def structure(path: Path) -> Counter[Any]:
    """How many nodes of each operator and tensors of each type and shape: equal means that nothing was changed."""
    model = load(path)
    tensors = ((tensor.data_type, *tensor.dims) for tensor in _tensors(model))
    return Counter([*((node.domain, node.op_type) for node in _nodes(model.graph)), *tensors])


def operators(path: Path) -> set[tuple[str, str]]:
    """Domains and names of the operators used."""
    return {(node.domain, node.op_type) for node in _nodes(load(path).graph)}


def fixed_inputs(path: Path, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """``specs`` with the sizes that the graph has fixed of its inputs, by name."""
    sizes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in load(path).graph.input}
    return tuple(
        msgspec.structs.replace(
            spec, shape=tuple(size or open_ for size, open_ in zip(sizes[spec.name], spec.shape, strict=True))
        )
        if spec.name in sizes
        else spec
        for spec in specs
    )


def tidy(model: Any) -> None:
    """Drop imports of operator sets that no node uses, so that other engines need not know them."""
    used = {node.domain for node in _nodes(model.graph)} | {node.domain for f in model.functions for node in f.node}
    used |= {function.domain for function in model.functions} | {""}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    kept = [(domain, versions[domain]) for domain in sorted(versions) if domain in used]
    del model.opset_import[:]
    for domain, version in kept:
        model.opset_import.add(domain=domain, version=version)


def save(model: Any, path: Path) -> None:
    """Write a protobuf whose external data, if any, already lies beside ``path``; the same graph gives the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def save_data(model: Any, path: Path, external: bool) -> None:
    """Write a protobuf that holds all of its data: in the file itself, or in one file beside it if ``external``."""
    onnx = require("onnx", extra="optimize")
    tidy(model)
    if external:
        name, convert = f"{path.name}.data", onnx.external_data_helper.convert_model_to_external_data
        convert(model, all_tensors_to_one_file=True, location=name, size_threshold=64)
        onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    save(model, path)


def largest_difference(
    before: Path, after: Path, sample: Sample, engines: tuple[EngineSpec, EngineSpec] = (EngineSpec(), EngineSpec())
) -> str:
    """Which output of ``after`` leaves the tolerance around ``before`` most, and by how much; empty if none does.

    ``engines`` are those that run the one and the other.
    """
    return _difference(_load(before, engines[0]), _load(after, engines[1]), sample)


def _load(path: Path, spec: EngineSpec) -> Engine:
    return load_engine(msgspec.structs.replace(spec, file=path.name, threads=cores()), path.parent)


def _difference(before: Engine, after: Engine, sample: Sample) -> str:
    try:
        names = [tuple((spec.name, spec.datatype) for spec in engine.outputs) for engine in (before, after)]
        if names[0] != names[1]:
            return f"its outputs are {names[1]} instead of {names[0]}"
        return _compare(before, after, sample)
    finally:
        for engine in (before, after):
            engine.close()


def _compare(before: Engine, after: Engine, sample: Sample) -> str:
    worst, message = 0.0, ""
    for feed in sample.batches():
        expected, got = before.infer(feed), after.infer(feed)
        for name, want in expected.items():
            have = got[name]
            if not is_float(want) or have.shape != want.shape:
                if not np.array_equal(want, have):
                    return f"output {name!r} differs"
                continue
            old, new = want.astype(np.float64), have.astype(np.float64)
            gap = np.abs(new - old) - RELATIVE * np.abs(old)
            excess = float(np.max(np.where(np.isfinite(old) | np.isfinite(new), gap, 0.0), initial=0.0))
            if not excess <= max(worst, ABSOLUTE):
                worst, message = excess, f"output {name!r} differs by {excess:.2g} more than rounding explains"
    return message


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of the graph and its subgraphs and functions."""
    yield from _initializers(model.graph)
    for node in [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _initializers(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _initializers(inner)
