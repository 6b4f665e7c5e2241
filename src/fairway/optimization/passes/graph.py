"""ONNX Runtime's graph optimizations, saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.optimization.graphs import external_files, load, operators, save, structure, tidy
from fairway.optimization.passes.base import NothingToDo, Parameter, Pass, Sample

PORTABLE = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator domains that every build of ONNX Runtime has on every CPU."""


def _apply(source: Path, destination: Path, parameters: Mapping[str, Any], _: Sample) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(destination)
    # Higher levels choose memory layouts by the instructions of this machine's CPU, and would not run on another.
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {"basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED}[
        parameters["level"]
    ]
    if external_files(source):
        for key, value in (("file_name", destination.name + ".data"), ("min_size_in_bytes", "1024")):
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    if bound := sorted({domain for domain, _ in operators(destination)} - set(PORTABLE) - _domains(source)):
        raise NothingToDo(f"ONNX Runtime's optimized graph is bound to this machine ({', '.join(bound)})")
    if structure(source) == structure(destination):
        raise NothingToDo("ONNX Runtime found nothing to fold or fuse")
    model = load(destination)
    tidy(model)
    save(model, destination)


def _domains(path: Path) -> set[str]:
    return {domain for domain, _ in operators(path)}


PASS = Pass(
    name="graph",
    summary="constants folded, operators fused (ONNX Runtime)",
    lossless=True,
    apply=_apply,
    changes=frozenset({"graph"}),
    parameters={
        "level": Parameter(
            "the standard's operators only, or ONNX Runtime's own, too", "extended", ("basic", "extended")
        )
    },
)
