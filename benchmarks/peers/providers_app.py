"""Fairway's engine beside a second provider of ONNX Runtime: which operators each ran, and whether the answers agree.

Arguments: graph, rows (``.npz``), provider. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fairway.core.tensors import Tensors
from fairway.engines.onnxruntime import OnnxRuntimeEngine

_ROUNDS = 15


def main(graph: Path, rows: Path, provider: str) -> None:
    with np.load(rows) as kept:
        feed: Tensors = dict(kept)
    plain, split = OnnxRuntimeEngine(graph), OnnxRuntimeEngine(graph, providers=[provider])
    answers = [engine.infer(feed) for engine in (plain, split)]
    ratios = [_seconds(plain, feed) / _seconds(split, feed) for _ in range(_ROUNDS)]
    found = {
        "ran": _ran(graph, feed, provider),
        "difference": max(float(np.abs(answers[1][name] - answers[0][name]).max()) for name in answers[0]),
        "scale": max(float(np.abs(array).max()) for array in answers[0].values()),
        "speed": statistics.median(ratios),
    }
    print(json.dumps(found))


def _seconds(engine: OnnxRuntimeEngine, feed: Tensors) -> float:
    started = time.perf_counter()
    engine.infer(feed)
    return time.perf_counter() - started


def _ran(graph: Path, feed: Tensors, provider: str) -> dict[str, dict[str, int]]:
    """By provider: how often each operator ran in one call. A part that a provider compiled is one operator."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(graph, options, providers=[provider, "CPUExecutionProvider"])
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    ran: dict[str, Counter[str]] = {}
    for event in events:
        said = event.get("args", {})
        if event.get("name", "").endswith("_kernel_time"):
            ran.setdefault(said["provider"], Counter())[said["op_name"]] += 1
    return {name: dict(counts) for name, counts in ran.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
