"""Products with weights of 4 bits in blocks, each with its scale: for models whose weights are read more than computed with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.optimization.graphs import external_files, load, save_data, structure
from fairway.optimization.passes.base import NothingToDo, Parameter, Pass, Sample
from fairway.optimization.quiet import quiet


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], _sample: Sample) -> None:
    model = load(source, data=True)
    if "MatMul" not in {node.op_type for node in model.graph.node}:
        raise NothingToDo("the graph has no product")
    with quiet(destination.parent):
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(
            block_size=parameters["block"],
            is_symmetric=parameters["symmetric"],
            accuracy_level=4 if parameters["int8"] else 1,
            bits=4,
        )
        quantizer = MatMulNBitsQuantizer(model, algo_config=config)
        quantizer.process()
    save_data(quantizer.model.model, destination, bool(external_files(source)))
    if structure(source) == structure(destination):
        raise NothingToDo("no product has constant weights")


PASS = Pass(
    name="int4-weights",
    summary="weights of 4 bits in blocks; activations scaled row by row",
    lossless=False,
    apply=_apply,
    changes=frozenset({"graph", "weights"}),
    parameters={
        "block": Parameter("weights that share a scale", 32, (16, 32, 64, 128, 256)),
        "symmetric": Parameter("no offset beside the scale", True, (True, False)),
        "int8": Parameter("products in int8, activations scaled block by block; else in FP32", True, (True, False)),
    },
)
