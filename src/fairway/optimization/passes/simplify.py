"""Constants folded and shape arithmetic resolved by OnnxSlim, within the standard's operators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.core.extras import require
from fairway.optimization.graphs import external_files, load, save_data, structure
from fairway.optimization.passes.base import Needs, NothingToDo, Pass, Sample
from fairway.optimization.quiet import quiet


def _apply(source: Path, destination: Path, _parameters: Mapping[str, Any], _sample: Sample) -> None:
    onnxslim = require("onnxslim", extra="optimize")
    with quiet(destination.parent):
        model = onnxslim.slim(load(source, data=True), model_check=False)
    if model is None:
        raise NothingToDo("OnnxSlim could not read the graph")
    save_data(model, destination, bool(external_files(source)))
    if structure(source) == structure(destination):
        raise NothingToDo("OnnxSlim found nothing to fold")


PASS = Pass(
    name="simplify",
    summary="constants folded and shapes resolved (OnnxSlim)",
    lossless=True,
    apply=_apply,
    needs=Needs(libraries=("onnx", "onnxruntime", "onnxslim")),
    changes=frozenset({"graph"}),
)
