"""Dynamic int8 quantization: weights offline, activations by each call's own range."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.graphs import external_files, operators, structure
from fairway.optimization.passes.base import NothingToDo, Pass, Sample
from fairway.optimization.passes.integers import FLOAT, WEIGHTS
from fairway.optimization.quiet import quiet

OPERATORS = ("Attention", "Gather", "Gemm", "LSTM", "MatMul")
"""Where int8 saves time, or room: tables of embeddings. Dynamic convolutions have no fast kernel in ONNX Runtime."""


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], _: Sample) -> None:
    if not {name for _, name in operators(source)} & set(OPERATORS):
        raise NothingToDo(f"the graph has no {', '.join(OPERATORS)} whose weights could be int8")
    require("onnx", extra="optimize")
    with quiet(destination.parent):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source,
            destination,
            op_types_to_quantize=list(OPERATORS),
            per_channel=parameters["per_channel"],
            reduce_range=parameters["reduce_range"],
            weight_type=QuantType.QInt8,
            extra_options=FLOAT,
            use_external_data_format=bool(external_files(source)),
        )
    if structure(source) == structure(destination):
        raise NothingToDo("no matrix product has constant weights")


PASS = Pass(
    name="int8-dynamic",
    summary="int8 weights, activations scaled call by call",
    lossless=False,
    independent_rows=False,
    apply=_apply,
    changes=frozenset({"graph", "weights"}),
    parameters={**WEIGHTS},
)
