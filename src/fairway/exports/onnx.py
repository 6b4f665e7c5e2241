"""A bundle's graph as plain files, for whatever reads ONNX."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairway.bundle.format import MANIFEST, Bundle
from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.optimization.graphs import external_files

LABELS = "labels.txt"
"""Class names, one a line, in the order of the scores."""


def write_folder(bundle: Bundle, folder: Path) -> None:
    """Write the graph with its external data, the files of its processing steps, labels, and the manifest.

    Raises
    ------
    InvalidConfig
        If the bundle's graph is not ONNX.
    """
    write_graph(bundle, folder)
    write_labels(bundle, folder)
    write_step_files(bundle, folder)
    place(folder / MANIFEST, bundle.manifest.encode())


def write_graph(bundle: Bundle, folder: Path) -> None:
    """Write the graph as ``model.onnx``, and beside it the files that it keeps its tensors in."""
    graph = Path(bundle.manifest.engine.file)
    if graph.suffix != ".onnx":
        raise InvalidConfig(f"this bundle's graph is {graph.name}, and only ONNX graphs are exported as such")
    place(folder / "model.onnx", bundle.file(graph.as_posix()))
    for name in external_files(bundle.file(graph.as_posix())):
        place(folder / name, bundle.file((graph.parent / name).as_posix()))


def write_step_files(bundle: Bundle, folder: Path) -> None:
    """Write what processing steps read, such as a tokenizer, under the names that they know."""
    processing = bundle.manifest.processing
    for step in (*processing.pre, *processing.post):
        if "file" in step.parameters:
            place(folder / step.parameters["file"], bundle.file(step.parameters["file"]))


def write_labels(bundle: Bundle, folder: Path) -> None:
    """Write the class names, if there are any."""
    if labels := bundle.manifest.labels:
        place(folder / LABELS, "".join(f"{label}\n" for label in labels).encode())


def place(target: Path, content: bytes | Path) -> None:
    """Write a file in a place of its own. Raises :class:`InvalidBundle` if the bundle has another one of that name."""
    if target.exists():
        raise InvalidBundle(f"this bundle has a file {target.name!r} of its own; rename it and pack the bundle again")
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_bytes(content)
