"""Run the parts, each a module with ``measure() -> list[Figure]``: all of them, or those named."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import benchmarks.evaluation
from benchmarks.harness import Figure, report

PACKAGES = ["fairway", "numpy", "onnxruntime", "pyarrow", "duckdb", "scikit-learn", "scipy"]


def main(chosen: list[str]) -> None:
    """Measure, print, and write the results."""
    known = [module.name for module in pkgutil.iter_modules(benchmarks.evaluation.__path__) if module.name[0] != "_"]
    figures: list[Figure] = []
    for name in chosen or known:
        figures += importlib.import_module(f"benchmarks.evaluation.{name}").measure()
    report("evaluation", figures, PACKAGES)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main(sys.argv[1:])
