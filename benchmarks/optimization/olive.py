"""Olive's forms of a graph, made by its own passes in its own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.optimization.forms import Form
from benchmarks.serving.environments import PEERS, environment
from fairway.bundle.format import Bundle, write_bundle
from fairway.core.tensors import Tensors


def olive(source: Bundle, calibration: Tensors, seconds: float, folder: Path) -> tuple[list[Form], float]:
    """Every form that Olive makes within ``seconds``, in bundles like ``source``; and the seconds it took.

    Raises
    ------
    SystemExit
        If Olive's environment cannot be made.
    """
    python, why = environment("olive")
    if python is None:
        raise SystemExit(f"no comparison with Olive: {why}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    graph = source.file(source.manifest.engine.file)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        np.savez(scratch / "rows.npz", **dict(calibration))  # type: ignore[arg-type]
        started = time.perf_counter()
        command = [
            python,
            str(PEERS / "olive_app.py"),
            str(graph),
            str(scratch / "rows.npz"),
            str(scratch),
            str(seconds),
        ]
        quiet = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet, timeout=2 * seconds)
        took = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"Olive ended with {done.returncode}: {done.stderr[-500:]}")
        for each in json.loads((scratch / "found.json").read_text()):
            print(f"Olive, {each['name']}: {each['error'] or 'made'} in {each['seconds']} s", flush=True)
        made = sorted(scratch.glob("*.onnx"))
        return [Form(f"Olive's {path.stem}", _bundle(source, path, folder / path.stem)) for path in made], took


def _bundle(source: Bundle, graph: Path, destination: Path) -> Bundle:
    """As ``source``, with another graph; rows of a call share a scale where activations are scaled as they come."""
    spec = source.manifest.engine
    files = {name: source.path / name for name in source.manifest.files if name != spec.file}
    engine = msgspec.structs.replace(spec, batching="dynamic" not in graph.stem)
    manifest = msgspec.structs.replace(source.manifest, engine=engine)
    return write_bundle(destination, manifest, {**files, spec.file: graph})
