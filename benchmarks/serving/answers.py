"""Is a server's answer the model's? Asked of every server and wire before it is measured."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np

from benchmarks.serving.load import GRPC_PATH
from benchmarks.serving.workloads import BINARY_HEADER, Workload

_PATIENCE_S = 30


def check_rest(workload: Workload, port: int, path: str, wire: str) -> str:
    """What is wrong with the answer; empty if nothing is."""
    body = workload.bodies[wire]
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{port}{path}", content=body.data, headers=body.headers, timeout=_PATIENCE_S
        )
    except httpx.HTTPError as error:
        return f"no answer ({type(error).__name__})"
    if not answer.is_success:
        return f"HTTP {answer.status_code}: {answer.text[:150]}"
    if wire != "binary":
        return _wrong(np.array(_longest(answer.json()), float), workload)
    if BINARY_HEADER not in answer.headers:
        return "the answer is not binary"
    return _wrong(np.frombuffer(answer.content[int(answer.headers[BINARY_HEADER]) :], np.float32), workload)


def check_grpc(workload: Workload, port: int) -> tuple[str, int]:
    """What is wrong with the answer of a real client's call, and the size of a right one on the wire."""
    import grpc

    from fairway.serving.transports.grpc.messages import message

    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary(GRPC_PATH)  # bytes as they are
        try:
            answer = call(workload.bodies["grpc"].data[5:], timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}", 0
    said = message("inference.ModelInferResponse").FromString(answer)
    raw = said.raw_output_contents
    values = np.frombuffer(raw[0], np.float32) if raw else np.array(said.outputs[0].contents.fp32_contents)
    return _wrong(values, workload), len(answer) + 5


def _wrong(values: Any, workload: Workload) -> str:
    expected = workload.expected
    if values.shape != expected.shape or not np.allclose(values, expected, rtol=1e-2, atol=1e-3):
        return f"{values.size} numbers, which are not the model's {expected.size}"
    return ""


def _longest(said: Any) -> list[float]:
    """The longest list of numbers in parsed JSON."""
    if isinstance(said, list) and said and all(isinstance(each, int | float) for each in said):
        return said
    inside = said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()
    return max(map(_longest, inside), key=len, default=[])
