"""The models and what is asked of them, in every form that it is sent in."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.models import text_bundle, vision_bundle
from fairway.bundle.format import Bundle, write_bundle

BINARY_HEADER = "inference-header-content-length"


class Body(msgspec.Struct, frozen=True):
    """One request: what is posted, and the headers that say what it is."""

    data: bytes
    headers: dict[str, str]


class Workload:
    """A model and one request for it.

    Parameters
    ----------
    name : str
    bundle : Bundle
    row : ndarray
        The input of one request.
    connections : tuple of int
        How many clients ask at the same time.
    seconds, requests : float, int
        How long one measurement takes; or how many requests it has, where so few fit into a time that those under way at its
        end would count.
    max_batch : int
        What the model's bundle says, told to peers.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        row: NDArray[Any],
        *,
        connections: tuple[int, ...],
        seconds: float = 0,
        requests: int = 0,
        max_batch: int,
    ) -> None:
        self.name = name
        self.bundle = bundle
        self.model = bundle.file("model.onnx")
        self.connections = connections
        self.seconds = seconds
        self.requests = requests
        self.max_batch = max_batch
        self.served_as = bundle.manifest.name
        self.path = f"/v2/models/{self.served_as}/infer"
        self.row = row
        self._datatype = {"float32": "FP32", "int64": "INT64"}[row.dtype.name]

    @cached_property
    def expected(self) -> NDArray[Any]:
        """What the model answers."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        answers: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: self.row})[0].ravel()
        return answers

    @cached_property
    def bodies(self) -> dict[str, Body]:
        """By wire: ``json``, ``binary``, ``grpc``, and ``arrays``, which is BentoML's own JSON."""
        tensor = {"name": "x", "datatype": self._datatype, "shape": list(self.row.shape)}
        listed = msgspec.json.encode({"inputs": [{**tensor, "data": self.row.ravel().tolist()}]})
        raw = self.row.tobytes()
        said = {"parameters": {"binary_data_output": True}}
        head = msgspec.json.encode({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}], **said})
        json_type = {"content-type": "application/json"}
        return {
            "json": Body(listed, json_type),
            "binary": Body(head + raw, {"content-type": "application/octet-stream", BINARY_HEADER: str(len(head))}),
            "grpc": Body(_frame(self._message(raw)), {"content-type": "application/grpc", "te": "trailers"}),
            "arrays": Body(msgspec.json.encode({"x": self.row.tolist()}), json_type),
        }

    def _message(self, raw: bytes) -> bytes:
        from fairway.serving.transports.grpc.messages import message

        request = message("inference.ModelInferRequest")(model_name=self.served_as)
        request.inputs.add(name="x", datatype=self._datatype, shape=self.row.shape)
        request.raw_input_contents.append(raw)
        return bytes(request.SerializeToString())


def _frame(message: bytes) -> bytes:
    """Length-prefixed, as gRPC sends it."""
    return struct.pack(">?I", False, len(message)) + message


def tiny(folder: Path) -> Workload:
    """Logistic regression on the 64 pixels of scikit-learn's digits, with a baseline, so that it can be watched for drift."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from fairway.model import Model
    from fairway.monitoring.baseline import FILE, make_baseline
    from fairway.testing.builders import linear_bundle

    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=1000).fit(x / 16, y)
    bare = linear_bundle(folder / "bare", name="digits", weights=fitted.coef_.T / 16, bias=fitted.intercept_)
    with Model(bare) as model:
        baseline = make_baseline(model, {"x": x.astype("float32")})
    files = {"model.onnx": bare.file("model.onnx").read_bytes(), FILE: baseline}
    bundle = write_bundle(folder / "digits.fairway", bare.manifest, files)
    row = x[:1].astype(np.float32)
    return Workload("tiny", bundle, row, connections=(1, 16, 64), seconds=1, max_batch=64)


def text(folder: Path) -> Workload:
    """BERT's shape, 6 layers of 384, 64 tokens. 16 clients keep its engine busy, so more would only wait longer."""
    tokens = np.random.default_rng(0).integers(0, 30522, (1, 64))
    bundle = text_bundle(folder / "text.fairway")
    return Workload("text", bundle, tokens, connections=(1, 16), requests=128, max_batch=16)


def vision(folder: Path) -> Workload:
    """ResNet-50's shape; the image's values as Python clients list them: each float32 with all digits of its double."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224))
    image = ((pixels / 255 - 0.45) / 0.225).astype(np.float32)
    bundle = vision_bundle(folder / "vision.fairway")
    return Workload("vision", bundle, image, connections=(1, 16), requests=32, max_batch=8)


WORKLOADS: dict[str, Callable[[Path], Workload]] = {"tiny": tiny, "text": text, "vision": vision}
