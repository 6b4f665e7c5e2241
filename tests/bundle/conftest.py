"""Small bundles without any engine: the format does not care what the files hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from fairway.bundle.format import Bundle, write_bundle
from fairway.core.manifest import Lineage, Manifest
from fairway.core.tensors import Datatype, TensorSpec

MakeBundle: TypeAlias = Callable[..., Bundle]

FILES = {"model.onnx": b"weights" * 300, "tables/labels.json": b'["zero", "one"]', "empty": b""}


def manifest(name: str = "digits") -> Manifest:
    spec = TensorSpec("x", Datatype.FP32, (-1, 3))
    return Manifest(name, "classification", (spec,), (spec,), {}, lineage=Lineage(source="train:fit"))


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    def make(path: Path | None = None, files: dict[str, bytes] = FILES) -> Bundle:
        return write_bundle(path or tmp_path / "digits.fairway", manifest(), files)

    return make


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Bundle:
    return make_bundle()


def tree(path: Path) -> dict[str, bytes]:
    """Every file below ``path``, hidden ones included."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
