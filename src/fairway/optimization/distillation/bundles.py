"""The student as a bundle: the teacher's, with another graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.bundle.format import Bundle, write_bundle
from fairway.bundle.samples import SAMPLES
from fairway.core.errors import ConversionMismatch
from fairway.core.extras import require
from fairway.core.manifest import Manifest
from fairway.core.tensors import Tensors
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.model import Model
from fairway.optimization.distillation.lessons import Lesson
from fairway.optimization.distillation.losses import CLASS_AXIS
from fairway.optimization.distillation.modules import answer_of
from fairway.sources.agreement import compare
from fairway.sources.candidate import GRAPH
from fairway.sources.graphs import engine_for, tidy_graph
from fairway.sources.lineage import environment
from fairway.sources.tables import Table
from fairway.sources.torch import export_graph

_CHECKED_ROWS = 64


def student_bundle(
    teacher: Model, student: Any, lesson: Lesson, table: Table, destination: Path, hyperparameters: Mapping[str, Any]
) -> Bundle:
    """Export ``student``, check the graph on rows of ``lesson``, and write it with the teacher's processing.

    Raises
    ------
    ConversionMismatch
        If the graph answers otherwise than the module.
    """
    before = teacher.manifest
    assert before.prediction is not None
    module = _answering(student, tuple(lesson.feed), normalized=before.prediction.kind == "probabilities")
    with tempfile.TemporaryDirectory(prefix="fairway-") as folder:
        graph = Path(folder) / GRAPH
        _export(module, teacher, lesson, graph)
        _check(module, graph, lesson.part(slice(_CHECKED_ROWS)).feed)
        steps = (*before.processing.pre, *before.processing.post)
        kept = {SAMPLES, *(str(step.parameters["file"]) for step in steps if "file" in step.parameters)}
        files: dict[str, Path | bytes] = {n: teacher.bundle.file(n) for n in before.files if n in kept}
        for part in Path(folder).iterdir():
            files[part.name] = part
        return write_bundle(destination, _manifest(teacher, student, table, hyperparameters), files)


def _answering(student: Any, names: tuple[str, ...], *, normalized: bool) -> Any:
    """The module that the graph is made of: it takes inputs in order and gives what the teacher's graph gives."""
    torch: Any = require("torch", extra="torch")

    class Answering(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, *given: Any) -> Any:
            answer = answer_of(self.student, dict(zip(names, given, strict=True)))
            return answer.softmax(CLASS_AXIS) if normalized else answer

    return Answering().eval()


def _export(module: Any, teacher: Model, lesson: Lesson, path: Path) -> None:
    torch: Any = require("torch", extra="torch")
    specs = {spec.name: spec for spec in teacher.raw_inputs}
    names = tuple(lesson.feed)
    examples = tuple(torch.tensor(array) for array in lesson.part(slice(2)).feed.values())
    axes = [{i: f"axis_{i}" for i, size in enumerate(specs[name].shape) if i == 0 or size == -1} for name in names]
    export_graph(module, examples, path, inputs=names, axes=axes)
    engine = OnnxRuntimeEngine(path)
    engine.close()
    assert teacher.manifest.prediction is not None
    tidy_graph(path, {engine.outputs[0].name: teacher.manifest.prediction.output})


def _check(module: Any, path: Path, feed: Tensors) -> None:
    torch: Any = require("torch", extra="torch")
    engine = OnnxRuntimeEngine(path)
    try:
        with torch.no_grad():
            wanted = module(*(torch.tensor(array) for array in feed.values())).numpy()
        (name,) = (spec.name for spec in engine.outputs)
        compare({name: np.asarray(wanted)}, engine.infer(feed))
    except ConversionMismatch as error:
        raise ConversionMismatch(f"the student does not survive its export to ONNX: {error}") from error
    finally:
        engine.close()


def _manifest(teacher: Model, student: Any, table: Table, hyperparameters: Mapping[str, Any]) -> Manifest:
    before = teacher.manifest
    assert before.prediction is not None
    kind = type(student)
    lineage = msgspec.structs.replace(
        before.lineage,
        source=f"{kind.__module__}.{kind.__qualname__}",
        source_kind="torch",
        source_digest="",
        parent=teacher.bundle.digest,
        data_digests={**before.lineage.data_digests, "train": table.digest},
        hyperparameters=dict(hyperparameters),
        environment=environment("torch"),
    )
    outputs = tuple(spec for spec in before.outputs if spec.name == before.prediction.output)
    return msgspec.structs.replace(
        before,
        outputs=outputs,
        engine=engine_for(before.inputs, outputs),
        recipe=(),
        lineage=lineage,
        files={},
    )
