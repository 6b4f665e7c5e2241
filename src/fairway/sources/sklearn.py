"""scikit-learn estimators and pipelines, through skl2onnx."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fairway.core.errors import InvalidBundle, InvalidData, InvalidSource
from fairway.core.extras import require
from fairway.core.manifest import Prediction
from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.sources.candidate import GRAPH, Candidate, Context, Source, refuse_task
from fairway.sources.graphs import engine_for, keep_outputs, tidy_model
from fairway.sources.labels import as_label
from fairway.sources.mapping import nearest
from fairway.sources.tables import Table

INPUT = "x"


@dataclass(frozen=True)
class _Form:
    """How numbers are sent: fractions, and whole numbers that have a column of their own."""

    fractions: Datatype
    wholes: Datatype


_FORMS = (
    _Form(Datatype.FP32, Datatype.FP32),
    _Form(Datatype.FP32, Datatype.INT64),
    _Form(Datatype.FP64, Datatype.FP64),
    _Form(Datatype.FP64, Datatype.INT64),
)


def convert_sklearn(source: Source, context: Context) -> Iterator[Candidate]:
    """Convert in single precision and, should that not agree with the original, in double.

    A model fitted on a table with text or with a ``ColumnTransformer`` takes one input per column, any other takes one
    matrix, ``x``.

    Raises
    ------
    InvalidSource
        If the estimator is not fitted, does another task, or a part of it has no ONNX form.
    InvalidData
        If the reference lacks a column that the estimator was fitted on.
    """
    estimator = source.model
    methods = _methods(estimator, context.task)
    refused: InvalidSource | None = None
    offered = False
    for form in _FORMS:
        inputs = _inputs(estimator, context, form)
        try:
            _write(estimator, inputs, methods, context)
            candidate = _candidate(estimator, inputs, methods, context)
        except InvalidSource as error:  # another form may do
            refused = refused or error
            continue
        offered = True
        yield candidate
    if refused is not None and not offered:
        raise refused


def _methods(estimator: Any, task: str) -> dict[str, str]:
    """The estimator's methods that give the answers, by output name."""
    require("sklearn", extra="sklearn")
    from sklearn.base import is_classifier, is_regressor
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise InvalidSource(f"{name} is not fitted; fit it before you pack it") from error
    except TypeError as error:
        raise InvalidSource(f"{name} is not a fitted estimator: {error}") from error
    if is_classifier(estimator):
        known, methods = "classification", {"label": "predict", "probabilities": "predict_proba"}
        if not hasattr(estimator, "predict_proba"):
            del methods["probabilities"]
        if np.ndim(getattr(estimator, "classes_", ())) != 1 or isinstance(getattr(estimator, "classes_", None), list):
            raise InvalidSource(f"{name} answers several labels per row; only one can be evaluated")
    elif is_regressor(estimator):
        known, methods = "regression", {"prediction": "predict"}
    elif hasattr(estimator, "transform"):
        known, methods = "embedding", {"embedding": "transform"}
    else:
        raise InvalidSource(f"{name} is neither a classifier, nor a regressor, nor a transformer")
    if known != task:
        raise refuse_task(name, task, (known,))
    return methods


def _inputs(estimator: Any, context: Context, form: _Form) -> tuple[TensorSpec, ...]:
    names = _feature_names(estimator, context)
    table = context.reference
    kinds = {name: table.datatype(name) for name in names} if table is not None else {}
    if _by_column(estimator, kinds):
        chosen = [(name, _column_type(name, kinds.get(name, form.fractions), form)) for name in names]
        return tuple(
            TensorSpec(_tensor_name(name), kind, (-1, 1), (name,), kind.is_float and takes_missing(estimator, name))
            for name, kind in chosen
        )
    width, missing = int(estimator.n_features_in_), takes_missing(estimator)
    if len(names) == 1 and table is not None and table.column(names[0]).ndim > 1:
        return (TensorSpec(names[0], form.fractions, (-1, width), allow_nan=missing),)
    return (TensorSpec(INPUT, form.fractions, (-1, width), names, missing),)


def _feature_names(estimator: Any, context: Context) -> tuple[str, ...]:
    fitted = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    if context.reference is None:
        return fitted
    if fitted:
        known = context.reference.columns
        lost = [f"{name!r}{nearest(name, known)}" for name in fitted if name not in known]
        if lost:
            raise InvalidData(
                f"{context.reference.origin} lacks columns that the model was fitted on: {', '.join(lost)}"
            )
        return fitted
    width = getattr(estimator, "n_features_in_", None)
    given = context.features
    if width is None:
        raise InvalidSource(f"{type(estimator).__name__} does not tell how many features it takes (n_features_in_)")
    if len(given) == width or (len(given) == 1 and math.prod(context.reference.column(given[0]).shape[1:]) == width):
        return given
    raise InvalidData(
        f"the model was fitted on {width} features, but {context.reference.origin} has {len(given)} feature columns: "
        f"{', '.join(given[:_LISTED])}; choose them with features in [data]"
    )


_LISTED = 40


def _by_column(estimator: Any, kinds: dict[str, Datatype | None]) -> bool:
    from sklearn.compose import ColumnTransformer

    if not hasattr(estimator, "feature_names_in_"):
        return False
    return isinstance(_first_step(estimator), ColumnTransformer) or Datatype.BYTES in kinds.values()


def _tensor_name(column: str) -> str:
    """skl2onnx allows no other characters."""
    return re.sub(r"\W", "_", column)


def _first_step(estimator: Any) -> Any:
    from sklearn.pipeline import Pipeline

    first = getattr(estimator, "best_estimator_", estimator)
    return _first_step(first.steps[0][1]) if isinstance(first, Pipeline) else first


def _column_type(name: str, kind: Datatype | None, form: _Form) -> Datatype:
    if kind is None:
        raise InvalidData(f"column {name!r} holds dates or the like; turn it into numbers or text first")
    if kind is Datatype.BYTES:
        return kind
    return form.fractions if kind.is_float else form.wholes


def takes_missing(estimator: Any, column: str | None = None) -> bool:
    """Whether the part of the estimator that sees the input (or one named column of it) first documents an answer for NaN."""
    from sklearn.compose import ColumnTransformer
    from sklearn.utils import get_tags

    first = _first_step(estimator)
    if isinstance(first, ColumnTransformer) and column is not None:
        parts = [part for _, part, columns in first.transformers_ if column in np.atleast_1d(columns).tolist()]
        return bool(parts) and all(not isinstance(part, str) and takes_missing(part) for part in parts)
    return bool(get_tags(first).input_tags.allow_nan)


def _write(estimator: Any, inputs: Sequence[TensorSpec], methods: dict[str, str], context: Context) -> None:
    skl2onnx = require("skl2onnx", extra="sklearn")
    from skl2onnx.common import data_types
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    forms = {
        Datatype.FP32: data_types.FloatTensorType,
        Datatype.FP64: data_types.DoubleTensorType,
        Datatype.INT64: data_types.Int64TensorType,
        Datatype.BYTES: data_types.StringTensorType,
    }
    by_column = _by_column(estimator, {spec.name: spec.datatype for spec in inputs})
    types = [
        (spec.columns[0] if by_column else spec.name, forms[spec.datatype]([None, *spec.shape[1:]])) for spec in inputs
    ]
    options = {"zipmap": False} if "probabilities" in methods else None
    try:
        with _whole_attributes():
            model = skl2onnx.to_onnx(estimator, initial_types=types, options=options)
    except (MissingConverter, MissingShapeCalculator) as error:
        raise InvalidSource(f"a part of this model has no ONNX form: {_first_line(error)}") from error
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError, KeyError, IndexError) as error:
        raise InvalidSource(f"skl2onnx cannot convert {type(estimator).__name__}: {_first_line(error)}") from error
    keep_outputs(model, len(methods))
    tidy_model(model, dict(zip([value.name for value in model.graph.output], methods, strict=True)))
    (context.folder / GRAPH).write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _whole_attributes() -> Iterator[None]:
    """skl2onnx 1.20 gives truth values where onnx 1.23 takes whole numbers only (histogram gradient boosting)."""
    from skl2onnx.common import _container

    make_node = _container.make_node

    def make(*arguments: Any, **attributes: Any) -> Any:
        for name, value in attributes.items():
            if isinstance(value, list) and any(isinstance(item, bool | np.bool_) for item in value):
                attributes[name] = [int(item) for item in value]
        return make_node(*arguments, **attributes)

    _container.make_node = make
    try:
        yield
    finally:
        _container.make_node = make_node


def _candidate(estimator: Any, inputs: tuple[TensorSpec, ...], methods: dict[str, str], context: Context) -> Candidate:
    try:
        engine = OnnxRuntimeEngine(context.folder / GRAPH)
    except InvalidBundle as error:
        raise InvalidSource(str(error)) from error
    outputs = tuple(_rows_first(spec) for spec in engine.outputs)
    inputs = tuple(
        spec for spec in inputs if spec.name in {known.name for known in engine.inputs}
    )  # columns may be unused
    engine.close()
    prediction = {
        "classification": Prediction("probabilities", "probabilities")
        if "probabilities" in methods
        else Prediction("label", "label"),
        "regression": Prediction("prediction", "value"),
    }.get(context.task)
    by_column = _by_column(estimator, {spec.name: spec.datatype for spec in inputs})

    def original(feed: Tensors, rows: Table | None) -> Tensors:
        x = _rows(by_column, inputs, feed, rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            answers = {name: np.asarray(getattr(estimator, method)(x)) for name, method in methods.items()}
        return {
            spec.name: answers[spec.name].reshape(len(answers[spec.name]), *spec.shape[1:])
            if len(spec.shape) > answers[spec.name].ndim
            else answers[spec.name]
            for spec in outputs
        }

    return Candidate(
        context.folder,
        inputs,
        outputs,
        original,
        prediction,
        tuple(as_label(value) for value in getattr(estimator, "classes_", ())),
        engine=engine_for(inputs, outputs),
        takes_missing=any(spec.allow_nan for spec in inputs),
    )


def _rows(by_column: bool, inputs: Sequence[TensorSpec], feed: Tensors, rows: Table | None) -> Any:
    """The rows as the estimator was fitted on them: at the data's own precision where there is a table."""
    if not by_column:
        spec = inputs[0]
        if rows is None:
            return feed[spec.name]
        exact = msgspec.structs.replace(spec, datatype=_precision(rows, spec.columns or (spec.name,)))
        return rows.feed([exact])[spec.name]
    import pyarrow as pa

    if rows is not None:
        names = [name for spec in inputs for name in spec.columns]
        return pa.table({name: _dense(rows.arrow.column(name)) for name in names})
    return pa.table({spec.columns[0]: _column(feed[spec.name]) for spec in inputs})


def _precision(rows: Table, names: Sequence[str]) -> Datatype:
    return Datatype.FP32 if all(rows.datatype(name) is Datatype.FP32 for name in names) else Datatype.FP64


def _dense(column: Any) -> Any:
    """Missing numbers as NaN, as scikit-learn writes them."""
    from pyarrow import types

    return column.fill_null(math.nan) if types.is_floating(column.type) else column


def _column(array: Tensor) -> Any:
    flat = array.ravel()
    return [item.decode("utf-8", "replace") for item in flat] if flat.dtype == object else flat


def _rows_first(spec: TensorSpec) -> TensorSpec:
    """skl2onnx leaves some output shapes open."""
    return msgspec.structs.replace(spec, shape=(-1, *spec.shape[1:])) if spec.shape else spec


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
