"""Filters, neurons and heads that matter least are left out, and the graph is smaller for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.tensors import Tensor
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.graphs import external_files, load, save_data
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample
from fairway.optimization.rewrites.activations import watch
from fairway.optimization.rewrites.base import Rewriting
from fairway.optimization.rewrites.channels import Group, find_groups
from fairway.optimization.rewrites.prune import channels_kept, cut, most_important

_WIDEST = 8192
"""Mean products of more channels than these would fill memory."""


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    model = load(source, data=True)
    graph = Rewriting(model)
    groups = find_groups(graph)
    counts = [_kept(group, parameters) for group in groups]
    if all(count == group.size for count, group in zip(counts, groups, strict=True)):
        raise NothingToDo("the graph has no filters, neurons or heads that could be left out, or too few of them")
    moments = _moments(source, groups, sample)
    fitted = moments if parameters["refit"] else {}
    chosen = [most_important(graph, group, moments, count) for group, count in zip(groups, counts, strict=True)]
    for group, kept in zip(groups, chosen, strict=True):
        if len(kept) < group.size:
            cut(graph, group, kept, fitted)
    graph.sweep()
    for value in model.graph.value_info:  # types and ranks stay, sizes may not
        for size in value.type.tensor_type.shape.dim:
            size.ClearField("dim_value")
    save_data(model, destination, bool(external_files(source)))
    _check_runs(destination, sample)


def _kept(group: Group, parameters: Mapping[str, Any]) -> int:
    if group.attention:
        return channels_kept(group.size, parameters["heads"], 1)
    return channels_kept(group.size, parameters["share"], parameters["multiple"])


def _moments(source: Path, groups: Sequence[Group], sample: Sample) -> dict[str, Tensor]:
    """Mean products of what is read by products, mean squares of what is read by convolutions."""
    kinds = {slot.node.input[0]: slot.node.op_type for group in groups for slot in group.readers}
    names = sorted(kinds)
    found: dict[str, Any] = dict.fromkeys(names, 0.0)
    batches = 0
    for arrays in watch(source, names, sample):
        batches += 1
        for name, array in zip(names, arrays, strict=True):
            found[name] = found[name] + _moment(array.astype(np.float64), kinds[name])
    return {name: total / batches for name, total in found.items()}


def _moment(array: Tensor, kind: str) -> Any:
    if kind == "Conv":
        return np.square(array).mean(axis=(0, *range(2, array.ndim)))
    rows = array.reshape(-1, array.shape[-1])
    return rows.T @ rows / len(rows) if array.shape[-1] <= _WIDEST else np.square(rows).mean(axis=0)


def _check_runs(path: Path, sample: Sample) -> None:
    """Something that depends on how many heads there are may lie where nobody looked."""
    try:
        engine = OnnxRuntimeEngine(path)
        try:
            engine.infer(next(sample.batches()))
        finally:
            engine.close()
    except Exception as error:
        raise NothingToDo(
            f"the graph needs all of its channels ({type(error).__name__}: {str(error)[:200]})"
        ) from error


PASS = Pass(
    name="prune",
    summary="filters, neurons and heads that matter least are left out",
    lossless=False,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph", "weights"}),
    parameters={
        "share": Parameter("of filters and neurons that go", 0.25, low=0.0, high=0.9),
        "heads": Parameter("share of attention heads that go", 0.25, low=0.0, high=0.9),
        "multiple": Parameter(
            "filters and neurons stay in multiples of this, which is what processors work with", 8, (1, 4, 8, 16, 32)
        ),
        "refit": Parameter(
            "products are fitted again to what they gave before, on reference rows", True, (True, False)
        ),
    },
)
