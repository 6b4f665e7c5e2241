"""Where a model comes from, as data that depends on nothing else."""

from __future__ import annotations

import hashlib
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fairway.bundle.format import file_digest

_SECRET = re.compile(r"passw|secret|token|api_?key|credential|private", re.IGNORECASE)
_MAX_TEXT = 200
_MAX_ITEMS = 64

PACKAGES = {
    "sklearn": ("scikit-learn", "skl2onnx", "onnx"),
    "onnx": ("onnx",),
    "torch": ("torch", "onnxscript", "onnx"),
    "huggingface": ("transformers", "tokenizers", "torch", "onnxscript", "onnx"),
    "keras": ("keras", "torch", "onnxscript", "onnx"),
}
"""The packages that a conversion rests on, by kind of source."""


def path_digest(path: Path) -> str:
    """``sha256:…`` of a file, or of a folder's file names and contents."""
    if path.is_file():
        return f"sha256:{file_digest(path)}"
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def relative_name(path: Path, root: Path) -> str:
    """``path`` as seen from ``root``, or its last part: a bundle does not tell where on a machine it was made."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def environment(kind: str) -> dict[str, str]:
    """Versions of Python and of the packages that a conversion rests on."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("fairway", "numpy", "onnxruntime", *PACKAGES[kind]):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # an import path without metadata; the version is then unknown
            continue
    return versions


def code_revision(root: Path) -> str:
    """The Git commit of the folder, with ``+changes`` if tracked files differ from it; empty outside Git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def hyperparameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain JSON values, without secrets and without anything that differs from run to run."""
    return {str(name): _plain(value) for name, value in sorted(parameters.items()) if not _SECRET.search(str(name))}


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, Mapping):
        return hyperparameters(value)
    if isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS:
        return [_plain(item) for item in value]
    return _type_name(value)


def _type_name(value: Any) -> str:
    kind = value if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
