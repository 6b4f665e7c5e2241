"""Outliers moved from activations into weights, so that both fit into int8.

Xiao, Lin, Seznec, Wu, Demouth, Han 2023, "SmoothQuant: Accurate and efficient post-training quantization for large language
models", ICML, eq. 4. The numbers stay what they were: what a channel is divided by, its weights are multiplied by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.tensors import Tensor
from fairway.optimization.graphs import external_files, load, save_data
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample
from fairway.optimization.rewrites.activations import watch
from fairway.optimization.rewrites.base import Rewriting

_LEAST = 1e-5


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    model = load(source, data=True)
    graph = Rewriting(model)
    products = _products(graph)
    if not products:
        raise NothingToDo("the graph has no product with constant weights")
    names = sorted(products)
    largest: dict[str, Tensor] = {}
    for arrays in watch(source, names, sample):
        for name, array in zip(names, arrays, strict=True):
            found = np.abs(array.reshape(-1, array.shape[-1])).max(axis=0)
            largest[name] = np.maximum(largest[name], found) if name in largest else found
    new: dict[str, list[Any]] = {}
    for name in names:
        _smooth(graph, name, products[name], largest[name], parameters["strength"], new)
    graph.replace([], new)
    graph.sweep()
    save_data(model, destination, bool(external_files(source)))


def _products(graph: Rewriting) -> dict[str, list[Any]]:
    """Products with constant weights, by the activation that they read."""
    found: dict[str, list[Any]] = defaultdict(list)
    for node in graph.graph.node:
        if node.op_type == "MatMul" and not node.domain and node.input[0] not in graph.constants:
            weights = graph.value(node.input[1])
            if weights is not None and weights.ndim == 2 and weights.dtype == np.float32:
                found[node.input[0]].append(node)
    return found


def _smooth(
    graph: Rewriting, name: str, nodes: list[Any], largest: Tensor, strength: float, new: dict[str, list[Any]]
) -> None:
    weights = [np.asarray(graph.value(node.input[1])) for node in nodes]
    heaviest = np.max([np.abs(w).max(axis=1) for w in weights], axis=0)
    by = np.maximum(largest, _LEAST) ** strength / np.maximum(heaviest, _LEAST) ** (1 - strength)
    by = (by / np.exp(np.log(by).mean())).astype(np.float32)
    for node, before in zip(nodes, weights, strict=True):
        node.input[1] = graph.constant(before * by[:, None], "smoothed")
    norm = graph.made_by(name, "LayerNormalization")
    if norm is not None and len(graph.readers[name]) == len(nodes) and name not in graph.kept:
        scaled = [graph.value(each) for each in norm.input[1:]]
        if all(value is not None for value in scaled):  # before the products of pre-norm transformers: costs nothing
            norm.input[1:] = [
                graph.constant((value / by).astype(np.float32), "smoothed") for value in scaled if value is not None
            ]
            return
    divided = graph.name("smoothed")
    first = next(n for n in graph.graph.node if name in n.input and n.output[0] in {each.output[0] for each in nodes})
    new[first.output[0]] = [graph.node("Mul", [name, graph.constant(1 / by, "smoothing")], [divided])]
    for node in nodes:
        node.input[0] = divided


PASS = Pass(
    name="smooth",
    summary="outliers moved from activations into weights (SmoothQuant)",
    lossless=True,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph", "weights"}),
    parameters={"strength": Parameter("how much is moved: 0 nothing, 1 all", 0.5, low=0.1, high=0.9)},
)
