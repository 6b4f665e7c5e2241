"""An exported graph's inputs, outputs and prediction, worked out from the graph and from what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from fairway.core.errors import InvalidBundle, InvalidSource
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.sources.candidate import GRAPH, Candidate, Context
from fairway.sources.graphs import batches, engine_for, tidy_graph
from fairway.sources.rows import rows_for
from fairway.sources.tables import Table

Answers: TypeAlias = Callable[[Tensors, Table | None], Sequence[Tensor]]
"""The original's outputs, in the graph's order."""

_SCORES = ("probabilities", "logits", "scores", "output")


def describe_graph(context: Context, answers: Answers, *, rename: bool) -> Candidate:
    """The candidate for ``model.onnx`` in the context's folder.

    Parameters
    ----------
    context : Context
    answers : callable
        The original.
    rename : bool
        Name the only output after what it is, where the exporter chose its name.

    Raises
    ------
    InvalidSource
        If the graph cannot be loaded, or none of its outputs does the task.
    """
    path = context.folder / GRAPH
    inputs, outputs, sample = _look(context)
    prediction = find_prediction(context.task, outputs, sample)
    if rename and len(outputs) == 1:
        old, new = outputs[0].name, _name(prediction)
        if new not in {spec.name for spec in inputs}:
            tidy_graph(path, {old: new})
            sample = {new: sample[old]}
            outputs = (msgspec.structs.replace(outputs[0], name=new),)
            prediction = msgspec.structs.replace(prediction, output=new) if prediction else None
    names = [spec.name for spec in outputs]

    def original(feed: Tensors, rows: Table | None) -> Tensors:
        given = answers(feed, rows)
        if len(given) != len(names):
            raise InvalidSource(f"the model gives {len(given)} outputs, but its graph {len(names)}: {', '.join(names)}")
        return dict(zip(names, given, strict=True))

    scored = prediction is not None and prediction.kind in ("probabilities", "logits")
    axis = -1 if context.task == "token-classification" else 1
    labels = (
        context.class_names(sample[prediction.output].shape[axis])
        if prediction is not None and scored
        else context.labels
    )
    return Candidate(
        context.folder,
        inputs,
        outputs,
        original,
        prediction,
        labels,
        engine=engine_for(inputs, outputs),
    )


def find_prediction(task: str, outputs: Sequence[TensorSpec], sample: Tensors) -> Prediction | None:
    """Which output does the task, judged by its shape, datatype and values; :class:`InvalidSource` if none does.

    Examples
    --------
    >>> from fairway.core.tensors import Datatype
    >>> spec = TensorSpec("y", Datatype.FP32, (-1, 2))
    >>> find_prediction("classification", [spec], {"y": np.array([[0.2, 0.8]])})
    Prediction(output='y', kind='probabilities')
    """
    shapes = {spec.name: sample[spec.name].shape[1:] for spec in outputs}
    floats = {s.name: shapes[s.name] for s in outputs if s.datatype.is_float}
    whole = {s.name: shapes[s.name] for s in outputs if not s.datatype.is_float and s.datatype is not Datatype.BYTES}
    single = next((name for name, shape in floats.items() if shape in ((), (1,))), None)
    match task:
        case "embedding":
            return _found(task, "floats", outputs, {"embedding": next(iter(floats), None)})
        case "regression":
            return _found(task, "floats of shape [rows] or [rows, 1]", outputs, {"value": single})
        case "ranking":
            vector = next((name for name, shape in floats.items() if len(shape) == 1), None)
            wanted = "floats of shape [rows] (scores) or [rows, size] (vectors)"
            return _found(task, wanted, outputs, {"value": single, "embedding": vector})
        case "multi-label":
            scores = next((name for name, shape in floats.items() if len(shape) == 1), None)
            kind = "logits" if scores and not _within_one(sample[scores]) else "probabilities"
            return _found(task, "scores of shape [rows, labels]", outputs, {kind: scores})
        case "token-classification":
            tags = next((name for name, shape in floats.items() if len(shape) == 2), None)
            chosen = next((name for name, shape in whole.items() if len(shape) == 1), None)
            wanted = "scores of shape [rows, tokens, tags] or whole numbers of shape [rows, tokens]"
            return _found(task, wanted, outputs, {"logits": tags, "label": chosen})
        case "segmentation":
            masks = next((name for name, shape in floats.items() if len(shape) == 3), None)
            chosen = next((name for name, shape in whole.items() if len(shape) == 2), None)
            kind = "probabilities" if masks and _sums_to_one(sample[masks]) else "logits"
            wanted = "scores of shape [rows, classes, height, width] or whole numbers of shape [rows, height, width]"
            return _found(task, wanted, outputs, {kind: masks, "label": chosen})
        case "detection":
            boxes = next((name for name, shape in floats.items() if len(shape) == 2 and shape[1] == 4), None)
            complete = {"scores", "labels"} <= set(shapes)
            wanted = "boxes of shape [rows, boxes, 4], and outputs named 'scores' and 'labels' of shape [rows, boxes]"
            return _found(task, wanted, outputs, {"boxes": boxes if complete else None})
        case "generation":
            texts = next(
                (s.name for s in outputs if s.datatype is Datatype.BYTES and shapes[s.name] in ((), (1,))), None
            )
            return _found(task, "texts of shape [rows]", outputs, {"text": texts})
    return _find_classes(task, outputs, sample, shapes)


def _found(task: str, wanted: str, outputs: Sequence[TensorSpec], kinds: Mapping[str, str | None]) -> Prediction:
    """The first kind of prediction that an output answers."""
    for kind, name in kinds.items():
        if name is not None:
            return msgspec.convert({"output": name, "kind": kind}, Prediction)
    raise _no_output(task, wanted, outputs)


def _find_classes(
    task: str, outputs: Sequence[TensorSpec], sample: Tensors, shapes: Mapping[str, tuple[int, ...]]
) -> Prediction:
    scores = [s.name for s in outputs if s.datatype.is_float and len(shapes[s.name]) == 1 and shapes[s.name][0] > 1]
    if scores:
        name = min(scores, key=lambda score: _SCORES.index(score) if score in _SCORES else len(_SCORES))
        return Prediction(name, "probabilities" if _sums_to_one(sample[name]) else "logits")
    labels = [s.name for s in outputs if not s.datatype.is_float and shapes[s.name] in ((), (1,))]
    if not labels:
        raise _no_output(task, "scores of shape [rows, classes] or labels of shape [rows]", outputs)
    return Prediction(labels[0], "label")


def _look(context: Context) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], Tensors]:
    try:
        engine = OnnxRuntimeEngine(context.folder / GRAPH)
    except InvalidBundle as error:
        raise InvalidSource(str(error)) from error
    try:
        inputs = tuple(_with_columns(spec, engine.inputs, context) for spec in engine.inputs)
        if scalars := [spec.name for spec in inputs if not spec.shape]:
            raise InvalidSource(
                f"input {scalars[0]!r} is a single number; export the graph with an axis for rows, or fix it"
            )
        count = 8 if batches(inputs, ()) else max(inputs[0].shape[0], 1)
        rows = rows_for(inputs, context.reference, context.label, count)
        sample = engine.infer(rows.feed)
    except Exception as error:
        if isinstance(error, InvalidSource | InvalidBundle) or hasattr(error, "code"):
            raise
        raise InvalidSource(f"the graph cannot answer {count} rows: {error}") from error
    finally:
        outputs = engine.outputs
        engine.close()
    return inputs, outputs, sample


def _with_columns(spec: TensorSpec, specs: Sequence[TensorSpec], context: Context) -> TensorSpec:
    """The columns that fill ``spec``, where the reference leaves no doubt."""
    if context.reference is None or not context.features:
        return spec
    if len(specs) > 1:
        return msgspec.structs.replace(spec, columns=(spec.name,) if spec.name in context.features else ())
    width = int(np.prod([abs(size) for size in spec.shape[1:]]))
    if len(context.features) not in (1, width) or -1 in spec.shape[1:]:
        return spec
    return msgspec.structs.replace(spec, columns=context.features)


def _name(prediction: Prediction | None) -> str:
    if prediction is None:
        return "embedding"
    return "prediction" if prediction.kind == "value" else prediction.kind


def _within_one(scores: Tensor) -> bool:
    return bool(((scores >= -1e-6) & (scores <= 1 + 1e-6)).all())


def _sums_to_one(scores: Tensor) -> bool:
    return bool((scores >= -1e-6).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3))


def _no_output(task: str, needed: str, outputs: Sequence[TensorSpec]) -> InvalidSource:
    given = ", ".join(f"{spec.name!r} {spec.datatype} {list(spec.shape)}" for spec in outputs)
    return InvalidSource(
        f"no output does {task}, which needs {needed}; the outputs are {given}. Is task in [model] right?"
    )
