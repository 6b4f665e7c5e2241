"""OpenVINO in place of ONNX Runtime; the graph stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError
from fairway.core.manifest import EngineSpec
from fairway.engines.base import load_engine
from fairway.optimization.graphs import copy_graph
from fairway.optimization.passes.base import Apply, Needs, NothingToDo, Parameter, Pass, Sample


def _on(precision: str) -> Apply:
    """Check that this machine runs the graph; ``precision`` is of what is not int8, unless a parameter says otherwise."""

    def apply(source: Path, destination: Path, parameters: Mapping[str, Any], _sample: Sample) -> None:
        spec = EngineSpec("openvino", source.name, options={"precision": parameters.get("precision", precision)})
        try:
            load_engine(spec, source.parent).close()
        except FairwayError as error:
            raise NothingToDo(str(error)) from error
        copy_graph(source, destination)

    return apply


def _engine(precision: str, spec: EngineSpec) -> EngineSpec:
    return msgspec.structs.replace(spec, name="openvino", options={"precision": precision})


_NEEDS = Needs(extras=("optimize", "openvino"), libraries=("onnx", "onnxruntime", "openvino"))

PASS = Pass(
    name="openvino",
    summary="runs on OpenVINO, in FP32",
    lossless=True,
    apply=_on("fp32"),
    needs=_NEEDS,
    changes=frozenset({"engine"}),
    engine=lambda spec, _: _engine("fp32", spec),
)
INT8 = Pass(
    name="openvino-int8",
    summary="a quantized graph runs on OpenVINO, which rounds a little otherwise",
    lossless=False,
    apply=_on("fp32"),
    needs=_NEEDS,
    changes=frozenset({"engine"}),
    parameters={"precision": Parameter("what is not int8 is computed in", "fp32", choices=("fp32", "bf16"))},
    engine=lambda spec, parameters: _engine(parameters.get("precision", "fp32"), spec),
)
BF16 = Pass(
    name="openvino-bf16",
    summary="runs on OpenVINO, products in BF16",
    lossless=False,
    apply=_on("bf16"),
    needs=_NEEDS,
    changes=frozenset({"engine"}),
    engine=lambda spec, _: _engine("bf16", spec),
)
