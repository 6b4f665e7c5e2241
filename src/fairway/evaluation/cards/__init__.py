"""Model cards: what a model is, what it scores and how sure that is, in the forms that others read.

One module per form, each with ``render(manifest, report)`` and the ``FILE`` that it has in a bundle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.core.manifest import Manifest
    from fairway.evaluation.report import Report

FORMS = ("huggingface", "cyclonedx")
"""Each is a module of this package."""


def render_card(manifest: Manifest, report: Report | None, form: str) -> str:
    """The card in one of ``FORMS``; without a report it has no results."""
    text: str = _module(form).render(manifest, report)
    return text


def card_files(manifest: Manifest, report: Report) -> dict[str, bytes]:
    """Every form, by its file name in a bundle."""
    return {_module(form).FILE: render_card(manifest, report, form).encode() for form in FORMS}


def _module(form: str) -> Any:
    return import_module(f"fairway.evaluation.cards.{form}")
