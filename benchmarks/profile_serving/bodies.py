"""An image's way to an array, by form, beside what the model takes for it."""

from __future__ import annotations

import time

import numpy as np
import orjson

from benchmarks.profile_serving.timing import Part, timed
from benchmarks.serving.workloads import BINARY_HEADER, Workload
from fairway.serving.transports.grpc.decoding import Decoder
from fairway.serving.transports.v2binary import decode_binary
from fairway.serving.transports.v2json import decode_request


def image_parts(workload: Workload) -> list[Part]:
    name = workload.served_as
    listed, binary, grpc = (workload.bodies[wire] for wire in ("json", "binary", "grpc"))
    size = int(binary.headers[BINARY_HEADER])
    decoder = Decoder()
    return [
        Part("JSON to a float32 array", timed(lambda: decode_request(listed.data, name, None, None), 1, 20)),
        Part("orjson.loads alone, for comparison", timed(lambda: orjson.loads(listed.data), 1, 20), within=True),
        Part("JSON by orjson and NumPy, for comparison", timed(lambda: _by_hand(listed.data), 1, 20), within=True),
        Part(
            "binary to a float32 array", timed(lambda: decode_binary(binary.data, size, name, None, None, None), 20, 20)
        ),
        Part("protobuf to a float32 array", timed(lambda: decoder.decode(grpc.data[5:], None, None), 5, 20)),
        Part("engine call of one row", _engine_us(workload)),
    ]


def _by_hand(body: bytes) -> object:
    (tensor,) = orjson.loads(body)["inputs"]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


def _engine_us(workload: Workload) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(workload.model, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(10):
        started = time.process_time()
        session.run(None, {"x": workload.row})
        times.append(time.process_time() - started)
    return min(times) * 1e6
