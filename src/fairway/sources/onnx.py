"""ONNX files, taken as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fairway.core.errors import InvalidSource
from fairway.core.extras import require
from fairway.core.tensors import Tensor, Tensors
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.sources.candidate import GRAPH, Candidate, Context, Source
from fairway.sources.describe import describe_graph
from fairway.sources.graphs import tensors_of
from fairway.sources.tables import Table


def convert_onnx(source: Source, context: Context) -> Iterator[Candidate]:
    """Take an ONNX file, checked, and its external data.

    Raises
    ------
    InvalidSource
        If it is not a valid ONNX model, lacks its external data, or holds sequences and maps instead of tensors.
    """
    path = Path(source.model)
    onnx = require("onnx", extra="optimize")
    try:
        proto = onnx.load(path, load_external_data=False)
        external = sorted(_external(proto))
    except Exception as error:
        raise InvalidSource(f"{path} is not an ONNX model: {_first_line(error)}") from error
    for name in external:
        _take(path.parent, name, context.folder)
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise InvalidSource(f"{path} is not a valid ONNX model: {_first_line(error)}; export it again") from error
    _plain_outputs(path, proto)
    shutil.copyfile(path, context.folder / GRAPH)
    yield describe_graph(context, _unoptimized(path), rename=False)


def _external(proto: Any) -> set[str]:
    """File names of tensors that are kept outside."""
    return {
        entry.value for tensor in tensors_of(proto.graph) for entry in tensor.external_data if entry.key == "location"
    }


def _take(folder: Path, name: str, target: Path) -> None:
    location = PurePosixPath(name)
    if location.is_absolute() or ".." in location.parts:
        raise InvalidSource(f"the graph keeps tensors in {name!r}, outside its folder; save it with data beside it")
    if not (folder / location).is_file():
        raise InvalidSource(f"the graph keeps tensors in {name!r}, which is not in {folder}; put it beside the graph")
    if location.as_posix() == GRAPH:
        raise InvalidSource(f"the graph keeps tensors in {name!r}, a name that the graph itself will have; rename it")
    (target / location).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / location, target / location)


def _plain_outputs(path: Path, proto: Any) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.WhichOneof("value") != "tensor_type":
            raise InvalidSource(
                f"{path}: {value.name!r} is no tensor but a {value.type.WhichOneof('value')}; export the model with plain "
                "tensors (with skl2onnx: options={'zipmap': False})"
            )


def _unoptimized(path: Path) -> Any:
    """The original, run without any of the runtime's graph optimizations."""
    engine = OnnxRuntimeEngine(path, optimize=False)

    def answers(feed: Tensors, _: Table | None) -> list[Tensor]:
        given = engine.infer(feed)
        return [given[spec.name] for spec in engine.outputs]

    return answers


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
