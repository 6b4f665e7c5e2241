"""Fairway: the whole road from a trained model to a live, watched service, under one gate.

The verbs of the loop, each of which works in the project of the working directory (its ``fairway.toml``) unless told
otherwise. Everything is imported on first use, so ``import fairway`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.bundle.format import Bundle as Bundle
    from fairway.client import connect as connect
    from fairway.core.errors import FairwayError as FairwayError
    from fairway.loop.card import card as card
    from fairway.loop.compare import compare as compare
    from fairway.loop.distill import distill as distill
    from fairway.loop.evaluate import evaluate as evaluate
    from fairway.loop.export import export as export
    from fairway.loop.load import load as load
    from fairway.loop.observe import observe as observe
    from fairway.loop.optimize import optimize as optimize
    from fairway.loop.pack import pack as pack
    from fairway.loop.project import Project as Project
    from fairway.loop.register import register as register
    from fairway.loop.release import release as release
    from fairway.loop.release import rollback as rollback
    from fairway.loop.replay import replay as replay
    from fairway.loop.run import run as run
    from fairway.loop.serve import serve as serve
    from fairway.loop.status import status as status
    from fairway.model import Model as Model

_WHERE = {
    "Bundle": "fairway.bundle.format",
    "FairwayError": "fairway.core.errors",
    "Model": "fairway.model",
    "Project": "fairway.loop.project",
    "card": "fairway.loop.card",
    "compare": "fairway.loop.compare",
    "connect": "fairway.client",
    "distill": "fairway.loop.distill",
    "evaluate": "fairway.loop.evaluate",
    "export": "fairway.loop.export",
    "load": "fairway.loop.load",
    "observe": "fairway.loop.observe",
    "optimize": "fairway.loop.optimize",
    "pack": "fairway.loop.pack",
    "register": "fairway.loop.register",
    "release": "fairway.loop.release",
    "replay": "fairway.loop.replay",
    "rollback": "fairway.loop.release",
    "run": "fairway.loop.run",
    "serve": "fairway.loop.serve",
    "status": "fairway.loop.status",
}

__all__ = [
    "Bundle",
    "FairwayError",
    "Model",
    "Project",
    "card",
    "compare",
    "connect",
    "distill",
    "evaluate",
    "export",
    "load",
    "observe",
    "optimize",
    "pack",
    "register",
    "release",
    "replay",
    "rollback",
    "run",
    "serve",
    "status",
    "version",
]


def version() -> str:
    """The installed version of Fairway."""
    from importlib.metadata import version as installed

    return installed("fairway")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fairway' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
