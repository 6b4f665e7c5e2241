"""Real models as bundles: scikit-learn's through skl2onnx, and digits as tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.manifest import Manifest, Prediction
from fairway.core.tensors import Datatype, TensorSpec
from fairway.engines.onnxruntime import OnnxRuntimeEngine
from fairway.optimization.passes.base import Sample
from tests.conftest import Digits

Convert = Callable[..., Path]


@pytest.fixture(scope="session")
def convert() -> Convert:
    """Write a fitted estimator as an ONNX file."""

    def run(path: Path, estimator: Any, x: Any) -> Path:
        from skl2onnx import to_onnx

        options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
        onx = to_onnx(estimator, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(onx.SerializeToString(deterministic=True))
        return path

    return run


@pytest.fixture(scope="session")
def mlp(digits: Digits) -> Any:
    import warnings

    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        return MLPClassifier((128, 64), max_iter=30, random_state=0).fit(digits.x_train, digits.y_train)


@pytest.fixture(scope="session")
def mlp_graph(mlp: Any, digits: Digits, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("mlp") / "model.onnx", mlp, digits.x_train)


@pytest.fixture(scope="session")
def linear_graph(digits: Digits, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("linear") / "model.onnx", digits.model, digits.x_train)


@pytest.fixture(scope="session")
def sample(digits: Digits) -> Sample:
    return Sample({"X": digits.x_train[:256]}, 256)


def infer(graph: Path, x: Any) -> dict[str, Any]:
    engine = OnnxRuntimeEngine(graph)
    return dict(engine.infer({engine.inputs[0].name: x}))


def bundle_of(path: Path, graph: Path, columns: tuple[str, ...] = (), **files: Path | bytes) -> Bundle:
    """A classifier's bundle around an ONNX file with outputs ``label`` and ``probabilities``."""
    engine = OnnxRuntimeEngine(graph)
    (source,) = engine.inputs
    manifest = Manifest(
        name="digits",
        task="classification",
        inputs=(TensorSpec(source.name, Datatype.FP32, source.shape, columns),),
        outputs=engine.outputs,
        prediction=Prediction("probabilities", "probabilities"),
        labels=tuple(map(str, range(10))),
        files={},
    )
    samples = files or {"samples.npz": b"rows"}
    return write_bundle(path, manifest, {"model.onnx": graph, **samples})


def accuracy(graph: Path, digits: Digits) -> float:
    predicted = infer(graph, digits.x_test)["probabilities"].argmax(axis=1)
    return float(np.mean(predicted == digits.y_test))
