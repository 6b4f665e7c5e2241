"""Run the parts, each a module with ``measure() -> list[Figure]``: all of them, or those named.

Each part has a file of results of its own, ``benchmarks/results/evaluation_PART.json``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import benchmarks.evaluation
from benchmarks.harness import report

PACKAGES = ["fairway", "numpy", "onnxruntime", "pyarrow", "duckdb", "scikit-learn", "scipy"]


def main(chosen: list[str]) -> None:
    """Measure, print, write the results, and exit 1 if a target does not hold."""
    known = [module.name for module in pkgutil.iter_modules(benchmarks.evaluation.__path__) if module.name[0] != "_"]
    missed = False
    for name in chosen or known:
        figures = importlib.import_module(f"benchmarks.evaluation.{name}").measure()
        try:
            report(f"evaluation_{name}", figures, PACKAGES)
        except SystemExit as done:  # it ends with its verdict
            missed = missed or bool(done.code)
    sys.exit(missed)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main(sys.argv[1:])
