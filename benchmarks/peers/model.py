"""What every peer is told, and the model: ONNX Runtime on one thread. Needs only NumPy and ONNX Runtime.

Usage of every peer: ``NAME_app.py MODEL.onnx MODEL_NAME MAX_BATCH PORT GRPC_PORT METRICS_PORT``.
"""
# mypy: ignore-errors

import sys
from typing import NamedTuple

import numpy as np
import onnxruntime as ort


class Served(NamedTuple):
    """The command line."""

    path: str
    name: str
    max_batch: int
    port: int
    grpc_port: int
    metrics_port: int

    @classmethod
    def told(cls):
        path, name, *numbers = sys.argv[1:7]
        return cls(path, name, *map(int, numbers))


class Model:
    """One input and one output, rows first."""

    def __init__(self, path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (given,) = self._session.get_inputs()
        (answered,) = self._session.get_outputs()
        self.input, self.output = given.name, answered.name
        self.dtype, self.datatype = (np.int64, "INT64") if "int64" in given.type else (np.float32, "FP32")
        self.row = tuple(given.shape[1:])
        self.answer = tuple(answered.shape[1:])

    def infer(self, rows):
        (answers,) = self._session.run([self.output], {self.input: rows})
        return answers

    # -- V2 as far as the benchmark needs it, for peers that do not speak it

    def rows(self, request):
        """The rows of a V2 request that was JSON."""
        (tensor,) = request["inputs"]
        return np.array(tensor["data"], self.dtype).reshape(tensor["shape"])

    def response(self, name, data, shape):
        output = {"name": self.output, "shape": shape, "datatype": "FP32", "data": data}
        return {"model_name": name, "model_version": "1", "outputs": [output]}
