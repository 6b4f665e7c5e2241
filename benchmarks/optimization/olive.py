"""Olive's forms of a graph, made by its own passes in its own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.optimization.forms import Form
from benchmarks.serving.environments import PEERS, environment
from fairway.bundle.format import Bundle, write_bundle
from fairway.core.tensors import Tensors

_GRACE_S = 120


def candidates(graph: Path, calibration: Tensors, seconds: float, folder: Path) -> dict[str, Path]:
    """The ``model.onnx`` of each workflow of Olive's that ends with one, by the workflow's name; kept in ``folder``.

    No workflow starts after ``seconds``; one that runs is given two minutes more, and what was made before it stays.

    Raises
    ------
    SystemExit
        If Olive's environment cannot be made, or nothing runs in it.
    """
    python, why = environment("olive")
    if python is None:
        raise SystemExit(f"no comparison with Olive: {why}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = folder / "rows.npz"
    np.savez(rows, **dict(calibration))  # type: ignore[arg-type]
    command = [python, str(PEERS / "olive_app.py"), str(graph), str(rows), str(folder), str(seconds)]
    quiet = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1"}
    with (folder / "log.txt").open("w") as log:
        try:
            subprocess.run(command, stdout=log, stderr=log, check=True, env=quiet, timeout=seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            print("Olive was stopped within a workflow", flush=True)
        except subprocess.CalledProcessError as failure:
            raise SystemExit(f"Olive ended with {failure.returncode}: {_end(folder / 'log.txt')}") from failure
    told = folder / "found.json"
    if not told.is_file():
        raise SystemExit(f"Olive made nothing: {_end(folder / 'log.txt')}")
    found = json.loads(told.read_text())
    for each in found:
        print(f"Olive, {each['name']}: {each['error'] or 'made'} in {each['seconds']} s", flush=True)
    return {each["name"]: folder / each["name"] / "model.onnx" for each in found if not each["error"]}


def olive(source: Bundle, calibration: Tensors, seconds: float, folder: Path) -> tuple[list[Form], float]:
    """Every form that Olive makes within ``seconds``, in bundles like ``source``; and the seconds it took.

    Raises
    ------
    SystemExit
        As :func:`candidates` does.
    """
    started = time.perf_counter()
    made = candidates(source.file(source.manifest.engine.file), calibration, seconds, folder / "graphs")
    took = time.perf_counter() - started
    return [Form(f"Olive's {name}", _bundle(source, name, graph, folder / name)) for name, graph in made.items()], took


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-500:]


def _bundle(source: Bundle, name: str, graph: Path, destination: Path) -> Bundle:
    """As ``source``, with another graph; rows of a call share a scale where activations are scaled as they come."""
    spec = source.manifest.engine
    files = {each: source.path / each for each in source.manifest.files if each != spec.file}
    engine = msgspec.structs.replace(spec, batching="dynamic" not in name)
    manifest = msgspec.structs.replace(source.manifest, engine=engine)
    return write_bundle(destination, manifest, {**files, spec.file: graph})
