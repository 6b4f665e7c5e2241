"""The verb ``card``: what a model is and what it scores, in a form that others read."""

from __future__ import annotations

from pathlib import Path

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidConfig
from fairway.evaluation.cards import FORMS, render_card
from fairway.loop.models import find_bundle
from fairway.loop.pack import report_of
from fairway.loop.project import Project


def card(model: Bundle | Path | str | None = None, *, form: str = "huggingface", project: Project | None = None) -> str:
    """The model card of ``model``, with the evaluation that it carries.

    Parameters
    ----------
    model : Bundle, path, reference or None
        See :func:`fairway.loop.models.find_bundle`; a bundle that was not packed has a card without results.
    form : {"huggingface", "cyclonedx"}
        Markdown with YAML for the Hugging Face Hub, or a CycloneDX ML-BOM.
    project : Project, optional
        Defaults to that of the working directory.
    """
    if form not in FORMS:
        raise InvalidConfig(f"no card of form {form!r}; known: {', '.join(FORMS)}")
    bundle = find_bundle(project or Project.find(), model)
    return render_card(bundle.manifest, report_of(bundle), form)
