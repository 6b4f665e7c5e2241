"""Keras models, through their own ONNX export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.errors import InvalidSource, UntrustedSource
from fairway.core.extras import require
from fairway.core.tensors import Tensor, Tensors
from fairway.sources.candidate import GRAPH, Candidate, Context, Source
from fairway.sources.describe import describe_graph
from fairway.sources.graphs import tidy_graph
from fairway.sources.quiet import quiet
from fairway.sources.tables import Table

_BACKEND = "KERAS_BACKEND"


def load_keras(path: Path) -> Any:
    """Read a ``.keras`` file in safe mode, in which layers that carry Python code are refused.

    Raises
    ------
    UntrustedSource
        If a layer carries code, as ``Lambda`` does.
    InvalidSource
        If the file is broken, or needs classes that are not Keras's own.
    """
    keras = _keras()
    try:
        with quiet():
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "unsafe" in str(error).lower() or "safe_mode" in str(error):
            raise UntrustedSource(
                f"{path} has a layer that carries Python code ({reason}). Replace it by a registered layer, or build the model "
                "in your own code and give it through module:callable"
            ) from error
        raise InvalidSource(f"{path} cannot be read: {reason}") from error


def convert_keras(source: Source, context: Context) -> Iterator[Candidate]:
    """Export with a free batch axis. Raises :class:`InvalidSource` if Keras cannot."""
    model = source.model
    _keras()
    require("onnxscript", extra="keras")
    try:
        with quiet():
            _call_once(model)
            model.export(str(context.folder / GRAPH), format="onnx", verbose=False)
    except Exception as error:
        raise InvalidSource(f"Keras cannot export {model.name!r} to ONNX: {type(error).__name__}: {error}") from error
    tidy_graph(context.folder / GRAPH)

    def answers(feed: Tensors, _: Table | None) -> list[Tensor]:
        with quiet():
            given = list(feed.values())
            answer = model.predict_on_batch(given[0] if len(given) == 1 else given)
            return [np.asarray(array) for array in _flat(answer)]

    yield describe_graph(context, answers, rename=True)


def _keras() -> Any:
    """Keras, on torch unless the user chose a backend. Keras reads the variable once, as it is imported."""
    before = os.environ.get(_BACKEND)
    os.environ.setdefault(_BACKEND, "torch")
    try:
        with quiet():
            return require("keras", extra="keras")
    finally:
        if before is None:
            del os.environ[_BACKEND]


def _call_once(model: Any) -> None:
    """A loaded model has not been called yet, which its export wants."""
    shapes = model.input_shape if isinstance(model.input_shape, list) else [model.input_shape]
    pairs = zip(shapes, model.inputs, strict=True)
    inputs = [np.zeros((1, *(size or 1 for size in shape[1:])), tensor.dtype) for shape, tensor in pairs]
    model(inputs[0] if len(inputs) == 1 else inputs)


def _flat(given: Any) -> list[Any]:
    if isinstance(given, dict):
        given = list(given.values())
    return list(given) if isinstance(given, list | tuple) else [given]
