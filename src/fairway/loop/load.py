"""The verb ``load``: a model in this process, without a server."""

from __future__ import annotations

from pathlib import Path

from fairway.bundle.format import Bundle
from fairway.loop.models import find_bundle
from fairway.loop.project import Project
from fairway.model import Model


def load(model: Bundle | Path | str, *, project: Project | None = None) -> Model:
    """Load a bundle, or a registered version, into this process.

    Parameters
    ----------
    model : Bundle, path or reference
        Such as ``"digits.fairway"``, ``"digits:4"`` or ``"digits@champion"``.

    Returns
    -------
    Model
        Call ``.infer({"name": array})``; close it, or use it in a ``with`` block.
    """
    return Model(find_bundle(project or Project.find(), model))
