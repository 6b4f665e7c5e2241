"""The verb ``export``: a bundle in another server's layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.bundle.format import Bundle
from fairway.bundle.staging import publish, staging, sync
from fairway.core.errors import InvalidConfig
from fairway.loop.models import find_bundle
from fairway.loop.progress import SILENT, Progress
from fairway.loop.project import Project

if TYPE_CHECKING:
    from fairway.exports.triton import Backend

TARGETS = ("triton", "onnx")

_NOT_POSSIBLE = {
    "tfserving": "TensorFlow Serving reads SavedModels only, and a bundle holds an ONNX graph, which TensorFlow cannot "
    "read. Serve it with Fairway or with --to triton, which speak the same V2 protocol; or export the original from "
    "TensorFlow itself"
}
"""Layouts that people ask for, and why a bundle cannot have them."""


def export(
    model: Bundle | Path | str,
    folder: Path | str,
    *,
    to: str = "triton",
    backend: Backend = "onnxruntime",
    raw: bool = False,
    instances: int = 1,
    project: Project | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write ``model`` in the layout ``to``: all of it, or nothing.

    Parameters
    ----------
    model : Bundle, path or reference
        See :func:`fairway.loop.models.find_bundle`.
    folder : path
        For ``triton`` the model repository, to which a folder of the model's name is added; for ``onnx`` the folder
        itself. What is there already and is not empty stays, and is an error.
    to : {"triton", "onnx"}
    backend : {"onnxruntime", "python"}
        Which of Triton's. ``onnxruntime`` runs the graph alone; ``python`` runs a file of Python, and so a tokenizer too.
    raw : bool, default False
        Export a graph without the processing steps that only Fairway runs: callers then send what the graph takes.
    instances : int, default 1
        Of Triton: how many of it run beside each other.
    project : Project, optional
        Defaults to that of the working directory.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    InvalidConfig
        If there is no such layout, this bundle cannot be had in it, or something is in its place.
    """
    if to in _NOT_POSSIBLE:
        raise InvalidConfig(f"a bundle cannot be exported to {to}: {_NOT_POSSIBLE[to]}")
    if to not in TARGETS:
        raise InvalidConfig(f"no export {to!r}; there are: {', '.join(TARGETS)}")
    if instances < 1:
        raise InvalidConfig(f"--instances {instances}: at least one must run")
    bundle = find_bundle(project or Project.find(), model, progress)
    progress.step(f"exporting {bundle.manifest.name} to {to}")
    if to == "onnx":
        from fairway.exports.onnx import write_folder

        return _placed(Path(folder), lambda into: write_folder(bundle, into))
    from fairway.exports.triton import BACKENDS, write_model

    if backend not in BACKENDS:
        raise InvalidConfig(f"no backend {backend!r}; known: {', '.join(BACKENDS)}")
    return _placed(
        Path(folder) / bundle.manifest.name,
        lambda into: write_model(bundle, into, backend=backend, raw=raw, instances=instances),
    )


def _placed(place: Path, write: Callable[[Path], None]) -> Path:
    """``place``, filled by ``write`` and made durable; it appears at once, or not at all."""
    place = place.absolute()
    if os.path.lexists(place) and (place.is_symlink() or not place.is_dir() or any(place.iterdir())):
        raise InvalidConfig(f"{place} exists already; remove it, or export to another folder")
    with staging(place) as staged:
        write(staged)
        for file in staged.rglob("*"):
            if file.is_file():
                sync(file)
        publish(staged, place)
    return place
