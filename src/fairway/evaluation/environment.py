"""Where a report was made: what could change its numbers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from fairway.core.processor import processor

_PACKAGES = ("fairway", "numpy", "scikit-learn", "scipy", "onnxruntime")


def describe_environment() -> dict[str, str]:
    """Python, packages, processor, cores."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "cpu": processor(), "cores": str(_cores())}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
