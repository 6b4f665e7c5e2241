"""Static int8 quantization by NNCF: SmoothQuant for transformers, and biases corrected for what rounding shifts."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.graphs import external_files, load, operators, save_data, structure
from fairway.optimization.passes.base import Needs, NothingToDo, Parameter, Pass, Sample
from fairway.optimization.passes.static import OPERATORS
from fairway.optimization.quiet import quiet


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], sample: Sample) -> None:
    known = operators(source)
    if not {name for _, name in known} & set(OPERATORS):
        raise NothingToDo(f"the graph has no {', '.join(OPERATORS)} whose weights could be int8")
    if foreign := sorted({domain for domain, _ in known} - {"", "ai.onnx"}):
        raise NothingToDo(f"NNCF does not know the operators of {', '.join(foreign)}")
    os.environ["NNCF_CI"] = "1"  # else it tells its makers what it is used for
    with quiet(destination.parent):
        nncf = require("nncf", extra="nncf")
        nncf.set_log_level(logging.ERROR)
        batches = [dict(batch) for batch in sample.batches()]
        made = nncf.quantize(
            load(source, data=True),
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if ("", "Softmax") in known and ("", "MatMul") in known else None,
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=True,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE if parameters["reduce_range"] else nncf.OverflowFix.DISABLE,
            ),
        )
    save_data(made, destination, bool(external_files(source)))
    if structure(source) == structure(destination):
        raise NothingToDo("NNCF found nothing to quantize")


PASS = Pass(
    name="int8-nncf",
    summary="int8 weights and activations by NNCF: smoothed, biases corrected",
    lossless=False,
    apply=_apply,
    needs=Needs(extras=("optimize", "nncf"), data=True, libraries=("onnx", "onnxruntime", "nncf")),
    changes=frozenset({"graph", "weights"}),
    parameters={
        "reduce_range": Parameter(
            "weights of 7 bits: with 8, CPUs without VNNI instructions saturate, and answer otherwise than those with",
            True,
            (True, False),
        )
    },
)
