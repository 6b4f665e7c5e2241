"""Small real bundles, built in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.extras import require
from fairway.core.manifest import Manifest, Prediction
from fairway.core.tensors import Datatype, TensorSpec


def linear_bundle(
    path: Path,
    *,
    name: str = "linear",
    weights: ArrayLike,
    bias: ArrayLike,
    columns: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
) -> Bundle:
    """A softmax-linear classifier: input ``x`` FP32 ``[-1, features]``, output ``probabilities`` FP32 ``[-1, classes]``.

    Parameters
    ----------
    path : Path
        Where to write the bundle.
    weights : array-like of shape (features, classes)
    bias : array-like of shape (classes,)
    columns, labels : tuple of str
        Names of the features and classes; labels default to ``"0"``, ``"1"`` …
    """
    onnx = require("onnx", extra="optimize")
    w, b = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    features, classes = w.shape
    helper, numpy_helper, proto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        name,
        [helper.make_tensor_value_info("x", proto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("probabilities", proto.FLOAT, [None, classes])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    manifest = Manifest(
        name=name,
        task="classification",
        inputs=(TensorSpec("x", Datatype.FP32, (-1, features), columns),),
        outputs=(TensorSpec("probabilities", Datatype.FP32, (-1, classes)),),
        prediction=Prediction("probabilities", "probabilities"),
        labels=labels or tuple(map(str, range(classes))),
        files={},
    )
    return write_bundle(path, manifest, {"model.onnx": model.SerializeToString()})
