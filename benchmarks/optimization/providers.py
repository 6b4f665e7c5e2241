"""``python -m benchmarks.optimization.providers``: one graph split between two providers of ONNX Runtime.

OpenVINO's provider, which comes with an ONNX Runtime of its own and so has an environment of its own, stands in for one of an
accelerator. The graphs are the text model's, as it is and with its attention fused into operators that OpenVINO's lacks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import fairway
from benchmarks.optimization.forms import make
from benchmarks.optimization.tables import CACHE
from benchmarks.optimization.text import text
from benchmarks.serving.environments import PEERS, environment
from fairway.model import Model
from fairway.optimization.passes.base import Sample

PROVIDER = "OpenVINOExecutionProvider"
_ROWS = 16


def main() -> None:
    python, why = environment("providers")
    if python is None:
        sys.exit(f"nothing to split between: {why}")
    source, _, (texts, _) = text()
    with Model(source) as model:
        feed = model.prepare({"text": np.array([each.encode() for each in texts[:_ROWS]], object)})
    forms = make(source, ["fused"], Sample(feed, _ROWS), CACHE / "provider-forms")
    table = Table(title=f"{_ROWS} texts, one thread, {PROVIDER} before the CPU", title_justify="left")
    for column in ("graph", "provider", "operators", "largest difference", "speed"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        np.savez(rows, **feed)  # type: ignore[arg-type]
        for form in forms:
            graph = form.bundle.file(form.bundle.manifest.engine.file)
            found = _run(python, graph, rows)
            for name, counts in found["ran"].items():
                most = ", ".join(f"{count} {each}" for each, count in sorted(counts.items(), key=lambda each: -each[1]))
                told = (f"{found['difference']:.2g} of {found['scale']:.2g}", f"{found['speed']:.2f} x the CPU's")
                table.add_row(form.name, name, most, *told)
    Console(width=160).print(table)


def _run(python: str, graph: Path, rows: Path) -> Any:
    source = str(Path(fairway.__file__).parents[1])
    command = [python, str(PEERS / "providers_app.py"), str(graph), str(rows), PROVIDER]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source}
    )
    if done.returncode:
        sys.exit(f"the split did not run: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
