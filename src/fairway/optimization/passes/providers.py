"""ONNX Runtime on an accelerator: operators are split between its providers; the graph stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError
from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.optimization.graphs import copy_graph
from fairway.optimization.passes.base import Needs, NothingToDo, Pass, Sample


def _pass(name: str, summary: str, *providers: str) -> Pass:
    """``providers`` in the order in which they are offered each operator; the CPU has what is left."""
    options = {"providers": list(providers)}

    def apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
        """Check that this machine runs the graph so."""
        try:
            load_engine(EngineSpec("onnxruntime", source.name, options=options), source.parent).close()
        except FairwayError as error:
            raise NothingToDo(str(error)) from error
        copy_graph(source, destination)

    def engine(spec: EngineSpec, _parameters: Mapping[str, Any]) -> EngineSpec:
        return msgspec.structs.replace(spec, name="onnxruntime", options=options)

    return Pass(
        name=name,
        summary=summary,
        lossless=True,
        apply=apply,
        needs=Needs(provider=providers[0]),
        changes=frozenset({"engine"}),
        engine=engine,
    )


CUDA = _pass("cuda", "runs on an NVIDIA GPU; operators that it lacks, on the CPU", "CUDAExecutionProvider")
TENSORRT = _pass(
    "tensorrt",
    "runs on an NVIDIA GPU, compiled by TensorRT; operators that it lacks, by CUDA or on the CPU",
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
)
