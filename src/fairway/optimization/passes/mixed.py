"""Static int8 quantization, but for the products and convolutions whose rounding harms the answers most."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.tensors import Tensor
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.graphs import load
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample
from fairway.optimization.passes.integers import CALIBRATION, WEIGHTS
from fairway.optimization.passes.static import OPERATORS, quantize
from fairway.optimization.rewrites.base import Rewriting

_ROWS = 64
"""Rows that a node's harm is measured on."""


def keep_float(harm: Mapping[str, float], work: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Which nodes stay float: those that harm most for their work, as long as they are within ``share`` of all work.

    Examples
    --------
    >>> keep_float({"a": 0.5, "b": 0.1, "c": 0.4}, {"a": 10, "b": 10, "c": 80}, 0.2)
    ('a', 'b')
    """
    left, kept = share * sum(work.values()), list[str]()
    for name in sorted(harm, key=lambda name: (-harm[name] / max(work[name], 1.0), name)):
        if work[name] <= left and harm[name] > 0:
            left -= work[name]
            kept.append(name)
    return tuple(kept)


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    rows = Sample({k: v[:_ROWS] for k, v in sample.feed.items()}, min(sample.rows, _ROWS), sample.batch)
    work = _work(source)
    if len(work) < 2:
        raise NothingToDo("there are no two products or convolutions to choose between")
    wanted = _answers(source, rows)
    harm: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix=".mixed.", dir=destination.parent) as folder:
        ranges = Path(folder) / "ranges.json"
        for name in work:
            tried = Path(folder) / "tried.onnx"
            quantize(source, tried, parameters, rows, only=(name,), ranges=ranges)
            harm[name] = _distance(wanted, _answers(tried, rows))
    floats = keep_float(harm, work, parameters["float_share"])
    quantize(source, destination, parameters, sample, floats=floats)


def _work(source: Path) -> dict[str, float]:
    """Weights of every node that can be int8, by its name: of products, that is proportional to their time."""
    graph = Rewriting(load(source, data=True))
    found: dict[str, float] = {}
    for node in graph.graph.node:
        if node.op_type in OPERATORS and node.name and len(node.input) > 1:
            weights = graph.value(node.input[1])
            if weights is not None and weights.ndim > 1:
                found[node.name] = float(weights.size)
    return found


def _answers(graph: Path, sample: Sample) -> list[Tensor]:
    engine = OnnxRuntimeEngine(graph)
    try:
        batches = [engine.infer(feed) for feed in sample.batches()]
    finally:
        engine.close()
    return [
        np.concatenate([np.asarray(batch[spec.name]) for batch in batches])
        for spec in engine.outputs
        if spec.datatype.is_float
    ]


def _distance(wanted: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Mean squared error in units of each output's own variance."""
    pairs = zip(wanted, got, strict=True)
    return float(np.mean([np.mean((w - g) ** 2, dtype=np.float64) / max(float(np.var(w)), 1e-12) for w, g in pairs]))


PASS = Pass(
    name="int8-mixed",
    summary="int8 weights and activations, but for those that harm most",
    lossless=False,
    apply=_apply,
    needs=Needs(data=True),
    changes=frozenset({"graph", "weights"}),
    parameters={
        **WEIGHTS,
        **CALIBRATION,
        "float_share": Parameter("of the weights, at most, that stay float", 0.1, low=0.01, high=0.6),
    },
)
