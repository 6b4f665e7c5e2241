"""A graph exported years ago in a newer version of ONNX's operators, which quantizers and other engines ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.graphs import external_files, load, save_data
from fairway.optimization.passes.base import NothingToDo, Parameter, Pass, Sample

_TARGET = 17
"""Scales per channel need 13, layer normalization as one operator 17; each engine here knows it."""


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], _sample: Sample) -> None:
    converter: Any = require("onnx.version_converter", extra="optimize")
    target = int(parameters["target"])
    model = load(source, data=True)
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if version >= target:
        raise NothingToDo(f"the graph has version {version} of ONNX's operators, and {target} is asked for")
    try:
        made = converter.convert_version(model, target)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NothingToDo(
            f"the graph cannot be brought from version {version} of ONNX's operators to {target}: {reason}"
        ) from error
    save_data(made, destination, bool(external_files(source)))


PASS = Pass(
    name="opset",
    summary="a newer version of ONNX's operators",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
    parameters={"target": Parameter("the version", _TARGET, low=13, high=21)},
)
